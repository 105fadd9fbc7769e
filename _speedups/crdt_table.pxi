# The table of a set's elements or a map's keys: open addressing over entries, bytes in an arena. Part of crdt.pyx.
#
# 24 bytes and less an element above its value: entry 16, index 5 to 6, tag and length 2. A bucket of the index holds an
# entry's number and, in the bits left, some of its hash, so that a probe seldom looks at an entry in vain. Removal
# shifts back; there are no tombstones. Entries without dots stay while a delta or a view still has to name them.

cdef inline bint has_dots(uint64_t dots) noexcept nogil:
    return dots & ~FLAGS != 0


cdef Table* new_table() except NULL:
    cdef Table* table = <Table*>calloc(1, sizeof(Table))
    if table == NULL:
        raise MemoryError()
    table.free = NO_ENTRY
    return table


cdef void free_table(Table* table) noexcept:
    cdef uint32_t i
    if table == NULL:
        return
    for i in range(table.many_used):
        free(table.many[i])
    free(table.many)
    free(table.many_free.data)
    free(table.entries)
    free(table.index)
    free(table.arena)
    free(table)


cdef inline bint is_used(const Table* table, uint32_t at) noexcept nogil:
    return table.entries[at].offset != NO_ENTRY


cdef inline void element_at(const Table* table, uint32_t at, Element* element) noexcept nogil:
    """Tag, bytes and hash of an entry; not the hash of its type URL."""
    cdef const uint8_t* p = table.arena + table.entries[at].offset
    cdef uint64_t value = 0
    p = get_varint(p, &value)
    element.tag = <uint32_t>value
    p = get_varint(p, &value)
    element.size = <uint32_t>value
    element.data = p
    element.hash = table.entries[at].hash


cdef inline const uint8_t* get_varint(const uint8_t* p, uint64_t* value) noexcept nogil:
    """Of trusted memory."""
    cdef int shift = 7
    value[0] = p[0]
    if p[0] < 0x80:
        return p + 1
    value[0] &= 0x7F
    p += 1
    while p[0] >= 0x80:
        value[0] |= <uint64_t>(p[0] & 0x7F) << shift
        shift += 7
        p += 1
    value[0] |= <uint64_t>p[0] << shift
    return p + 1


cdef inline uint32_t bucket_of(const Table* table, uint32_t hash) noexcept nogil:
    return <uint32_t>((<uint64_t>hash * table.buckets) >> 32)


cdef inline uint32_t tagged(const Table* table, uint32_t at, uint32_t hash) noexcept nogil:
    return at | hash << table.index_bits


cdef inline uint32_t numbered(const Table* table, uint32_t bucket) noexcept nogil:
    return bucket & ((<uint32_t>1 << table.index_bits) - 1)


cdef uint32_t find(const Table* table, const Element* element) noexcept nogil:
    """Number of the entry, or NO_ENTRY."""
    cdef uint32_t bucket, i, at
    cdef uint32_t wanted = element.hash << table.index_bits
    cdef uint32_t low = (<uint32_t>1 << table.index_bits) - 1
    cdef Element found
    if table.buckets == 0:
        return NO_ENTRY
    i = bucket_of(table, element.hash)
    while True:
        bucket = table.index[i]
        if bucket == NO_ENTRY:
            return NO_ENTRY
        if bucket & ~low == wanted:
            at = bucket & low
            if table.entries[at].hash == element.hash:
                element_at(table, at, &found)
                if (
                    found.tag == element.tag and found.size == element.size
                    and memcmp(found.data, element.data, found.size) == 0
                ):
                    return at
        i += 1
        if i == table.buckets:
            i = 0


cdef inline void place(Table* table, uint32_t at) noexcept nogil:
    """Into the index."""
    cdef uint32_t i = bucket_of(table, table.entries[at].hash)
    while table.index[i] != NO_ENTRY:
        i += 1
        if i == table.buckets:
            i = 0
    table.index[i] = tagged(table, at, table.entries[at].hash)


cdef int rebuild_index(Table* table, uint32_t buckets) except -1:
    cdef uint32_t i
    table.index = <uint32_t*>resized(table.index, buckets * sizeof(uint32_t))
    memset(table.index, 0xFF, buckets * sizeof(uint32_t))
    table.buckets = buckets
    table.index_bits = 1
    while (<uint64_t>1 << table.index_bits) <= table.room:
        table.index_bits += 1
    for i in range(table.used):
        if is_used(table, i):
            place(table, i)
    return 0


cdef uint32_t insert(Table* table, const Element* element) except? NO_ENTRY:
    """A new entry without dots. The element is not there yet."""
    cdef uint32_t at
    cdef uint64_t fill = <uint64_t>(table.count + 1) * 100
    if table.free == NO_ENTRY and table.used == table.room:
        grow_entries(table)
    if fill > <uint64_t>table.buckets * 85:
        rebuild_index(table, <uint32_t>grown(table.buckets, 16))
    cdef size_t offset = store_bytes(table, element)
    if table.free != NO_ENTRY:
        at = table.free
        table.free = table.entries[at].hash
    else:
        at = table.used
        table.used += 1
    table.entries[at].dots = 0
    table.entries[at].hash = element.hash
    table.entries[at].offset = <uint32_t>offset
    table.count += 1
    place(table, at)
    return at


cdef int grow_entries(Table* table) except -1:
    cdef uint32_t room = <uint32_t>grown(table.room, table.room + 1)
    table.entries = <Entry*>resized(table.entries, room * sizeof(Entry))
    table.room = room
    if (<uint64_t>1 << table.index_bits) <= table.room and table.buckets:
        rebuild_index(table, table.buckets)
    return 0


