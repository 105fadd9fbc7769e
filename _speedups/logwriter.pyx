"""The journal's writer: group commit on a thread of its own that never takes the GIL.

The loop's side (log.pyx) prepares a batch of records in plain memory and hands it over; this side computes the
checksums, writes the batch in one LMDB transaction and tells the loop through an eventfd. At most one batch is here at
any time, so a failure fails that batch and what has gathered behind it, and nothing else.

Index entries lag behind: scattered keys cost a page each, so they are collected (`young`), sorted when there are enough
(`old`), and written a slice per transaction, neighbours together. What a crash loses of them is read from the log.
"""

from libc.errno cimport EDQUOT, EFBIG, EINTR, EINVAL, EIO, ENOMEM, ENOSPC, ENOSYS, EOPNOTSUPP, errno
from libc.stdlib cimport calloc, free, qsort, realloc
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.types cimport off_t
from posix.unistd cimport write

from stateside._speedups.lmdb cimport (
    MDB_APPEND,
    MDB_MAP_FULL,
    MDB_MAP_RESIZED,
    MDB_RESERVE,
    MDB_TXN_FULL,
    MDB_envinfo,
    MDB_val,
    mdb_cursor_close,
    mdb_cursor_open,
    mdb_cursor_put,
    mdb_del,
    mdb_env_info,
    mdb_env_set_mapsize,
    mdb_env_sync,
    mdb_put,
    mdb_txn_abort,
    mdb_txn_begin,
    mdb_txn_commit,
)
from stateside._speedups.record cimport (
    EVENTS_ENTRY_SIZE,
    KEY_SIZE,
    VALUE_ENTRY_SIZE,
    RecordHeader,
    SnapshotHeader,
    is_value,
    put_big_endian,
    put_key,
    record_entity,
    seal_record,
    snapshot_checksum,
)

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_mutex_init(pthread_mutex_t* mutex, const void* attributes)
    int pthread_mutex_destroy(pthread_mutex_t* mutex)
    int pthread_condattr_init(pthread_condattr_t* attributes)
    int pthread_condattr_setclock(pthread_condattr_t* attributes, int clock)
    int pthread_cond_init(pthread_cond_t* condition, const pthread_condattr_t* attributes)
    int pthread_cond_destroy(pthread_cond_t* condition)
    int pthread_cond_signal(pthread_cond_t* condition)
    int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex)
    int pthread_cond_timedwait(pthread_cond_t* condition, pthread_mutex_t* mutex, const timespec* until)

cdef extern from "<sys/statvfs.h>" nogil:
    cdef struct statvfs_t "statvfs":
        unsigned long f_frsize
        unsigned long f_bavail
    int fstatvfs(int fd, statvfs_t* found)

cdef extern from *:
    """
    #include <errno.h>
    #include <linux/falloc.h>
    extern int fallocate(int fd, int mode, __off_t offset, __off_t size);
    """
    int fallocate(int fd, int mode, off_t offset, off_t size) nogil

cdef enum:
    SLICE_MIN = 1024  # index entries written along with a small batch
    CHUNK_MIN = 1 << 20
    CHUNK_MAX = 64 << 20
    ROOM_MARGIN = 256 << 10  # inner pages and the free list of a transaction
    KEEP_CAPACITY = 8 << 20  # a batch buffer larger than this is given back

cdef double SYNC_INTERVAL = 1.0
cdef double[TIME_BUCKETS - 1] FLUSH_BOUNDS = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0
]


# Batches and arenas: growing arrays.

cdef int grow_array(void** array, size_t* capacity, size_t needed, size_t item_size) noexcept nogil:
    cdef size_t larger
    cdef void* grown
    if needed <= capacity[0]:
        return 0
    larger = max(needed, capacity[0] * 2, <size_t>1024)
    grown = realloc(array[0], larger * item_size)
    if grown == NULL:
        return ENOMEM
    array[0] = grown
    capacity[0] = larger
    return 0


cdef int batch_reserve(Batch* batch, size_t size) noexcept nogil:
    # Room for one more item of `size` bytes in all.
    cdef size_t items = batch.item_capacity
    if grow_array(<void**>&batch.data, &batch.capacity, batch.used + size, 1):
        return ENOMEM
    if grow_array(<void**>&batch.items, &items, batch.count + 1, sizeof(Item)):
        return ENOMEM
    batch.item_capacity = <uint32_t>items
    return 0


