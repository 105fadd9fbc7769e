"""The loop's half of the journal's store: checks, gathering and answers. logwriter.pyx writes, logreader.pyx reads.

Way of an append: checks against what is stored or in flight -> bytes of the record in the gathering batch -> at the end
of the loop turn, or when the running flush is done, the batch goes to the writer -> eventfd -> all its waiters in one
loop turn.
"""

import asyncio
import os
import threading

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint16_t
from libc.string cimport memcpy, memset
from posix.unistd cimport read as read_fd

from stateside._speedups.lmdb cimport (
    MDB_CREATE,
    MDB_MAP_FULL,
    MDB_NOSYNC,
    MDB_NOTFOUND,
    MDB_NOTLS,
    MDB_envinfo,
    MDB_stat,
    MDB_val,
    mdb_dbi_open,
    mdb_env_close,
    mdb_env_create,
    mdb_env_get_fd,
    mdb_env_info,
    mdb_env_open,
    mdb_env_set_mapsize,
    mdb_env_set_maxdbs,
    mdb_env_stat,
    mdb_env_sync,
    mdb_get,
    mdb_put,
    mdb_reader_check,
    mdb_stat,
    mdb_strerror,
    mdb_txn_abort,
    mdb_txn_begin,
    mdb_txn_commit,
)
from stateside._speedups.logreader cimport (
    CLOSED,
    ENTITY,
    FLUSH_FAILED,
    FORMAT,
    HAS_EVENTS,
    HAS_VALUE,
    NO_SPACE,
    OTHER_SHARDS,
    QUEUE,
    STALE,
    STORE,
    TAKEN,
    TOO_LARGE,
)
from stateside._speedups.logwriter cimport (
    BROKEN,
    DURABLE,
    FLUSH_BOUNDS,
    FULL,
    SIZE_BUCKETS,
    TIME_BUCKETS,
    WRITABLE,
    batch_free,
    batch_reserve,
    batch_reset,
    grow_map,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    writer_free,
    writer_init,
    writer_run,
    writer_stop,
    writer_submit,
)
from stateside._speedups.record cimport (
    FLAG_DELETED,
    FLAG_SNAPSHOT,
    FLAG_VALUE,
    FORMAT_VERSION,
    MAX_ENTITY_SIZE,
    MAX_EVENTS,
    RECORD_VERSION,
    Length,
    RecordHeader,
    SnapshotHeader,
    get_big_endian,
    is_value,
)

cdef enum:
    MAX_DATABASES = 32  # the state of other entity types will live in the same environment


class ErrorKind:
    TAKEN = 1
    STALE = 2
    CORRUPT = 3
    ORPHAN = 4
    FULL = 5
    QUEUE = 6
    BROKEN = 7
    TOO_LARGE = 8
    ENTITY = 9
    CLOSED = 10
    FORMAT = 11
    STORE = 12
    HAS_VALUE = 13
    HAS_EVENTS = 14
    OTHER_SHARDS = 15


def error_text(int code):
    return mdb_strerror(code).decode()


cdef class Mark:
    pass