cdef size_t store_bytes(Table* table, const Element* element) except? 0:
    """Into the arena; where it begins there."""
    cdef size_t needed = varint_size(element.tag) + varint_size(element.size) + element.size
    cdef uint8_t* p
    if table.dead > 4096 and table.dead * 2 > table.size:
        compact_arena(table)
    cdef size_t offset = table.size
    if offset + needed >= NO_ENTRY:
        raise Malformed("a set or map of more than 4 GiB")
    if offset + needed > table.arena_room:
        table.arena_room = grown(table.arena_room, offset + needed)
        table.arena = <uint8_t*>resized(table.arena, table.arena_room)
    p = put_varint(table.arena + offset, element.tag)
    p = put_varint(p, element.size)
    memcpy(p, element.data, element.size)
    table.size = offset + needed
    return offset


cdef int compact_arena(Table* table) except -1:
    cdef size_t size = table.size - table.dead
    cdef size_t room = size + size // 4 + 64
    cdef uint8_t* arena = <uint8_t*>resized(NULL, room)
    cdef size_t at = 0, length
    cdef uint32_t i
    for i in range(table.used):
        if is_used(table, i):
            length = stored_size(table, i)
            memcpy(arena + at, table.arena + table.entries[i].offset, length)
            table.entries[i].offset = <uint32_t>at
            at += length
    free(table.arena)
    table.arena = arena
    table.arena_room = room
    table.size = at
    table.dead = 0
    return 0


cdef inline size_t stored_size(const Table* table, uint32_t at) noexcept nogil:
    cdef Element element
    element_at(table, at, &element)
    return element.data + element.size - (table.arena + table.entries[at].offset)


cdef void erase(Table* table, uint32_t at) noexcept nogil:
    """An entry without dots."""
    cdef uint32_t i = bucket_of(table, table.entries[at].hash)
    cdef uint32_t wanted = tagged(table, at, table.entries[at].hash)
    while table.index[i] != wanted:
        i += 1
        if i == table.buckets:
            i = 0
    shift_back(table, i)
    table.dead += stored_size(table, at)
    table.entries[at].offset = NO_ENTRY
    table.entries[at].dots = 0
    table.entries[at].hash = table.free
    table.free = at
    table.count -= 1


cdef void shift_back(Table* table, uint32_t hole) noexcept nogil:
    """Close a hole of the index: whatever cannot be found over it moves into it."""
    cdef uint32_t i = hole, home, bucket
    cdef bint reachable
    while True:
        i += 1
        if i == table.buckets:
            i = 0
        bucket = table.index[i]
        if bucket == NO_ENTRY:
            break
        home = bucket_of(table, table.entries[numbered(table, bucket)].hash)
        reachable = hole < home <= i if hole <= i else (home > hole or home <= i)
        if not reachable:
            table.index[hole] = bucket
            hole = i
    table.index[hole] = NO_ENTRY


cdef void reset(Table* table) noexcept:
    """Nothing in it, at once."""
    cdef uint32_t i
    for i in range(table.many_used):
        free(table.many[i])
    free(table.many)
    free(table.many_free.data)
    free(table.entries)
    free(table.index)
    free(table.arena)
    memset(table, 0, sizeof(Table))
    table.free = NO_ENTRY


# --- dots of an entry ------------------------------------------------------------------------------------------------

cdef inline const uint64_t* dots_of(const Table* table, uint32_t at, uint64_t* single, uint32_t* count) noexcept nogil:
    """The dots in ascending order. `single` is where one of them may be put."""
    cdef uint64_t dots = table.entries[at].dots
    cdef uint64_t* run
    if dots >> 48 == MANY:
        run = table.many[dots & ENDLESS]
        count[0] = <uint32_t>run[0]
        return run + 1
    single[0] = dots & ~FLAGS
    count[0] = single[0] != 0
    return single


cdef int put_dots(Table* table, uint32_t at, const uint64_t* dots, uint32_t count) except -1:
    """Other dots for an entry; its flags stay. `dots` is not its own."""
    cdef uint64_t flags = table.entries[at].dots & FLAGS
    cdef bint had = has_dots(table.entries[at].dots)
    cdef uint32_t number
    cdef uint64_t* run
    if table.entries[at].dots >> 48 == MANY:
        number = <uint32_t>(table.entries[at].dots & ENDLESS)
        free(table.many[number])
        table.many[number] = NULL
        push(&table.many_free, number)
    if count < 2:
        table.entries[at].dots = flags | (dots[0] if count else 0)
    else:
        run = <uint64_t*>resized(NULL, (count + 1) * sizeof(uint64_t))
        run[0] = count
        memcpy(run + 1, dots, count * sizeof(uint64_t))
        qsort(run + 1, count, sizeof(uint64_t), compare_dots)
        number = new_many(table)
        table.many[number] = run
        table.entries[at].dots = <uint64_t>MANY << 48 | flags | number
    table.live += <uint32_t>(count != 0) - <uint32_t>had
    return 0


cdef uint32_t new_many(Table* table) except? NO_ENTRY:
    if table.many_free.size:
        table.many_free.size -= 1
        return table.many_free.data[table.many_free.size]
    if table.many_used == table.many_room:
        table.many_room = <uint32_t>grown(table.many_room, table.many_used + 1)
        table.many = <uint64_t**>resized(table.many, table.many_room * sizeof(uint64_t*))
    table.many_used += 1
    return table.many_used - 1