cdef void batch_reset(Batch* batch) noexcept nogil:
    if batch.capacity > KEEP_CAPACITY:
        free(batch.data)
        batch.data = NULL
        batch.capacity = 0
    batch.used = batch.count = batch.snapshots = 0


cdef void batch_free(Batch* batch) noexcept nogil:
    free(batch.data)
    free(batch.items)
    memset(batch, 0, sizeof(Batch))


cdef int arena_reserve(Arena* arena, size_t size, size_t count) noexcept nogil:
    cdef size_t entries = arena.entry_capacity
    if grow_array(<void**>&arena.keys, &arena.capacity, arena.used + size, 1):
        return ENOMEM
    if grow_array(<void**>&arena.entries, &entries, arena.count + count, sizeof(Entry)):
        return ENOMEM
    arena.entry_capacity = <uint32_t>entries
    return 0


cdef void arena_add(Arena* arena, const char* record, uint64_t offset) noexcept nogil:
    # There is room: arena_reserve was called. All versions of a value have the same key.
    cdef const RecordHeader* header = <const RecordHeader*>record
    cdef Entry* entry = &arena.entries[arena.count]
    cdef bint value = is_value(record)
    cdef uint64_t sequence = 0 if value else header.first_sequence
    entry.key_start = arena.used
    entry.key_size = <uint16_t>put_key(arena.keys + arena.used, record_entity(record), header.entity_size, sequence)
    entry.offset = offset
    entry.version = header.first_sequence if value else 0
    arena.used += entry.key_size
    arena.count += 1


cdef int by_key(const void* left, const void* right) noexcept nogil:
    cdef const Entry* a = <const Entry*>left
    cdef const Entry* b = <const Entry*>right
    cdef int order = compare_keys(a, b)
    return order if order != 0 else <int>(a.offset > b.offset) - <int>(a.offset < b.offset)


cdef int compare_keys(const Entry* a, const Entry* b) noexcept nogil:
    cdef int order = memcmp(a.key, b.key, min(a.key_size, b.key_size))
    return order if order != 0 else <int>a.key_size - <int>b.key_size


cdef void arena_sort(Arena* arena) noexcept nogil:
    cdef uint32_t i
    for i in range(arena.count):
        arena.entries[i].key = arena.keys + arena.entries[i].key_start
    qsort(arena.entries, arena.count, sizeof(Entry), by_key)
    drop_superseded(arena)


cdef void drop_superseded(Arena* arena) noexcept nogil:
    # Of the entries of one value only the last is worth writing.
    cdef uint32_t i
    cdef uint32_t kept = 0
    for i in range(arena.count):
        if kept > 0 and compare_keys(&arena.entries[kept - 1], &arena.entries[i]) == 0:
            kept -= 1
        arena.entries[kept] = arena.entries[i]
        kept += 1
    arena.count = kept


cdef void arena_free(Arena* arena) noexcept nogil:
    free(arena.keys)
    free(arena.entries)
    memset(arena, 0, sizeof(Arena))


# The thread: start, hand-over, rest.

cdef int writer_init(Writer* writer) noexcept nogil:
    cdef pthread_condattr_t attributes
    pthread_mutex_init(&writer.lock, NULL)
    pthread_mutex_init(&writer.map_lock, NULL)
    pthread_mutex_init(&writer.txn_lock, NULL)
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    return pthread_cond_init(&writer.wake, &attributes)


cdef void writer_free(Writer* writer) noexcept nogil:
    arena_free(&writer.young)
    arena_free(&writer.old)
    pthread_cond_destroy(&writer.wake)
    pthread_mutex_destroy(&writer.lock)
    pthread_mutex_destroy(&writer.map_lock)
    pthread_mutex_destroy(&writer.txn_lock)


cdef void writer_submit(Writer* writer, Batch* batch) noexcept nogil:
    pthread_mutex_lock(&writer.lock)
    writer.submitted = batch
    pthread_cond_signal(&writer.wake)
    pthread_mutex_unlock(&writer.lock)


cdef void writer_stop(Writer* writer) noexcept nogil:
    pthread_mutex_lock(&writer.lock)
    writer.stopping = True
    pthread_cond_signal(&writer.wake)
    pthread_mutex_unlock(&writer.lock)


