# The bytes of a log record and of a snapshot (docs/journal-format.md), for the writer and the reader. Little-endian.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp

from stateside._speedups.lmdb cimport XXH3_64bits, XXH3_64bits_withSeed

cdef enum:
    FORMAT_VERSION = 1  # of the whole environment, kept in `meta`
    RECORD_VERSION = 1
    FLAG_SNAPSHOT = 1  # the append brought a snapshot too
    FLAG_VALUE = 2  # the one "event" is the entity's value, the sequence its version; an earlier one is garbage
    FLAG_DELETED = 4  # with FLAG_VALUE: the value is deleted, the "event" is empty
    MAX_ENTITY_SIZE = 480
    KEY_SIZE = 489  # entity, 0xFF, first sequence (of a value: 0)
    EVENTS_ENTRY_SIZE = 8  # of the index: the record's offset
    VALUE_ENTRY_SIZE = 16  # offset and version, which the key does not have
    # The offset of one event is that of its record, and, in the low bits, its place among the record's events.
    EVENT_BITS = 24
    EVENT_MASK = (1 << 24) - 1
    MAX_EVENTS = 1 << 24  # in one append

# In front of every record; the entity, the event lengths and the events follow.
cdef packed struct RecordHeader:
    uint64_t checksum  # of everything behind it, seeded with the record's offset
    uint32_t header_checksum  # of the rest of the header and the entity: whose record it is when events are damaged
    uint8_t version
    uint8_t flags
    uint16_t entity_size
    uint32_t event_count
    uint64_t first_sequence
    uint64_t epoch

# In front of every snapshot; its bytes follow.
cdef packed struct SnapshotHeader:
    uint64_t checksum  # of everything behind it, seeded with the hash of the entity
    uint8_t version
    uint8_t flags
    uint16_t reserved
    uint64_t sequence
    uint64_t epoch

cdef packed struct Length:
    uint32_t size


cdef inline void put_big_endian(char* target, uint64_t value) noexcept nogil:
    cdef int i
    for i in range(8):
        target[i] = <char>((value >> (56 - 8 * i)) & 0xFF)


cdef inline uint64_t get_big_endian(const char* source) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(8):
        value = (value << 8) | <uint8_t>source[i]
    return value


cdef inline size_t put_key(char* key, const char* entity, size_t entity_size, uint64_t sequence) noexcept nogil:
    # 0xFF never occurs in UTF-8, so no entity's keys lie between those of another.
    cdef size_t i
    for i in range(entity_size):
        key[i] = entity[i]
    key[entity_size] = <char>0xFF
    put_big_endian(key + entity_size + 1, sequence)
    return entity_size + 9


cdef inline const char* record_entity(const char* record) noexcept nogil:
    return record + sizeof(RecordHeader)


cdef inline bint is_value(const char* record) noexcept nogil:
    return (<const RecordHeader*>record).flags & FLAG_VALUE != 0


cdef inline const Length* record_lengths(const char* record) noexcept nogil:
    return <const Length*>(record + sizeof(RecordHeader) + (<const RecordHeader*>record).entity_size)


cdef inline const char* record_events(const char* record) noexcept nogil:
    return <const char*>(record_lengths(record) + (<const RecordHeader*>record).event_count)


cdef inline uint32_t header_checksum(const char* record, uint64_t offset) noexcept nogil:
    cdef size_t size = sizeof(RecordHeader) - 12 + (<const RecordHeader*>record).entity_size
    return <uint32_t>XXH3_64bits_withSeed(record + 12, size, offset)


cdef inline void seal_record(char* record, size_t size, uint64_t offset) noexcept nogil:
    cdef RecordHeader* header = <RecordHeader*>record
    header.header_checksum = header_checksum(record, offset)
    header.checksum = XXH3_64bits_withSeed(record + 8, size - 8, offset)


cdef inline bint header_fits(const char* record, size_t size, uint64_t offset) noexcept nogil:
    cdef const RecordHeader* header = <const RecordHeader*>record
    if size < sizeof(RecordHeader) or header.version != RECORD_VERSION or header.event_count == 0:
        return False
    if sizeof(RecordHeader) + header.entity_size + <size_t>header.event_count * sizeof(Length) > size:
        return False
    return header.header_checksum == header_checksum(record, offset)


cdef inline bint record_fits(const char* record, size_t size, uint64_t offset) noexcept nogil:
    cdef const Length* lengths
    cdef size_t total
    cdef uint32_t i
    if not header_fits(record, size, offset):
        return False
    if (<const RecordHeader*>record).checksum != XXH3_64bits_withSeed(record + 8, size - 8, offset):
        return False
    lengths = record_lengths(record)
    total = record_events(record) - record
    for i in range((<const RecordHeader*>record).event_count):
        total += lengths[i].size
    return total == size


cdef inline bint record_is(
    const char* record, const char* entity, size_t entity_size, uint64_t sequence
) noexcept nogil:
    cdef const RecordHeader* header = <const RecordHeader*>record
    if header.entity_size != entity_size or header.first_sequence != sequence:
        return False
    return memcmp(record_entity(record), entity, entity_size) == 0


cdef inline uint64_t snapshot_checksum(
    const char* snapshot, size_t size, const char* entity, size_t entity_size
) noexcept nogil:
    return XXH3_64bits_withSeed(snapshot + 8, size - 8, XXH3_64bits(entity, entity_size))


cdef inline bint snapshot_fits(
    const char* snapshot, size_t size, const char* entity, size_t entity_size
) noexcept nogil:
    cdef const SnapshotHeader* header = <const SnapshotHeader*>snapshot
    if size < sizeof(SnapshotHeader) or header.version != RECORD_VERSION:
        return False
    return header.checksum == snapshot_checksum(snapshot, size, entity, entity_size)
