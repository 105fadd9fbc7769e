"""What is stored, as the loop's thread reads it: heads, snapshots and pages of events, each record checked before use.

A read looks in the index and, for what the index does not have yet, in the tails kept here: one small sorted array per
entity that was appended to lately. The index always holds a prefix of an entity's records, so a read walks the index
and then the tail. Reads of the log over all entities need no index: they walk the records themselves. An LMDB snapshot is held only for the length of one call, so that readers never keep old pages alive.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp

from stateside._speedups.lmdb cimport (
    MDB_FIRST,
    MDB_LAST,
    MDB_MAP_RESIZED,
    MDB_NEXT,
    MDB_NOTFOUND,
    MDB_PREV,
    MDB_RDONLY,
    MDB_SET_KEY,
    MDB_SET_RANGE,
    mdb_cursor_close,
    mdb_cursor_get,
    mdb_cursor_open,
    mdb_cursor_renew,
    mdb_get,
    mdb_txn_abort,
    mdb_txn_begin,
    mdb_txn_renew,
    mdb_txn_reset,
)
from stateside._speedups.logwriter cimport (
    adopt_map,
    arena_add,
    arena_reserve,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from stateside._speedups.record cimport (
    EVENT_BITS,
    EVENT_MASK,
    EVENTS_ENTRY_SIZE,
    FLAG_DELETED,
    KEY_SIZE,
    VALUE_ENTRY_SIZE,
    Length,
    RecordHeader,
    SnapshotHeader,
    get_big_endian,
    header_fits,
    is_value,
    put_big_endian,
    put_key,
    record_entity,
    record_events,
    record_fits,
    record_is,
    record_lengths,
    snapshot_fits,
)

cdef uint64_t LAST_SEQUENCE = <uint64_t>-1

cdef enum:
    SCAN_RECORDS = 1000  # records looked at in one call, whosever they are: others wait for the loop meanwhile


cdef class Tail:
    def __dealloc__(self):
        free(self.places)

    cdef int add(self, uint64_t sequence, uint64_t offset) except -1:
        cdef uint32_t larger = max(<uint32_t>2, self.capacity * 2)
        cdef void* grown
        if self.count == self.capacity:
            grown = realloc(self.places, larger * sizeof(Place))
            if grown == NULL:
                raise MemoryError
            self.places = <Place*>grown
            self.capacity = larger
        self.places[self.count].sequence = sequence
        self.places[self.count].offset = offset
        self.count += 1
        return 0

    cdef int put(self, uint64_t version, uint64_t offset) except -1:
        self.count = 0
        return self.add(version, offset)

    cdef bint floor(self, uint64_t sequence, Place* found) noexcept:
        # The last place that begins at or before `sequence`.
        cdef uint32_t low = 0
        cdef uint32_t high = self.count
        cdef uint32_t middle
        while low < high:
            middle = (low + high) // 2
            if self.places[middle].sequence <= sequence:
                low = middle + 1
            else:
                high = middle
        if low == 0:
            return False
        found[0] = self.places[low - 1]
        return True


cdef class LogReader:
    def __init__(self, explain):
        self.explain = explain
        self.young_tails = {}
        self.old_tails = {}

    cdef int open(self, Writer* writer) except -1:
        cdef int code
        self.writer = writer
        code = mdb_txn_begin(writer.env, NULL, MDB_RDONLY, &self.txn)
        if code == 0:
            code = mdb_cursor_open(self.txn, writer.index, &self.index_cursor)
        if code == 0:
            code = mdb_cursor_open(self.txn, writer.log, &self.log_cursor)
        if code != 0:
            raise self.explain(STORE, None, code, 0)
        mdb_txn_reset(self.txn)
        return 0

    cdef void close(self) noexcept:
        if self.index_cursor != NULL:
            mdb_cursor_close(self.index_cursor)
        if self.log_cursor != NULL:
            mdb_cursor_close(self.log_cursor)
        if self.txn != NULL:
            mdb_txn_abort(self.txn)
        self.index_cursor = self.log_cursor = NULL
        self.txn = NULL

    # The tails: read from the log at the start, then told by the appends.

    cdef uint64_t scan_tail(self, uint64_t indexed) except? 0:
        # Take in all records from the offset `indexed` on; returns the offset behind the last record.
        cdef char[8] offset
        cdef MDB_val key
        cdef MDB_val value
        cdef uint64_t end = indexed
        cdef int code
        put_big_endian(offset, indexed)
        key.mv_data = offset
        key.mv_size = 8
        self.begin()
        try:
            code = mdb_cursor_get(self.log_cursor, &key, &value, MDB_SET_RANGE)
            while code == 0:
                end = get_big_endian(<const char*>key.mv_data)
                self.scan_record(end, &value)
                end += 1
                code = mdb_cursor_get(self.log_cursor, &key, &value, MDB_NEXT)
        finally:
            self.end()
        if code != MDB_NOTFOUND:
            raise self.explain(STORE, None, code, 0)
        return end

    cdef int scan_record(self, uint64_t offset, MDB_val* value) except -1:
        # Only the header has to be sound: damage behind it is found by whoever reads that entity.
        cdef const char* record = <const char*>value.mv_data
        cdef const RecordHeader* header = <const RecordHeader*>record
        if not header_fits(record, value.mv_size, offset):
            raise self.explain(ORPHAN, None, offset, 0)
        if arena_reserve(&self.writer.young, KEY_SIZE, 1) != 0:
            raise MemoryError
        arena_add(&self.writer.young, record, offset)
        return self.note(record_entity(record)[:header.entity_size].decode(), record, offset)

    cdef int note(self, str entity, const char* record, uint64_t offset) except -1:
        cdef uint64_t sequence = (<const RecordHeader*>record).first_sequence
        cdef Tail tail = <Tail>self.young_tails.get(entity)
        if tail is None:
            tail = self.young_tails[entity] = Tail()
        return tail.put(sequence, offset) if is_value(record) else tail.add(sequence, offset)

    # Answers.

    cdef tuple load(self, str entity, Name name):
        cdef Place place
        cdef uint64_t last
        cdef const char* record
        cdef MDB_val value
        cdef const SnapshotHeader* snapshot
        self.begin()
        try:
            record = self.last_record(entity, name, &place)
            if record != NULL and is_value(record):
                return self.load_value(entity, name, &place)
            last = last_sequence_of(record)
            if not self.snapshot_of(entity, name, &value):
                return last, 0, None
            snapshot = <const SnapshotHeader*>value.mv_data
            if snapshot.sequence > last:
                raise self.explain(CORRUPT, entity, snapshot.sequence, 0)
            payload = (<const char*>value.mv_data)[sizeof(SnapshotHeader) : value.mv_size]
            return last, snapshot.sequence, payload
        finally:
            self.end()

    cdef tuple load_value(self, str entity, Name name, Place* place):
        cdef const char* record = self.record_at(entity, name, place, True)
        cdef uint64_t version = (<const RecordHeader*>record).first_sequence
        if (<const RecordHeader*>record).flags & FLAG_DELETED:
            return version, version, None
        return version, version, PyBytes_FromStringAndSize(record_events(record), record_lengths(record)[0].size)

    cdef int find_head(self, str entity, Name name, HeadMark* head) except -1:
        # What the next append of the entity is checked against.
        cdef Place place
        cdef const char* record
        cdef MDB_val value
        self.begin()
        try:
            record = self.last_record(entity, name, &place)
            head.last_sequence = last_sequence_of(record)
            head.epoch = (<const RecordHeader*>record).epoch if record != NULL else 0
            head.keeps_value = record != NULL and is_value(record)
            if not head.keeps_value and self.snapshot_of(entity, name, &value):
                head.epoch = max(head.epoch, (<const SnapshotHeader*>value.mv_data).epoch)
        finally:
            self.end()
        return 0

    cdef tuple read(self, str entity, Name name, uint64_t sequence, size_t max_bytes):
        cdef list events = []
        self.begin()
        try:
            more = self.collect(entity, name, sequence, max_bytes, events)
        finally:
            self.end()
        return events, more

    cdef bint collect(self, str entity, Name name, uint64_t sequence, size_t max_bytes, list events) except -1:
        # Fill one page. True: it ended before the last event. A value is no event.
        cdef Place place
        cdef bint indexed
        cdef size_t size = 0
        cdef const char* record
        cdef const RecordHeader* header
        cdef bint found = self.first_place(entity, name, sequence, &place, &indexed)
        while found:
            record = self.record_at(entity, name, &place, True)
            if is_value(record):
                return False
            if take_events(record, sequence, max_bytes, &size, events):
                return True
            header = <const RecordHeader*>record
            found = self.next_place(entity, name, header.first_sequence + header.event_count, &place, &indexed)
        return False

    # The log over all entities.

    cdef tuple read_log(self, Name prefix, uint64_t offset, uint32_t limit, size_t max_bytes):
        cdef list entries = []
        self.begin()
        try:
            more = self.scan_log(prefix, &offset, limit, max_bytes, entries)
        finally:
            self.end()
        return entries, offset, more

    cdef bint scan_log(self, Name prefix, uint64_t* offset, uint32_t limit, size_t max_bytes, list entries) except -1:
        # Collect events of entities that begin with `prefix`; `offset` moves behind what was seen. True: it ended early.
        cdef char[8] packed
        cdef MDB_val key
        cdef MDB_val value
        cdef uint64_t at
        cdef size_t size = 0
        cdef int found
        cdef uint32_t seen = 0
        put_big_endian(packed, offset[0] >> EVENT_BITS)
        key.mv_data = packed
        key.mv_size = 8
        cdef int code = mdb_cursor_get(self.log_cursor, &key, &value, MDB_SET_RANGE)
        while code == 0:
            if seen == SCAN_RECORDS:
                return True
            seen += 1
            at = get_big_endian(<const char*>key.mv_data)
            try:
                found = self.log_record(&value, at, prefix)
            except BaseException:
                if entries:
                    return True  # what is before the damage first
                raise
            offset[0] = max(offset[0], at << EVENT_BITS)
            if found and take_entries(<const char*>value.mv_data, offset, limit, max_bytes, &size, entries):
                return True
            offset[0] = (at + 1) << EVENT_BITS
            code = mdb_cursor_get(self.log_cursor, &key, &value, MDB_NEXT)
        if code != MDB_NOTFOUND:
            raise self.explain(STORE, None, code, 0)
        return False

    cdef int log_record(self, MDB_val* value, uint64_t offset, Name prefix) except -1:
        # Whether the record has events of such an entity. Of others only the header has to be sound.
        cdef const char* record = <const char*>value.mv_data
        cdef const RecordHeader* header = <const RecordHeader*>record
        if not header_fits(record, value.mv_size, offset):
            raise self.explain(ORPHAN, None, offset, 0)
        if is_value(record) or header.entity_size < prefix.size:
            return False
        if memcmp(record_entity(record), prefix.data, prefix.size) != 0:
            return False
        if not record_fits(record, value.mv_size, offset):
            entity = record_entity(record)[:header.entity_size].decode()
            raise self.explain(CORRUPT, entity, header.first_sequence, 0)
        return True

    # The entities.

    cdef list entities(self, bytes prefix, bytes after, Py_ssize_t limit):
        # Ids that begin with `prefix`, behind the id `after` (b"": from the first one), in the order of the index.
        cdef list found = []
        self.begin()
        try:
            self.indexed_entities(prefix, after, limit, found)
        finally:
            self.end()
        found.extend(self.tail_entities(prefix, after))
        return [(<bytes>name)[: len(name) - 1].decode() for name in sorted(set(found))[:limit]]

    cdef int indexed_entities(self, bytes prefix, bytes after, Py_ssize_t limit, list found) except -1:
        # Names with the 0xFF behind them, which takes part in the order. One step per entity, however many records.
        cdef MDB_val key
        cdef MDB_val value
        cdef int code
        cdef bytes name
        cdef bytes start = after + b"\xff" * 9 if after else prefix
        while len(found) < limit:
            key.mv_data = <char*>start
            key.mv_size = len(start)
            code = mdb_cursor_get(self.index_cursor, &key, &value, MDB_SET_RANGE)
            if code == MDB_NOTFOUND or (code == 0 and key.mv_size < 9):
                return 0
            if code != 0:
                raise self.explain(STORE, None, code, 0)
            name = PyBytes_FromStringAndSize(<const char*>key.mv_data, key.mv_size - 8)
            if not name.startswith(prefix):
                return 0
            found.append(name)
            start = name + b"\xff" * 8
        return 0

    cdef list tail_entities(self, bytes prefix, bytes after):
        cdef str first = prefix.decode()
        cdef bytes behind = after + b"\xff" if after else b""
        names = [
            name.encode() + b"\xff"
            for tails in (self.young_tails, self.old_tails)
            for name in tails
            if name.startswith(first)
        ]
        return [name for name in names if name > behind]

    # The LMDB snapshot.

    cdef int begin(self) except -1:
        cdef int code
        pthread_mutex_lock(&self.writer.map_lock)
        code = self.renew()
        if code == MDB_MAP_RESIZED:
            pthread_mutex_unlock(&self.writer.map_lock)
            adopt_map(self.writer)
            pthread_mutex_lock(&self.writer.map_lock)
            code = self.renew()
        if code != 0:
            pthread_mutex_unlock(&self.writer.map_lock)
            raise self.explain(STORE, None, code, 0)
        return 0

    cdef int renew(self) noexcept:
        cdef int code = mdb_txn_renew(self.txn)
        if code == 0:
            code = mdb_cursor_renew(self.txn, self.index_cursor)
        if code == 0:
            code = mdb_cursor_renew(self.txn, self.log_cursor)
        return code

    cdef void end(self) noexcept:
        mdb_txn_reset(self.txn)
        pthread_mutex_unlock(&self.writer.map_lock)

    # Places: where an entity's records are.

    cdef const char* last_record(self, str entity, Name name, Place* place) except? NULL:
        # NULL: there is none. Only its header is checked.
        if not self.tail_floor(entity, LAST_SEQUENCE, place) and not self.index_floor(name, LAST_SEQUENCE, place):
            return NULL
        return self.record_at(entity, name, place, False)

    cdef bint first_place(self, str entity, Name name, uint64_t sequence, Place* place, bint* indexed) except -1:
        # The record that holds `sequence`, or the last one before it.
        cdef const char* last
        indexed[0] = False
        if self.tail_floor(entity, sequence, place):
            return True
        indexed[0] = True
        if self.index_floor(name, sequence, place):
            return True
        last = self.last_record(entity, name, place)
        if last != NULL and not is_value(last):
            raise self.explain(CORRUPT, entity, sequence, 0)
        return False

    cdef bint next_place(self, str entity, Name name, uint64_t expected, Place* place, bint* indexed) except -1:
        # The record that begins with `expected`, or False at the end. Anything behind a gap is corruption.
        if indexed[0]:
            if self.index_next(name, place):
                if place.sequence != expected:
                    raise self.explain(CORRUPT, entity, expected, 0)
                return True
            indexed[0] = False
        if not self.tail_floor(entity, LAST_SEQUENCE, place) or place.sequence < expected:
            return False
        if not self.tail_floor(entity, expected, place) or place.sequence != expected:
            raise self.explain(CORRUPT, entity, expected, 0)
        return True

    cdef bint tail_floor(self, str entity, uint64_t sequence, Place* place) except -1:
        cdef Tail tail = <Tail>self.young_tails.get(entity)
        if tail is not None and tail.floor(sequence, place):
            return True
        tail = <Tail>self.old_tails.get(entity)
        return tail is not None and tail.floor(sequence, place)

    cdef bint index_floor(self, Name name, uint64_t sequence, Place* place) noexcept:
        cdef char[KEY_SIZE] packed
        cdef MDB_val key
        cdef MDB_val value
        cdef int code
        key.mv_size = put_key(packed, name.data, name.size, sequence)
        key.mv_data = packed
        code = mdb_cursor_get(self.index_cursor, &key, &value, MDB_SET_RANGE)
        if code == MDB_NOTFOUND:
            code = mdb_cursor_get(self.index_cursor, &key, &value, MDB_LAST)
        elif code == 0 and not (key.mv_size == name.size + 9 and memcmp(key.mv_data, packed, key.mv_size) == 0):
            code = mdb_cursor_get(self.index_cursor, &key, &value, MDB_PREV)
        return code == 0 and read_entry(name, &key, &value, place)

    cdef bint index_next(self, Name name, Place* place) noexcept:
        cdef MDB_val key
        cdef MDB_val value
        return mdb_cursor_get(self.index_cursor, &key, &value, MDB_NEXT) == 0 and read_entry(name, &key, &value, place)

    # Records and snapshots, checked.

    cdef const char* record_at(self, str entity, Name name, Place* place, bint whole) except NULL:
        # `whole`: the events are wanted too, not just the header.
        cdef char[8] offset
        cdef MDB_val key
        cdef MDB_val value
        cdef bint sound
        cdef const char* record
        put_big_endian(offset, place.offset)
        key.mv_data = offset
        key.mv_size = 8
        sound = mdb_cursor_get(self.log_cursor, &key, &value, MDB_SET_KEY) == 0
        record = <const char*>value.mv_data
        if sound:
            sound = (record_fits if whole else header_fits)(record, value.mv_size, place.offset)
        if not sound or not record_is(record, name.data, name.size, place.sequence):
            raise self.explain(CORRUPT, entity, place.sequence, 0)
        return record

    cdef bint snapshot_of(self, str entity, Name name, MDB_val* value) except -1:
        cdef MDB_val key
        cdef int code
        key.mv_data = <void*>name.data
        key.mv_size = name.size
        code = mdb_get(self.txn, self.writer.snapshots, &key, value)
        if code == MDB_NOTFOUND:
            return False
        if code != 0 or not snapshot_fits(<const char*>value.mv_data, value.mv_size, name.data, name.size):
            raise self.explain(CORRUPT, entity, 0, 0)
        return True


cdef bint read_entry(Name name, MDB_val* key, MDB_val* value, Place* place) noexcept:
    # An index entry's place, if it is one of this entity.
    cdef const char* packed = <const char*>key.mv_data
    cdef const char* entry = <const char*>value.mv_data
    if key.mv_size != name.size + 9 or memcmp(packed, name.data, name.size) != 0 or packed[name.size] != <char>0xFF:
        return False
    if value.mv_size not in (EVENTS_ENTRY_SIZE, VALUE_ENTRY_SIZE):
        return False
    place.sequence = get_big_endian(entry + 8 if value.mv_size == VALUE_ENTRY_SIZE else packed + name.size + 1)
    place.offset = get_big_endian(entry)
    return True


cdef uint64_t last_sequence_of(const char* record) noexcept:
    cdef const RecordHeader* header = <const RecordHeader*>record
    return header.first_sequence + header.event_count - 1 if header != NULL else 0


cdef bint take_events(const char* record, uint64_t sequence, size_t max_bytes, size_t* size, list events) except -1:
    # Append the record's events from `sequence` on. True: the page is full before the record's end.
    cdef const RecordHeader* header = <const RecordHeader*>record
    cdef const Length* lengths = record_lengths(record)
    cdef const char* event = record_events(record)
    cdef uint32_t i
    for i in range(header.event_count):
        if header.first_sequence + i >= sequence:
            size[0] += lengths[i].size + sizeof(Length)
            if size[0] > max_bytes and events:
                return True
            events.append(PyBytes_FromStringAndSize(event, lengths[i].size))
        event += lengths[i].size
    return False


cdef bint take_entries(
    const char* record, uint64_t* offset, uint32_t limit, size_t max_bytes, size_t* size, list entries
) except -1:
    # Append the record's events from `offset` on, as (offset, entity, sequence, event). True: the page is full before
    # the record's end, and `offset` is that of the next event.
    cdef const RecordHeader* header = <const RecordHeader*>record
    cdef const Length* lengths = record_lengths(record)
    cdef const char* event = record_events(record)
    cdef uint64_t first = offset[0] & EVENT_MASK
    cdef uint64_t base = offset[0] - first
    cdef uint32_t i
    entity = record_entity(record)[:header.entity_size].decode()
    for i in range(header.event_count):
        if i >= first:
            size[0] += lengths[i].size + sizeof(Length)
            if entries and (<uint32_t>len(entries) >= limit or size[0] > max_bytes):
                offset[0] = base + i
                return True
            payload = PyBytes_FromStringAndSize(event, lengths[i].size)
            entries.append((base + i, entity, header.first_sequence + i, payload))
        event += lengths[i].size
    return False