cdef class Log:
    def __cinit__(self, *args, **settings):
        writer_init(&self.writer)
        self.writer.event_fd = -1
        self.gathering = &self.batches[0]

    def __init__(
        self,
        str path,
        *,
        explain,
        error_type,
        on_broken,
        int durability,
        size_t map_size,
        size_t map_size_max,
        size_t queue_bytes,
        uint32_t queue_appends,
        size_t record_bytes,
        uint32_t tail_appends,
        uint32_t head_cache,
        double probe_interval,
    ):
        self.path, self.explain, self.error_type, self.on_broken = path, explain, error_type, on_broken
        self.writer.durability = durability
        self.writer.map_size = map_size
        self.writer.map_size_max = map_size_max
        self.writer.tail_limit = tail_appends
        self.writer.probe_interval = probe_interval
        self.queue_bytes, self.queue_appends = queue_bytes, queue_appends
        self.record_bytes, self.mark_limit = record_bytes, head_cache
        self.reader = LogReader(explain)
        self.gathering_waiters, self.gathering_entities = [], []
        self.flying_waiters, self.flying_entities = [], []
        self.refused = []
        self.young_marks, self.old_marks = {}, {}

    def __dealloc__(self):
        # The writer's thread holds a reference, so it is over.
        batch_free(&self.batches[0])
        batch_free(&self.batches[1])
        writer_free(&self.writer)

    # Opening and closing.

    def open(self, loop):
        if self.closing:
            raise self.explain(CLOSED, None, 0, 0)
        self.loop = loop
        try:
            self.open_environment()
            self.open_databases()
        except BaseException:
            self.release()
            raise
        self.writer.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.add_reader(self.writer.event_fd, self.on_event)
        self.thread = threading.Thread(target=self.run, name="journal-writer", daemon=True)
        self.thread.start()
        self.opened = True

    async def close(self):
        if not self.opened or self.closing:
            return
        self.closing = True
        if self.flying != NULL or self.gathering.count:
            self.drained = self.loop.create_future()
            await self.drained
        self.deliver_refused()
        self.opened = False
        writer_stop(&self.writer)
        await asyncio.to_thread(self.thread.join)
        self.loop.remove_reader(self.writer.event_fd)
        os.close(self.writer.event_fd)
        self.release()

    def release(self):
        self.reader.close()
        if self.writer.env != NULL:
            mdb_env_close(self.writer.env)
        self.writer.env = NULL

    def run(self):
        with nogil:
            writer_run(&self.writer)

    cdef int check(self, int code) except -1:
        if code != 0:
            raise self.explain(STORE, None, code, 0)
        return 0

    cdef int open_environment(self) except -1:
        cdef bytes path = os.fsencode(self.path)
        cdef unsigned int flags = MDB_NOTLS
        cdef MDB_envinfo info
        cdef MDB_stat stat
        cdef int dead
        if self.writer.durability != DURABLE:
            flags |= MDB_NOSYNC
        self.check(mdb_env_create(&self.writer.env))
        self.check(mdb_env_set_maxdbs(self.writer.env, MAX_DATABASES))
        self.check(mdb_env_set_mapsize(self.writer.env, self.writer.map_size))
        self.check(mdb_env_open(self.writer.env, path, flags, 0o600))
        self.check(mdb_reader_check(self.writer.env, &dead))
        self.check(mdb_env_info(self.writer.env, &info))
        self.check(mdb_env_stat(self.writer.env, &stat))
        self.check(mdb_env_get_fd(self.writer.env, &self.writer.data_fd))
        self.writer.map_size = info.me_mapsize
        self.writer.page_size = stat.ms_psize
        self.writer.allocated = os.fstat(self.writer.data_fd).st_size
        return 0

    cdef int open_databases(self) except -1:
        cdef MDB_txn* txn
        self.check(mdb_txn_begin(self.writer.env, NULL, 0, &txn))
        try:
            self.check(mdb_dbi_open(txn, b"meta", MDB_CREATE, &self.writer.meta))
            self.open_meta(txn)
            self.check(mdb_dbi_open(txn, b"log", MDB_CREATE, &self.writer.log))
            self.check(mdb_dbi_open(txn, b"index", MDB_CREATE, &self.writer.index))
            self.check(mdb_dbi_open(txn, b"snapshots", MDB_CREATE, &self.writer.snapshots))
            indexed = self.get_meta(txn, b"indexed")
        except BaseException:
            mdb_txn_abort(txn)
            raise
        self.check(mdb_txn_commit(txn))
        self.reader.open(&self.writer)
        self.next_offset = self.reader.scan_tail(int.from_bytes(indexed or b"", "big"))
        self.stored_offset = self.writer.committed = self.next_offset
        return 0

    cdef int open_meta(self, MDB_txn* txn) except -1:
        # A new environment gets its format and a random name; of an old one the format must be ours.
        cdef MDB_stat stat
        found = self.get_meta(txn, b"format")
        self.check(mdb_stat(txn, self.writer.meta, &stat))
        if found is None and stat.ms_entries == 0:
            found = (<int>FORMAT_VERSION).to_bytes(8, "big")
            self.put_meta(txn, b"format", found)
            self.put_meta(txn, b"identity", os.urandom(16))
        version = int.from_bytes(found or b"", "big")
        if version != FORMAT_VERSION:
            raise self.explain(FORMAT, None, version, FORMAT_VERSION)
        self.identity = self.get_meta(txn, b"identity").hex()
        return 0

    def claim(self, uint64_t number_of_shards):
        cdef int code = MDB_MAP_FULL
        if not self.opened:
            raise self.explain(CLOSED, None, 0, 0)
        # The writer's thread may be about to write the index: it waits.
        pthread_mutex_lock(&self.writer.txn_lock)
        try:
            epoch = self.write_claim(number_of_shards)
            while epoch is None and grow_map(&self.writer) == 0:
                epoch = self.write_claim(number_of_shards)
            if epoch is not None:
                code = 0 if self.writer.durability == DURABLE else mdb_env_sync(self.writer.env, 1)
        finally:
            pthread_mutex_unlock(&self.writer.txn_lock)
        if code != 0:
            raise self.explain(NO_SPACE, None, code, self.writer.map_size)
        self.epoch = epoch
        return epoch

    cdef object write_claim(self, uint64_t number_of_shards):
        # The new epoch; None: the map is full.
        cdef MDB_txn* txn
        cdef int code
        self.check(mdb_txn_begin(self.writer.env, NULL, 0, &txn))
        try:
            shards = self.get_meta(txn, b"shards") or number_of_shards.to_bytes(8, "big")
            if int.from_bytes(shards, "big") != number_of_shards:
                raise self.explain(OTHER_SHARDS, None, int.from_bytes(shards, "big"), number_of_shards)
            epoch = int.from_bytes(self.get_meta(txn, b"epoch") or b"", "big") + 1
            code = self.try_meta(txn, b"shards", shards)
            if code == 0:
                code = self.try_meta(txn, b"epoch", epoch.to_bytes(8, "big"))
        except BaseException:
            mdb_txn_abort(txn)
            raise
        if code == 0:
            code = mdb_txn_commit(txn)
        else:
            mdb_txn_abort(txn)
        if code == MDB_MAP_FULL:
            return None
        if code != 0:
            raise self.explain(NO_SPACE, None, code, self.writer.map_size)
        return epoch

    cdef bytes get_meta(self, MDB_txn* txn, bytes name):
        cdef MDB_val key
        cdef MDB_val value
        cdef int code
        key.mv_data = PyBytes_AS_STRING(name)
        key.mv_size = len(name)
        code = mdb_get(txn, self.writer.meta, &key, &value)
        if code == MDB_NOTFOUND:
            return None
        self.check(code)
        return PyBytes_FromStringAndSize(<char*>value.mv_data, value.mv_size)

    cdef int put_meta(self, MDB_txn* txn, bytes name, bytes value) except -1:
        return self.check(self.try_meta(txn, name, value))

    cdef int try_meta(self, MDB_txn* txn, bytes name, bytes value) noexcept:
        cdef MDB_val key
        cdef MDB_val data
        key.mv_data = PyBytes_AS_STRING(name)
        key.mv_size = len(name)
        data.mv_data = PyBytes_AS_STRING(value)
        data.mv_size = len(value)
        return mdb_put(txn, self.writer.meta, &key, &data, 0)

    # Reading.

    def load(self, str entity not None):
        return self.reader.load(entity, self.name_of(entity))

    def read(self, str entity not None, uint64_t from_sequence, size_t max_bytes):
        if from_sequence == 0:
            raise ValueError("from_sequence is 0, sequences begin at 1")
        return self.reader.read(entity, self.name_of(entity), from_sequence, max_bytes)

    def read_log(self, str prefix not None, uint64_t from_offset, uint32_t limit, size_t max_bytes):
        if limit == 0:
            raise ValueError("limit is 0, at least one event has to be asked for")
        return self.reader.read_log(self.name_of(prefix), from_offset, limit, max_bytes)

    def entities(self, str prefix not None, str after not None, uint32_t limit):
        self.name_of(prefix)
        if limit == 0:
            raise ValueError("limit is 0, at least one entity has to be asked for")
        return self.reader.entities(prefix.encode(), after.encode(), limit)

    cdef Name name_of(self, str entity) except *:
        cdef Name name
        cdef Py_ssize_t size
        name.data = PyUnicode_AsUTF8AndSize(entity, &size)
        name.size = size
        if not self.opened:
            raise self.explain(CLOSED, entity, 0, 0)
        if not 0 < size <= MAX_ENTITY_SIZE:
            raise self.explain(ENTITY, entity, size, MAX_ENTITY_SIZE)
        return name

    # Appending.

    def append(self, str entity not None, uint64_t first_sequence, events, bytes snapshot, waiter, uint64_t epoch):
        cdef list parts = <list>events if type(events) is list else list(events)
        cdef Append asked
        if first_sequence == 0 or (not parts and (snapshot is None or first_sequence == 1)):
            raise ValueError("nothing to append: no events, and no stored event that a snapshot could cover")
        if len(parts) > MAX_EVENTS:
            raise ValueError(f"{len(parts)} events in one append, at most {MAX_EVENTS} are possible")
        memset(&asked, 0, sizeof(Append))
        asked.first_sequence, asked.epoch = first_sequence, epoch
        asked.flags = FLAG_SNAPSHOT if snapshot is not None else 0
        self.take(entity, &asked, parts, snapshot, waiter)

    def put(self, str entity not None, uint64_t version, bytes value, waiter, uint64_t epoch, bint gap_allowed=False):
        cdef Append asked
        if version == 0:
            raise ValueError("version is 0, versions begin at 1")
        memset(&asked, 0, sizeof(Append))
        asked.first_sequence, asked.epoch, asked.gap_allowed = version, epoch, gap_allowed
        asked.flags = FLAG_VALUE if value is not None else FLAG_VALUE | FLAG_DELETED
        self.take(entity, &asked, [b"" if value is None else value], None, waiter)

    cdef int take(self, str entity, Append* asked, list events, bytes snapshot, object waiter) except -1:
        cdef Mark mark
        try:
            asked.name = self.name_of(entity)
            asked.size = measure(asked.name, events, snapshot)
            error = self.refusal(entity, asked)
        except self.error_type as refused:
            error = refused
        if error is not None:
            return self.refuse(waiter, error)
        self.gather(asked, events, snapshot)
        self.gathering_waiters.append(waiter)
        self.gathering_entities.append(entity)
        mark = <Mark>self.young_marks[entity]
        mark.head.last_sequence = asked.first_sequence + <uint64_t>len(events) - 1
        mark.head.epoch = asked.epoch
        mark.head.keeps_value = asked.flags & FLAG_VALUE != 0
        if self.flying == NULL:
            self.kick()
        return 0

    cdef object refusal(self, str entity, Append* asked):
        # Why the append cannot be taken, or None. Its mark is in `young_marks` then.
        cdef Batch* batch = self.gathering
        cdef Mark mark
        if self.state != WRITABLE or self.closing:
            return self.state_error(entity)
        if asked.size > self.record_bytes:
            return self.explain(TOO_LARGE, entity, asked.size, self.record_bytes)
        if batch.count > 0 and (batch.used + asked.size > self.queue_bytes or batch.count >= self.queue_appends):
            return self.explain(QUEUE, entity, batch.used, batch.count)
        mark = self.mark(entity, asked.name)
        if asked.epoch == 0:
            asked.epoch = self.epoch
        if asked.epoch < self.epoch or asked.epoch < mark.head.epoch:
            return self.explain(STALE, entity, asked.epoch, max(self.epoch, mark.head.epoch))
        return self.sequence_error(entity, asked, &mark.head)

    cdef object sequence_error(self, str entity, Append* asked, HeadMark* head):
        cdef bint value = asked.flags & FLAG_VALUE != 0
        if head.last_sequence > 0 and value != head.keeps_value:
            return self.explain(HAS_EVENTS if value else HAS_VALUE, entity, asked.first_sequence, head.last_sequence)
        if asked.first_sequence == head.last_sequence + 1:
            return None
        if asked.gap_allowed and asked.first_sequence > head.last_sequence:
            return None
        return self.explain(TAKEN, entity, asked.first_sequence, head.last_sequence)

    cdef object state_error(self, str entity):
        if self.closing:
            return self.explain(CLOSED, entity, 0, 0)
        if self.state == BROKEN:
            return self.explain(FLUSH_FAILED, entity, self.trouble, 0)
        return self.explain(NO_SPACE, entity, self.trouble, self.writer.map_size)

    cdef int refuse(self, object waiter, object error) except -1:
        if self.loop is None:
            raise error
        if not self.refused:
            self.loop.call_soon(self.deliver_refused)
        self.refused.append((waiter, error))
        return 0

    def deliver_refused(self):
        refused, self.refused = self.refused, []
        for waiter, error in refused:
            self.call(waiter, error)

    def call(self, waiter, error):
        try:
            waiter.on_appended(error)
        except Exception as exception:
            self.loop.call_exception_handler({"message": "a journal's waiter failed", "exception": exception})

    cdef int gather(self, Append* asked, list events, bytes snapshot) except -1:
        cdef Batch* batch = self.gathering
        cdef Item* item
        if batch_reserve(batch, asked.size) != 0:
            raise MemoryError
        item = &batch.items[batch.count]
        memset(item, 0, sizeof(Item))
        item.entity_size = <uint16_t>asked.name.size
        if events:
            item.offset = self.next_offset
            self.next_offset += 1
            put_record(batch, item, asked, events)
        else:
            item.entity_start = batch.used
            put_bytes(batch, asked.name.data, asked.name.size)
        if snapshot is not None:
            put_snapshot(batch, item, asked.first_sequence + <uint64_t>len(events) - 1, asked.epoch, snapshot)
        batch.count += 1
        return 0

    cdef int kick(self) except -1:
        # Everything that this loop turn appends goes in one batch.
        if not self.kicked:
            self.kicked = True
            self.loop.call_soon(self.on_turn_end)
        return 0

    def on_turn_end(self):
        self.kicked = False
        if self.flying == NULL and self.gathering.count > 0:
            self.hand_over()

    cdef int hand_over(self) except -1:
        cdef Batch* batch = self.gathering
        self.gathering = &self.batches[1] if batch == &self.batches[0] else &self.batches[0]
        self.flying = batch
        self.flying_waiters, self.gathering_waiters = self.gathering_waiters, []
        self.flying_entities, self.gathering_entities = self.gathering_entities, []
        self.batch_size_last = batch.count
        self.batch_size_max = max(self.batch_size_max, <uint64_t>batch.count)
        writer_submit(&self.writer, batch)
        return 0

    # What became of it.

    def on_event(self):
        cdef uint64_t count
        cdef Outcome outcome
        cdef bint done
        read_fd(self.writer.event_fd, &count, 8)
        pthread_mutex_lock(&self.writer.lock)
        done = self.writer.done
        outcome = self.writer.outcome
        self.writer.done = False
        self.state = self.writer.state
        self.trouble = self.writer.trouble
        pthread_mutex_unlock(&self.writer.lock)
        if done:
            self.complete(&outcome)
        if self.state == BROKEN and not self.told_broken:
            self.tell_broken()

    cdef int complete(self, Outcome* outcome) except -1:
        # The next batch goes first, so that the disk works while the waiters do.
        cdef list waiters = self.flying_waiters
        cdef list entities = self.flying_entities
        cdef uint64_t events = self.events
        if outcome.code == 0:
            self.note_stored(outcome)
        else:
            waiters, entities = waiters + self.gathering_waiters, entities + self.gathering_entities
            self.forget_failed()
        self.flying_waiters, self.flying_entities = [], []
        batch_reset(self.flying)
        self.flying = NULL
        if self.gathering.count > 0:
            self.hand_over()
        self.answer(waiters, entities, outcome.code)
        if self.events != events and self.on_events is not None:
            self.on_events()
        if self.drained is not None and self.flying == NULL and self.gathering.count == 0:
            self.drained.set_result(None)
        return 0

    cdef int note_stored(self, Outcome* outcome) except -1:
        cdef Batch* batch = self.flying
        cdef Item* item
        cdef const char* record
        cdef uint32_t i
        for i in range(batch.count):
            item = &batch.items[i]
            if item.record_size == 0:
                continue
            record = batch.data + item.record_start
            self.reader.note(self.flying_entities[i], record, item.offset)
            if is_value(record):
                self.values += 1
            else:
                self.events += (<const RecordHeader*>record).event_count
            self.stored_offset = item.offset + 1
        self.appends += batch.count
        if outcome.indexed:
            self.reader.old_tails = {}
        if outcome.froze:
            self.reader.old_tails, self.reader.young_tails = self.reader.young_tails, {}
        return 0

    cdef int forget_failed(self) except -1:
        # Nothing in flight was stored: what is remembered of these entities is wrong, their heads are read again.
        for entity in self.flying_entities + self.gathering_entities:
            self.young_marks.pop(entity, None)
            self.old_marks.pop(entity, None)
        self.gathering_waiters, self.gathering_entities = [], []
        batch_reset(self.gathering)
        self.next_offset = self.stored_offset
        return 0

    cdef int answer(self, list waiters, list entities, int code) except -1:
        cdef Py_ssize_t i
        if code == 0:
            for waiter in waiters:
                try:
                    waiter.on_appended(None)
                except Exception as exception:
                    self.loop.call_exception_handler({"message": "a journal's waiter failed", "exception": exception})
            return 0
        for i in range(len(waiters)):
            if self.state == BROKEN:
                error = self.explain(FLUSH_FAILED, entities[i], code, 0)
            else:
                error = self.explain(NO_SPACE, entities[i], code, self.writer.map_size)
            self.call(waiters[i], error)
        return 0

    cdef int tell_broken(self) except -1:
        self.told_broken = True
        if self.on_broken is not None:
            self.on_broken(self.explain(FLUSH_FAILED, None, self.trouble, 0))
        return 0

    # Marks: the heads of entities used lately, in two generations.

    cdef Mark mark(self, str entity, Name name):
        cdef Mark found = <Mark>self.young_marks.get(entity)
        if found is not None:
            return found
        found = <Mark>self.old_marks.get(entity)
        if found is None:
            found = Mark()
            self.reader.find_head(entity, name, &found.head)
        if <uint32_t>len(self.young_marks) >= self.mark_limit:
            self.rotate_marks()
        self.young_marks[entity] = found
        return found

    cdef int rotate_marks(self) except -1:
        # A mark with appends in flight knows more than the store: it must not be lost.
        cdef dict fresh = {}
        for entity in self.flying_entities + self.gathering_entities:
            fresh[entity] = self.young_marks.get(entity) or self.old_marks.get(entity)
        self.old_marks, self.young_marks = self.young_marks, fresh
        return 0

    # For metrics and tests.

    @property
    def batches_total(self):
        return self.writer.batches

    @property
    def flush_seconds(self):
        return self.writer.flush_seconds

    @property
    def batch_sizes(self):
        bounds = [float(1 << i) for i in range(SIZE_BUCKETS - 1)]
        pthread_mutex_lock(&self.writer.lock)
        counts = [self.writer.batch_sizes[i] for i in range(SIZE_BUCKETS)]
        pthread_mutex_unlock(&self.writer.lock)
        return bounds, counts

    @property
    def flush_times(self):
        bounds = [FLUSH_BOUNDS[i] for i in range(TIME_BUCKETS - 1)]
        pthread_mutex_lock(&self.writer.lock)
        counts = [self.writer.flush_times[i] for i in range(TIME_BUCKETS)]
        pthread_mutex_unlock(&self.writer.lock)
        return bounds, counts

    @property
    def used_bytes(self):
        cdef MDB_envinfo info
        cdef int code
        if not self.opened:
            return 0
        pthread_mutex_lock(&self.writer.map_lock)
        code = mdb_env_info(self.writer.env, &info)
        pthread_mutex_unlock(&self.writer.map_lock)
        return 0 if code != 0 else (info.me_last_pgno + 1) * self.writer.page_size

    @property
    def queue_bytes_now(self):
        return self.batches[0].used + self.batches[1].used

    @property
    def map_size(self):
        return self.writer.map_size

    @property
    def tail_size(self):
        return len(self.reader.young_tails) + len(self.reader.old_tails)

    def fail_next_flush(self, int code):
        pthread_mutex_lock(&self.writer.lock)
        self.writer.fault = code
        pthread_mutex_unlock(&self.writer.lock)