cdef void writer_run(Writer* writer) noexcept nogil:
    # The thread's whole life.
    cdef Batch* batch
    cdef bint stopping = False
    while not stopping:
        batch = await_batch(writer, &stopping)
        if batch != NULL:
            flush(writer, batch)
        if now() >= writer.next_tick:
            tick(writer)
    finish(writer)


cdef Batch* await_batch(Writer* writer, bint* stopping) noexcept nogil:
    # The batch handed over, or NULL when it is time for a tick or the end.
    cdef Batch* batch
    cdef int late = 0
    pthread_mutex_lock(&writer.lock)
    while writer.submitted == NULL and not writer.stopping and late == 0:
        late = rest(writer)
    batch = writer.submitted
    writer.submitted = NULL
    stopping[0] = writer.stopping
    pthread_mutex_unlock(&writer.lock)
    return batch


cdef int rest(Writer* writer) noexcept nogil:
    cdef timespec until
    if writer.state == BROKEN or not (writer.unsynced or writer.state == FULL):
        return pthread_cond_wait(&writer.wake, &writer.lock)
    until.tv_sec = <long>writer.next_tick
    until.tv_nsec = <long>((writer.next_tick - until.tv_sec) * 1e9)
    return pthread_cond_timedwait(&writer.wake, &writer.lock, &until)


cdef double now() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec + time.tv_nsec * 1e-9


cdef void notify(Writer* writer) noexcept nogil:
    cdef uint64_t one = 1
    while write(writer.event_fd, &one, 8) < 0 and errno == EINTR:
        pass


# One batch.

cdef void flush(Writer* writer, Batch* batch) noexcept nogil:
    cdef double began = now()
    cdef Outcome outcome
    memset(&outcome, 0, sizeof(Outcome))
    outcome.code = writer.trouble if writer.state == BROKEN else store(writer, batch, &outcome)
    pthread_mutex_lock(&writer.lock)
    if outcome.code != 0:
        set_trouble(writer, outcome.code)
    measure(writer, batch.count, now() - began)
    writer.outcome = outcome
    writer.done = True
    pthread_mutex_unlock(&writer.lock)
    notify(writer)


cdef void measure(Writer* writer, uint32_t appends, double seconds) noexcept nogil:
    # Called under the lock. Read at a scrape.
    cdef int size = 0
    cdef int time = 0
    while size < SIZE_BUCKETS - 1 and (<uint64_t>1 << size) < appends:
        size += 1
    while time < TIME_BUCKETS - 1 and FLUSH_BOUNDS[time] < seconds:
        time += 1
    writer.batches += 1
    writer.flush_seconds += seconds
    writer.batch_sizes[size] += 1
    writer.flush_times[time] += 1


cdef int store(Writer* writer, Batch* batch, Outcome* outcome) noexcept nogil:
    cdef uint32_t slice_size = min(writer.old.count - writer.old_next, max(<uint32_t>SLICE_MIN, 2 * batch.count))
    cdef int code
    if arena_reserve(&writer.young, <size_t>batch.count * KEY_SIZE, batch.count):
        return ENOMEM
    seal(batch)
    code = make_room(writer, room_needed(batch, slice_size))
    if code == 0:
        code = transact(writer, batch, slice_size)
    if code != 0:
        return code
    note_indexed(writer, slice_size, outcome)
    note_stored(writer, batch, outcome)
    return 0


cdef void seal(Batch* batch) noexcept nogil:
    cdef Item* item
    cdef SnapshotHeader* snapshot
    cdef uint32_t i
    for i in range(batch.count):
        item = &batch.items[i]
        if item.record_size:
            seal_record(batch.data + item.record_start, item.record_size, item.offset)
        if item.snapshot_size:
            snapshot = <SnapshotHeader*>(batch.data + item.snapshot_start)
            snapshot.checksum = snapshot_checksum(
                <const char*>snapshot, item.snapshot_size, batch.data + item.entity_start, item.entity_size
            )


cdef int transact(Writer* writer, Batch* batch, uint32_t slice_size) noexcept nogil:
    cdef int code
    while True:
        pthread_mutex_lock(&writer.txn_lock)
        code = write_all(writer, batch, slice_size)
        pthread_mutex_unlock(&writer.txn_lock)
        if not map_changed(writer, code):
            return code


