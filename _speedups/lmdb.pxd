# liblmdb (lmdb.h of OpenLDAP, 0.9.24 or later) and the inline hash of libxxhash: what the journal's store uses of them.

from libc.stdint cimport uint64_t

cdef extern from "lmdb.h" nogil:
    ctypedef struct MDB_env:
        pass
    ctypedef struct MDB_txn:
        pass
    ctypedef struct MDB_cursor:
        pass
    ctypedef unsigned int MDB_dbi
    ctypedef unsigned int mdb_mode_t
    ctypedef struct MDB_val:
        size_t mv_size
        void* mv_data
    ctypedef struct MDB_envinfo:
        size_t me_mapsize
        size_t me_last_pgno
    ctypedef struct MDB_stat:
        unsigned int ms_psize
        size_t ms_entries
    ctypedef enum MDB_cursor_op:
        MDB_FIRST
        MDB_LAST
        MDB_NEXT
        MDB_PREV
        MDB_SET_KEY
        MDB_SET_RANGE

    enum:
        MDB_NOTLS
        MDB_NOSYNC
        MDB_RDONLY
        MDB_CREATE
        MDB_APPEND
        MDB_RESERVE
        MDB_SUCCESS
        MDB_NOTFOUND
        MDB_MAP_FULL
        MDB_MAP_RESIZED
        MDB_TXN_FULL
        MDB_PANIC
        MDB_VERSION_MISMATCH
        MDB_INVALID

    char* mdb_strerror(int code)
    int mdb_env_create(MDB_env** env)
    int mdb_env_open(MDB_env* env, const char* path, unsigned int flags, mdb_mode_t mode)
    int mdb_env_sync(MDB_env* env, int force)
    void mdb_env_close(MDB_env* env)
    int mdb_env_set_mapsize(MDB_env* env, size_t size)
    int mdb_env_set_maxdbs(MDB_env* env, MDB_dbi dbs)
    int mdb_env_info(MDB_env* env, MDB_envinfo* info)
    int mdb_env_stat(MDB_env* env, MDB_stat* stat)
    int mdb_env_get_fd(MDB_env* env, int* fd)
    int mdb_reader_check(MDB_env* env, int* dead)
    int mdb_txn_begin(MDB_env* env, MDB_txn* parent, unsigned int flags, MDB_txn** txn)
    int mdb_txn_commit(MDB_txn* txn)
    void mdb_txn_abort(MDB_txn* txn)
    void mdb_txn_reset(MDB_txn* txn)
    int mdb_txn_renew(MDB_txn* txn)
    int mdb_dbi_open(MDB_txn* txn, const char* name, unsigned int flags, MDB_dbi* dbi)
    int mdb_stat(MDB_txn* txn, MDB_dbi dbi, MDB_stat* stat)
    int mdb_get(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data)
    int mdb_put(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data, unsigned int flags)
    int mdb_del(MDB_txn* txn, MDB_dbi dbi, MDB_val* key, MDB_val* data)
    int mdb_cursor_open(MDB_txn* txn, MDB_dbi dbi, MDB_cursor** cursor)
    int mdb_cursor_renew(MDB_txn* txn, MDB_cursor* cursor)
    void mdb_cursor_close(MDB_cursor* cursor)
    int mdb_cursor_get(MDB_cursor* cursor, MDB_val* key, MDB_val* data, MDB_cursor_op op)
    int mdb_cursor_put(MDB_cursor* cursor, MDB_val* key, MDB_val* data, unsigned int flags)

cdef extern from *:
    """
    #define XXH_INLINE_ALL
    #include <xxhash.h>
    """
    uint64_t XXH3_64bits(const void* data, size_t size) nogil
    uint64_t XXH3_64bits_withSeed(const void* data, size_t size, uint64_t seed) nogil