cdef size_t measure(Name name, list events, bytes snapshot) except 0:
    # Bytes of the batch that the append takes.
    cdef size_t size = sizeof(RecordHeader) + name.size
    for event in events:
        if not isinstance(event, bytes):
            raise TypeError(f"an event must be bytes, not {type(event).__name__}")
        size += PyBytes_GET_SIZE(event) + sizeof(Length)
    if snapshot is not None:
        size += sizeof(SnapshotHeader) + PyBytes_GET_SIZE(snapshot)
    return size


cdef void put_bytes(Batch* batch, const char* data, size_t size) noexcept:
    memcpy(batch.data + batch.used, data, size)
    batch.used += size


cdef void put_record(Batch* batch, Item* item, Append* asked, list events) noexcept:
    # Everything but the checksums: the writer's thread computes them.
    cdef RecordHeader header
    cdef Length length
    memset(&header, 0, sizeof(header))
    header.version = RECORD_VERSION
    header.flags = asked.flags
    header.entity_size = <uint16_t>asked.name.size
    header.event_count = <uint32_t>len(events)
    header.first_sequence = asked.first_sequence
    header.epoch = asked.epoch
    item.record_start = batch.used
    put_bytes(batch, <const char*>&header, sizeof(header))
    item.entity_start = batch.used
    put_bytes(batch, asked.name.data, asked.name.size)
    for event in events:
        length.size = <uint32_t>PyBytes_GET_SIZE(event)
        put_bytes(batch, <const char*>&length, sizeof(length))
    for event in events:
        put_bytes(batch, PyBytes_AS_STRING(event), PyBytes_GET_SIZE(event))
    item.record_size = batch.used - item.record_start


cdef void put_snapshot(Batch* batch, Item* item, uint64_t sequence, uint64_t epoch, bytes snapshot) noexcept:
    cdef SnapshotHeader header
    memset(&header, 0, sizeof(header))
    header.version = RECORD_VERSION
    header.sequence = sequence
    header.epoch = epoch
    item.snapshot_start = batch.used
    put_bytes(batch, <const char*>&header, sizeof(header))
    put_bytes(batch, PyBytes_AS_STRING(snapshot), PyBytes_GET_SIZE(snapshot))
    item.snapshot_size = batch.used - item.snapshot_start
    batch.snapshots += 1
