# The half of the journal's store that runs on its own thread and never takes the GIL. See logwriter.pyx.

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from stateside._speedups.lmdb cimport MDB_cursor, MDB_dbi, MDB_env, MDB_txn

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)

cdef enum Durability:
    DURABLE = 0
    RELAXED = 1
    NONE = 2

cdef enum State:
    WRITABLE = 0
    FULL = 1
    BROKEN = 2

# One append: where its parts lie in the batch's bytes.
cdef struct Item:
    uint64_t offset
    size_t entity_start
    size_t record_start
    size_t record_size  # 0: a snapshot alone
    size_t snapshot_start
    size_t snapshot_size  # 0: none
    uint16_t entity_size

cdef struct Batch:
    char* data
    size_t used
    size_t capacity
    Item* items
    uint32_t count
    uint32_t item_capacity
    uint32_t snapshots

# One index entry that is still to be written. A later one of the same value takes its place.
cdef struct Entry:
    const char* key
    size_t key_start
    uint64_t offset
    uint64_t version  # of a value; 0: the entry leads to events
    uint16_t key_size

cdef struct Arena:
    char* keys
    size_t used
    size_t capacity
    Entry* entries
    uint32_t count
    uint32_t entry_capacity

cdef enum:
    SIZE_BUCKETS = 18  # 1, 2, 4 ... 65536, and what is above
    TIME_BUCKETS = 17

# What became of the batch that was handed over last.
cdef struct Outcome:
    int code
    bint froze  # all that was unindexed became the old generation
    bint indexed  # the old generation is in the index now

cdef struct Writer:
    pthread_mutex_t lock
    pthread_cond_t wake
    pthread_mutex_t map_lock  # held by a reader while it reads, by the writer while it moves the map
    pthread_mutex_t txn_lock  # held by the writer during a transaction
    int event_fd
    int data_fd
    MDB_env* env
    MDB_dbi log
    MDB_dbi index
    MDB_dbi snapshots
    MDB_dbi meta
    int durability
    size_t page_size
    size_t map_size
    size_t map_size_max
    uint32_t tail_limit
    double probe_interval
    # shared, under `lock`
    Batch* submitted
    bint done
    bint stopping
    Outcome outcome
    State state
    int trouble  # the code that made it FULL or BROKEN
    int fault  # tests: fail the next commit or sync with this code
    uint64_t batches
    double flush_seconds
    uint64_t[SIZE_BUCKETS] batch_sizes  # appends, by powers of two
    uint64_t[TIME_BUCKETS] flush_times  # by FLUSH_BOUNDS
    # the writer's own
    Arena young
    Arena old
    uint32_t old_next
    uint64_t old_end
    uint64_t committed  # offset behind the last stored record
    size_t allocated
    size_t wanted  # room that was missing when it became FULL
    bint no_fallocate
    bint unsynced
    double next_tick

cdef double[TIME_BUCKETS - 1] FLUSH_BOUNDS
cdef int batch_reserve(Batch* batch, size_t size) noexcept nogil
cdef void batch_reset(Batch* batch) noexcept nogil
cdef void batch_free(Batch* batch) noexcept nogil
cdef int arena_reserve(Arena* arena, size_t size, size_t count) noexcept nogil
cdef void arena_add(Arena* arena, const char* record, uint64_t offset) noexcept nogil
cdef int writer_init(Writer* writer) noexcept nogil
cdef void writer_free(Writer* writer) noexcept nogil
cdef int adopt_map(Writer* writer) noexcept nogil
cdef int grow_map(Writer* writer) noexcept nogil
cdef void writer_submit(Writer* writer, Batch* batch) noexcept nogil
cdef void writer_stop(Writer* writer) noexcept nogil
cdef void writer_run(Writer* writer) noexcept nogil