cdef bint map_changed(Writer* writer, int code) noexcept nogil:
    # Whether a transaction that ended with `code` is worth another try.
    if code == MDB_MAP_FULL:
        return grow_map(writer) == 0
    return code == MDB_MAP_RESIZED and adopt_map(writer) == 0


cdef int write_all(Writer* writer, Batch* batch, uint32_t slice_size) noexcept nogil:
    cdef MDB_txn* txn
    cdef int code = mdb_txn_begin(writer.env, NULL, 0, &txn)
    if code != 0:
        return code
    if batch != NULL:
        code = put_batch(writer, txn, batch)
    if code == 0 and slice_size > 0:
        code = put_index(writer, txn, slice_size)
    if code != 0:
        mdb_txn_abort(txn)
        return code
    return commit(writer, txn)


cdef int put_batch(Writer* writer, MDB_txn* txn, Batch* batch) noexcept nogil:
    cdef MDB_cursor* cursor
    cdef uint32_t i
    cdef int code = mdb_cursor_open(txn, writer.log, &cursor)
    if code != 0:
        return code
    for i in range(batch.count):
        if code == 0 and batch.items[i].record_size:
            code = put_record(cursor, batch, &batch.items[i])
        if code == 0 and batch.items[i].snapshot_size:
            code = put_snapshot(writer, txn, batch, &batch.items[i])
    mdb_cursor_close(cursor)
    return code


cdef int put_record(MDB_cursor* cursor, Batch* batch, Item* item) noexcept nogil:
    cdef char[8] offset
    cdef MDB_val key
    cdef MDB_val value
    put_big_endian(offset, item.offset)
    key.mv_data = offset
    key.mv_size = 8
    value.mv_data = batch.data + item.record_start
    value.mv_size = item.record_size
    return mdb_cursor_put(cursor, &key, &value, MDB_APPEND)


cdef int put_snapshot(Writer* writer, MDB_txn* txn, Batch* batch, Item* item) noexcept nogil:
    cdef MDB_val key
    cdef MDB_val value
    key.mv_data = batch.data + item.entity_start
    key.mv_size = item.entity_size
    value.mv_data = batch.data + item.snapshot_start
    value.mv_size = item.snapshot_size
    return mdb_put(txn, writer.snapshots, &key, &value, 0)


cdef int put_index(Writer* writer, MDB_txn* txn, uint32_t slice_size) noexcept nogil:
    cdef MDB_cursor* cursor
    cdef uint32_t i
    cdef int code = mdb_cursor_open(txn, writer.index, &cursor)
    if code != 0:
        return code
    for i in range(writer.old_next, writer.old_next + slice_size):
        code = put_entry(cursor, &writer.old.entries[i])
        if code != 0:
            break
    mdb_cursor_close(cursor)
    if code == 0 and writer.old_next + slice_size == writer.old.count:
        code = put_indexed(writer, txn, writer.old_end)
    return code


cdef int put_entry(MDB_cursor* cursor, Entry* entry) noexcept nogil:
    cdef char[VALUE_ENTRY_SIZE] place
    cdef MDB_val key
    cdef MDB_val value
    put_big_endian(place, entry.offset)
    put_big_endian(place + 8, entry.version)
    key.mv_data = <void*>entry.key
    key.mv_size = entry.key_size
    value.mv_data = place
    value.mv_size = VALUE_ENTRY_SIZE if entry.version else EVENTS_ENTRY_SIZE
    return mdb_cursor_put(cursor, &key, &value, 0)


cdef int put_indexed(Writer* writer, MDB_txn* txn, uint64_t offset) noexcept nogil:
    # All records before `offset` are in the index from now on.
    cdef char[8] packed
    cdef MDB_val key
    cdef MDB_val value
    put_big_endian(packed, offset)
    key.mv_data = <void*><const char*>b"indexed"
    key.mv_size = 7
    value.mv_data = packed
    value.mv_size = 8
    return mdb_put(txn, writer.meta, &key, &value, 0)


