"""Records of the LMDB journal as rows of Postgres: the inner loop of replication (journal/replicate.py).

Each record is checked as every reader of the journal does, and its events are written down at once in the binary form
of COPY (PostgreSQL documentation, COPY, "Binary Format"), with consecutive offsets of the log that they go to. What a batch
does to entities, which are far fewer than events, is gathered per entity for Python.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy

from stateside._speedups.record cimport (
    EVENT_BITS,
    EVENT_MASK,
    FLAG_DELETED,
    FLAG_SNAPSHOT,
    Length,
    RecordHeader,
    header_fits,
    is_value,
    put_big_endian,
    record_entity,
    record_events,
    record_fits,
    record_lengths,
)

cdef bytes SIGNATURE = b"PGCOPY\n\xff\r\n\x00" + bytes(8)  # no flags, no extension
cdef bytes TRAILER = b"\xff\xff"

cdef enum:
    FIELDS = 5  # entity, sequence, log_offset, epoch, event
    ROW_SIZE = 2 + FIELDS * 4 + 3 * 8  # without entity and event


cdef class Head:
    pass


cdef class CopyRows:
    def __cinit__(self, uint64_t first_offset):
        self.next_offset = first_offset
        self.heads = {}
        self.checksum = b""
        self.reserve(PyBytes_GET_SIZE(SIGNATURE))
        memcpy(self.data, PyBytes_AS_STRING(SIGNATURE), PyBytes_GET_SIZE(SIGNATURE))
        self.used = PyBytes_GET_SIZE(SIGNATURE)

    def __dealloc__(self):
        free(self.data)

    @property
    def size(self):
        return self.used

    def add(self, uint64_t offset, bytes data not None):
        cdef const char* record = PyBytes_AS_STRING(data)
        cdef const RecordHeader* header = <const RecordHeader*>record
        cdef Head head
        if not record_fits(record, PyBytes_GET_SIZE(data), offset):
            raise ValueError(f"the record at offset {offset} is damaged")
        entity = record_entity(record)[:header.entity_size]
        head = <Head>self.heads.get(entity)
        if head is None or is_value(record):
            head = self.heads[entity] = Head.__new__(Head)
            head.entity = entity
            head.first_sequence = header.first_sequence
        elif header.first_sequence != head.last_sequence + 1:
            raise ValueError(
                f"the record at offset {offset} has sequence {header.first_sequence}, behind {head.last_sequence}"
            )
        if is_value(record):
            set_value(head, record)
        else:
            self.add_events(head, record)
        self.checksum = data[:8]
        self.records += 1
        self.bytes_in += PyBytes_GET_SIZE(data)

    cdef int add_events(self, Head head, const char* record) except -1:
        cdef const RecordHeader* header = <const RecordHeader*>record
        cdef const Length* lengths = record_lengths(record)
        cdef const char* event = record_events(record)
        cdef uint32_t i
        for i in range(header.event_count):
            self.reserve(ROW_SIZE + header.entity_size + lengths[i].size)
            self.used = put_row(
                self.data, self.used, header, header.first_sequence + i, self.next_offset, event, lengths[i].size
            )
            event += lengths[i].size
            self.next_offset += 1
        self.events += header.event_count
        head.last_sequence = header.first_sequence + header.event_count - 1
        if header.flags & FLAG_SNAPSHOT:
            head.has_snapshot = True
        return 0

    def finish(self):
        cdef bytes rows = PyBytes_FromStringAndSize(NULL, self.used + 2)
        cdef char* target = PyBytes_AS_STRING(rows)
        memcpy(target, self.data, self.used)
        memcpy(target + self.used, PyBytes_AS_STRING(TRAILER), 2)
        return rows

    cdef int reserve(self, size_t size) except -1:
        cdef size_t wanted = self.used + size
        cdef void* grown
        if wanted <= self.capacity:
            return 0
        wanted = max(wanted, self.capacity * 2)
        grown = realloc(self.data, wanted)
        if grown == NULL:
            raise MemoryError
        self.data = <char*>grown
        self.capacity = wanted
        return 0


cdef int set_value(Head head, const char* record) except -1:
    cdef const RecordHeader* header = <const RecordHeader*>record
    head.is_value = True
    head.last_sequence = header.first_sequence
    if not header.flags & FLAG_DELETED:
        head.value = PyBytes_FromStringAndSize(record_events(record), record_lengths(record)[0].size)
    return 0


def event_at(uint64_t offset, bytes data not None, bytes prefix not None, uint64_t from_offset):
    cdef const char* record = PyBytes_AS_STRING(data)
    cdef const RecordHeader* header = <const RecordHeader*>record
    cdef uint64_t place = 0
    if not header_fits(record, PyBytes_GET_SIZE(data), offset) or is_value(record):
        return None
    if header.entity_size < PyBytes_GET_SIZE(prefix) or record_entity(record)[0] == c"|":
        return None
    if memcmp(record_entity(record), PyBytes_AS_STRING(prefix), PyBytes_GET_SIZE(prefix)) != 0:
        return None
    if from_offset >> EVENT_BITS == offset:
        place = from_offset & EVENT_MASK
    if place >= header.event_count:
        return None
    return record_entity(record)[:header.entity_size], header.first_sequence + place


cdef size_t put_row(
    char* data,
    size_t at,
    const RecordHeader* header,
    uint64_t sequence,
    uint64_t log_offset,
    const char* event,
    uint32_t event_size,
) noexcept:
    data[at] = 0
    data[at + 1] = FIELDS
    at = put_field(data, at + 2, record_entity(<const char*>header), header.entity_size)
    at = put_number(data, at, sequence)
    at = put_number(data, at, log_offset)
    # Owners under Postgres claim anew: an epoch of this journal must not be higher than theirs.
    at = put_number(data, at, 0)
    return put_field(data, at, event, event_size)


cdef size_t put_field(char* data, size_t at, const char* content, uint32_t size) noexcept:
    put_size(data + at, size)
    memcpy(data + at + 4, content, size)
    return at + 4 + size


cdef size_t put_number(char* data, size_t at, uint64_t number) noexcept:
    put_size(data + at, 8)
    put_big_endian(data + at + 4, number)
    return at + 12


cdef void put_size(char* target, uint32_t size) noexcept:
    cdef int i
    for i in range(4):
        target[i] = <char>((size >> (24 - 8 * i)) & 0xFF)