cdef int commit(Writer* writer, MDB_txn* txn) noexcept nogil:
    cdef int code = take_fault(writer)
    if code != 0:
        mdb_txn_abort(txn)
        return code
    code = mdb_txn_commit(txn)
    if code == 0 and writer.durability == RELAXED and not writer.unsynced:
        writer.unsynced = True
        writer.next_tick = now() + SYNC_INTERVAL
    return code


cdef int take_fault(Writer* writer) noexcept nogil:
    cdef int fault
    pthread_mutex_lock(&writer.lock)
    fault = writer.fault
    writer.fault = 0
    pthread_mutex_unlock(&writer.lock)
    return fault


cdef void note_indexed(Writer* writer, uint32_t slice_size, Outcome* outcome) noexcept nogil:
    writer.old_next += slice_size
    if writer.old.count > 0 and writer.old_next == writer.old.count:
        outcome.indexed = True
        writer.old.count = writer.old_next = 0
        writer.old.used = 0


cdef void note_stored(Writer* writer, Batch* batch, Outcome* outcome) noexcept nogil:
    cdef Item* item
    cdef uint32_t i
    for i in range(batch.count):
        item = &batch.items[i]
        if item.record_size:
            arena_add(&writer.young, batch.data + item.record_start, item.offset)
            writer.committed = item.offset + 1
    if writer.young.count >= writer.tail_limit and writer.old.count == 0:
        freeze(writer)
        outcome.froze = True


cdef void freeze(Writer* writer) noexcept nogil:
    # The young generation becomes the old one, to be written; nothing is left to write of the former old one.
    cdef Arena spare = writer.old
    writer.old = writer.young
    writer.young = spare
    writer.young.count = 0
    writer.young.used = 0
    writer.old_next = 0
    writer.old_end = writer.committed
    arena_sort(&writer.old)


# Room on disk and in the map.

cdef size_t room_needed(Batch* batch, uint32_t slice_size) noexcept nogil:
    # Generous: every snapshot and index entry may rewrite pages of its own.
    return ROOM_MARGIN + 2 * batch.used + 2 * 4096 * (<size_t>batch.snapshots + slice_size)


cdef int make_room(Writer* writer, size_t needed) noexcept nogil:
    # Take the blocks before the transaction does: a full disk is then found here, clearly, and not by a short write in
    # the middle of a commit, which LMDB reports as EIO like a broken disk.
    cdef MDB_envinfo info
    cdef size_t end
    cdef int code
    writer.wanted = needed
    mdb_env_info(writer.env, &info)
    end = (info.me_last_pgno + 1) * writer.page_size + needed
    if writer.no_fallocate or end <= writer.allocated:
        return 0
    code = allocate(writer, end + min(max(end // 8, <size_t>CHUNK_MIN), <size_t>CHUNK_MAX))
    if code == ENOSPC or code == EFBIG or code == EDQUOT:
        code = allocate(writer, end)
    return code


cdef int allocate(Writer* writer, size_t end) noexcept nogil:
    cdef int code = 0
    while fallocate(writer.data_fd, 0, writer.allocated, end - writer.allocated) != 0:
        code = errno
        if code == EOPNOTSUPP or code == ENOSYS or code == EINVAL:
            writer.no_fallocate = True
            return 0
        if code != EINTR:
            return code
    writer.allocated = end
    return 0


cdef int grow_map(Writer* writer) noexcept nogil:
    # Twice the map, while no reader of this process looks at it.
    cdef size_t larger
    cdef int code = MDB_MAP_FULL
    pthread_mutex_lock(&writer.map_lock)
    larger = min(writer.map_size * 2, writer.map_size_max)
    if larger > writer.map_size:
        code = mdb_env_set_mapsize(writer.env, larger)
        if code == 0:
            writer.map_size = larger
    pthread_mutex_unlock(&writer.map_lock)
    return code


cdef int adopt_map(Writer* writer) noexcept nogil:
    # Another process grew the map (a tool of LMDB, say): take its size.
    cdef MDB_envinfo info
    cdef int code
    pthread_mutex_lock(&writer.txn_lock)
    pthread_mutex_lock(&writer.map_lock)
    code = mdb_env_set_mapsize(writer.env, 0)
    if code == 0 and mdb_env_info(writer.env, &info) == 0:
        writer.map_size = info.me_mapsize
    pthread_mutex_unlock(&writer.map_lock)
    pthread_mutex_unlock(&writer.txn_lock)
    return code


# Trouble: full, broken, and the way back from full.

cdef void set_trouble(Writer* writer, int code) noexcept nogil:
    # Called under the lock.
    if writer.state == BROKEN:
        return
    writer.state = FULL if is_space(writer, code) else BROKEN
    writer.trouble = code
    writer.next_tick = now() + writer.probe_interval


cdef bint is_space(Writer* writer, int code) noexcept nogil:
    if code == EIO:
        return writer.no_fallocate and disk_is_full(writer)
    return code in (ENOSPC, EDQUOT, EFBIG, ENOMEM, MDB_MAP_FULL, MDB_TXN_FULL)


cdef bint disk_is_full(Writer* writer) noexcept nogil:
    # Without fallocate a short write is the first sign, and LMDB calls it EIO.
    cdef statvfs_t found
    if fstatvfs(writer.data_fd, &found) != 0:
        return False
    return <size_t>found.f_bavail * found.f_frsize < writer.wanted


cdef void tick(Writer* writer) noexcept nogil:
    if writer.unsynced and writer.state != BROKEN:
        sync(writer)
    if writer.state == FULL:
        probe(writer)


cdef void probe(Writer* writer) noexcept nogil:
    cdef int code = make_room(writer, writer.wanted)
    if code == 0:
        code = try_space(writer)
    pthread_mutex_lock(&writer.lock)
    if code == 0:
        writer.state = WRITABLE
        writer.trouble = 0
    else:
        set_trouble(writer, code)
    pthread_mutex_unlock(&writer.lock)
    notify(writer)


cdef int try_space(Writer* writer) noexcept nogil:
    # Reserve what was missing, give it back, and see that a small commit reaches the disk.
    cdef int code
    while True:
        pthread_mutex_lock(&writer.txn_lock)
        code = try_transaction(writer, writer.wanted)
        pthread_mutex_unlock(&writer.txn_lock)
        if not map_changed(writer, code):
            return code


cdef int try_transaction(Writer* writer, size_t size) noexcept nogil:
    cdef MDB_txn* txn
    cdef MDB_val key
    cdef MDB_val value
    cdef int code = mdb_txn_begin(writer.env, NULL, 0, &txn)
    if code != 0:
        return code
    key.mv_data = <void*><const char*>b"probe"
    key.mv_size = 5
    value.mv_size = size
    code = mdb_put(txn, writer.meta, &key, &value, MDB_RESERVE)
    if code == 0:
        code = mdb_del(txn, writer.meta, &key, NULL)
    if code == 0:
        code = put_probe(writer, txn)
    if code != 0:
        mdb_txn_abort(txn)
        return code
    return commit(writer, txn)


cdef int put_probe(Writer* writer, MDB_txn* txn) noexcept nogil:
    cdef uint64_t mark = writer.batches
    cdef MDB_val key
    cdef MDB_val value
    key.mv_data = <void*><const char*>b"probe"
    key.mv_size = 5
    value.mv_data = &mark
    value.mv_size = 8
    return mdb_put(txn, writer.meta, &key, &value, 0)


cdef void sync(Writer* writer) noexcept nogil:
    # A failure here concerns appends that were acknowledged: nothing can be trusted any more, not even ENOSPC.
    cdef int code = take_fault(writer)
    if code == 0:
        code = mdb_env_sync(writer.env, 1)
    writer.unsynced = False
    if code == 0:
        return
    pthread_mutex_lock(&writer.lock)
    writer.state = BROKEN
    writer.trouble = code
    pthread_mutex_unlock(&writer.lock)
    notify(writer)


cdef void finish(Writer* writer) noexcept nogil:
    # Write the rest of the index, so that the next start finds nothing to scan. When it fails the next start scans.
    cdef Outcome outcome
    cdef int code = 0
    cdef uint32_t left
    memset(&outcome, 0, sizeof(Outcome))
    while writer.state == WRITABLE and code == 0 and writer.old.count + writer.young.count > 0:
        if writer.old.count == 0:
            freeze(writer)
        left = writer.old.count - writer.old_next
        code = transact(writer, NULL, left)
        if code == 0:
            note_indexed(writer, left, &outcome)
    if writer.unsynced and writer.state != BROKEN:
        sync(writer)
