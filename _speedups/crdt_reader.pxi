# Encoded states and deltas (docs/crdt-format.md): reading, and checking all of it before anything is changed.
# Part of crdt.pyx.

cdef int refuse(Reader* reader, str what) except -1:
    raise Malformed(f"{what} at byte {reader.p - reader.start}")


cdef inline int byte(Reader* reader) except -1:
    if reader.p == reader.end:
        return refuse(reader, "truncated")
    reader.p += 1
    return (reader.p - 1)[0]


cdef inline uint64_t number(Reader* reader, uint64_t limit) except? NO_NUMBER:
    cdef uint64_t value = 0
    cdef int shift = 0
    cdef const uint8_t* p = reader.p
    while p < reader.end and shift < 63:
        value |= <uint64_t>(p[0] & 0x7F) << shift
        p += 1
        if (p - 1)[0] < 0x80:
            if value > limit:
                return <uint64_t>refuse(reader, "number out of range")
            reader.p = p
            return value
        shift += 7
    return <uint64_t>refuse(reader, "truncated or oversized number")


cdef int large(Reader* reader, u128* value, int bits) except -1:
    """A number of at most so many bits."""
    cdef int shift = 0
    cdef uint64_t part
    if reader.p < reader.end and reader.p[0] < 0x80:  # by far the most
        value[0] = reader.p[0]
        reader.p += 1
        return 0
    value[0] = 0
    while reader.p < reader.end:
        part = reader.p[0]
        if shift >= bits or (part & 0x7F) >> min(bits - shift, 7):
            return refuse(reader, "number out of range")
        value[0] = value[0] | (<u128>(part & 0x7F) << shift)
        reader.p += 1
        if part < 0x80:
            return 0
        shift += 7
    return refuse(reader, "truncated number")


cdef inline uint32_t counted(Reader* reader, uint64_t least) except? NO_ENTRY:
    """A count of things that have `least` bytes each."""
    cdef uint64_t value = number(reader, NO_NUMBER >> 1)
    if value > <uint64_t>(reader.end - reader.p) // least or value >= NO_ENTRY:
        refuse(reader, "count beyond the end")
    return <uint32_t>value


cdef const uint8_t* text(Reader* reader, uint32_t* size) except NULL:
    """Bytes behind their length."""
    cdef uint64_t length = number(reader, NO_NUMBER >> 1)
    cdef const uint8_t* data = reader.p
    if length > <uint64_t>(reader.end - reader.p) or length >= NO_ENTRY:
        refuse(reader, "length beyond the end")
    size[0] = <uint32_t>length
    reader.p += length
    return data


cdef int64_t signed(Reader* reader) except? -1:
    cdef u128 value = 0
    large(reader, &value, 64)
    return zigzag(<uint64_t>value)


# --- header ----------------------------------------------------------------------------------------------------------

cdef int read_header(State state, Reader* reader) except -1:
    """Up to the store. Replicas and type URLs that the state does not know get the numbers they will have."""
    cdef int kind
    if byte(reader) != FORMAT:
        reader.p = reader.start
        return refuse(reader, "unknown version of the encoding")
    kind = byte(reader)
    if kind != state.kind:
        reader.p = reader.start + 1
        if not GCOUNTER <= kind <= VOTE:
            return refuse(reader, "unknown type")
        return refuse(reader, f"a {NAMES[kind]} where a {NAMES[state.kind]} stands")
    reader.replicas = read_ids(state, reader, 0)
    reader.pruned = read_ids(state, reader, reader.replicas)
    read_context(state, reader)
    return read_urls(state, reader)


cdef uint32_t read_ids(State state, Reader* reader, uint32_t before) except? NO_ENTRY:
    """Identities in ascending order, after those already read."""
    cdef uint32_t i, count = counted(reader, 8)
    cdef uint32_t total = before + count
    cdef uint64_t previous = 0, identity
    if total > state.bounds.max_replicas:
        refuse(reader, f"more than {state.bounds.max_replicas} replicas")
    reader.slots = <uint32_t*>resized(reader.slots, (total + 1) * sizeof(uint32_t))
    reader.ids = <uint64_t*>resized(reader.ids, (total + 1) * sizeof(uint64_t))
    for i in range(before, total):
        memcpy(&identity, reader.p, 8)
        if i > before and identity <= previous:
            refuse(reader, "replicas out of order")
        reader.p += 8
        reader.ids[i] = previous = identity
        reader.slots[i] = slot_for(state, identity)
    return count


cdef uint32_t slot_for(State state, uint64_t identity) except? NO_ENTRY:
    """Slot of a replica, NO_ENTRY for an unknown one."""
    cdef uint32_t slot
    if state.slots > 16:
        return <uint32_t>state.slot_of.get(identity, NO_ENTRY)
    for slot in range(state.slots):
        if state.ids[slot] == identity:
            return slot
    return NO_ENTRY


cdef int read_context(State state, Reader* reader) except -1:
    cdef uint32_t i, unknown = 0
    for i in range(reader.replicas + reader.pruned):
        if reader.slots[i] == NO_ENTRY:
            reader.slots[i] = state.slots + unknown
            unknown += 1
    if state.slots + unknown > state.bounds.max_replicas:
        return refuse(reader, f"more than {state.bounds.max_replicas} replicas")
    widen(&reader.context, state.slots + unknown)
    for i in range(reader.replicas):
        read_runs(state, reader, reader.slots[i])
    for i in range(reader.pruned):
        if reader.context.prefix[reader.slots[reader.replicas + i]]:
            return refuse(reader, "pruned replica with changes")
        reader.context.prefix[reader.slots[reader.replicas + i]] = ENDLESS
    if reader.context.runs > 1:
        qsort(reader.context.cloud, reader.context.runs, sizeof(Run), compare_dots)
    return 0


cdef int read_runs(State state, Reader* reader, uint32_t slot) except -1:
    """The prefix of a replica and its runs of dots beyond."""
    cdef Context* context = &reader.context
    cdef uint64_t end = number(reader, ENDLESS - 1)
    cdef uint64_t first, last
    cdef uint32_t i, count
    if context.prefix[slot]:
        return refuse(reader, "replica twice")
    context.prefix[slot] = end
    count = counted(reader, 2)
    if count == 0:
        return 0 if end else refuse(reader, "replica without changes")
    context.cloud = <Run*>resized(context.cloud, (context.runs + count) * sizeof(Run))
    context.room = context.runs + count
    for i in range(count):
        first = end + 2 + number(reader, ENDLESS)
        last = first + number(reader, ENDLESS)
        if last >= ENDLESS:
            return refuse(reader, "run of dots beyond the largest count")
        context.cloud[context.runs] = Run(packed(slot, first), packed(slot, last))
        context.runs += 1
        end = last
    return 0


cdef int read_urls(State state, Reader* reader) except -1:
    cdef uint32_t i, size, count = counted(reader, 1)
    cdef const uint8_t* data
    cdef uint32_t unknown = <uint32_t>len(state.urls)
    cdef bytes url
    state.arriving = []
    reader.types = <uint32_t*>resized(reader.types, (count + 1) * sizeof(uint32_t))
    reader.url_hashes = <uint64_t*>resized(reader.url_hashes, (count + 1) * sizeof(uint64_t))
    reader.urls = count
    if count == 1:
        data = text(reader, &size)
        if state.last_type < unknown and is_url(state, state.last_type, data, size):
            reader.types[0] = state.last_type
            reader.url_hashes[0] = state.url_hashes[state.last_type]
            return 0
        reader.p = data - varint_size(size)
    new = {}
    for i in range(count):
        data = text(reader, &size)
        url = PyBytes_FromStringAndSize(<const char*>data, size)
        if url in new:
            return refuse(reader, "type URL twice")
        check_url(reader, data, size)
        new[url] = None
        found = state.type_of.get(url)
        if found is None:
            found = unknown
            unknown += 1
            state.arriving.append(url)
        reader.types[i] = found
        reader.url_hashes[i] = XXH3_64bits(data, size)
    if unknown > MAX_URLS:
        return refuse(reader, f"more than {MAX_URLS} type URLs")
    return 0


cdef int check_url(Reader* reader, const uint8_t* data, uint32_t size) except -1:
    if is_ascii(data, size):
        return 0
    try:
        PyUnicode_DecodeUTF8(<const char*>data, size, NULL)
    except UnicodeDecodeError:
        return refuse(reader, "type URL that is not UTF-8")
    return 0


cdef int adopt_names(State state, Reader* reader) except -1:
    """Make replicas and type URLs of a message known to the state; the message was found good."""
    cdef uint32_t i
    for i in range(reader.replicas + reader.pruned):
        if reader.slots[i] >= state.slots:
            add_slot(state, reader.ids[i])
    for url in state.arriving:
        add_type(state, url)
    state.arriving = []
    return 0


# --- dots and elements -----------------------------------------------------------------------------------------------

cdef inline uint64_t read_dot(Reader* reader, int code) except 0:
    """Packed with the state's slot."""
    cdef uint64_t step, dot
    if code == NEXT:
        reader.n += 1
    elif code == NEAR:
        step = number(reader, <uint64_t>ENDLESS * 2)
        reader.n += <uint64_t>zigzag(step)
    elif code == FAR:
        reader.index = <uint32_t>number(reader, 0xFFFF)
        reader.n = number(reader, ENDLESS)
    else:
        refuse(reader, "unknown code of a dot")
    if reader.index >= reader.replicas or not 1 <= reader.n < ENDLESS:
        refuse(reader, "dot out of range")
    dot = packed(reader.slots[reader.index], reader.n)
    if not contains(&reader.context, dot):
        refuse(reader, "dot that is not in the context")
    return dot


cdef int read_dots(Reader* reader) except -1:
    """A list of different dots, ascending, into reader.dots."""
    cdef uint32_t i, count = counted(reader, 1)
    reader.dots.size = 0
    for i in range(count):
        push_dot(&reader.dots, read_dot(reader, byte(reader)))
    if count > 1:
        qsort(reader.dots.data, count, sizeof(uint64_t), compare_dots)
    for i in range(1, count):
        if reader.dots.data[i] == reader.dots.data[i - 1]:
            return refuse(reader, "dot twice")
    return 0


cdef inline int read_entry(Reader* reader, Element* element, bint keyed) except -1:
    """Element or key, its dots into reader.dots; without hash."""
    cdef uint64_t head = number(reader, NO_ENTRY)
    cdef int code = <int>(head & 7)
    cdef int kind
    head >>= 3
    if head >= reader.urls:
        return refuse(reader, "unknown type URL")
    reader.dots.size = 0
    if code == SEVERAL:
        read_dots(reader)
        if reader.dots.size < 2:
            return refuse(reader, "list of less than two dots")
    elif code != NONE:
        push_dot(&reader.dots, read_dot(reader, code))
    element.data = text(reader, &element.size)
    element.tag = reader.types[head]
    element.url_hash = reader.url_hashes[head]
    if keyed:
        kind = byte(reader)
        if not GCOUNTER <= kind <= VOTE:
            return refuse(reader, "unknown type")
        element.tag = element.tag << 3 | <uint32_t>(kind - 1)
    return 0


cdef inline uint32_t element_hash(const Element* element) noexcept:
    return <uint32_t>(XXH3_64bits_withSeed(element.data, element.size, SEED ^ element.url_hash) >> 32)


cdef int read_item(Reader* reader, int kind, Item* item) except -1:
    """What a replica has in a counter, register or vote. item.value is a new reference."""
    cdef uint32_t size
    cdef const uint8_t* data
    cdef int vote
    memset(item, 0, sizeof(Item))
    item.dot = read_dot(reader, byte(reader))
    if kind == GCOUNTER or kind == PNCOUNTER:
        large(reader, &item.plus, SUM_BITS)
        if kind == PNCOUNTER:
            large(reader, &item.minus, SUM_BITS)
    elif kind == VOTE:
        if reader.end - reader.p < 8:
            return refuse(reader, "truncated")
        memcpy(&item.incarnation, reader.p, 8)
        reader.p += 8
        vote = byte(reader)
        if vote > 1:
            return refuse(reader, "vote that is neither yes nor no")
        item.vote = vote
    else:
        item.time = signed(reader)
        data = text(reader, &size)
        value = PyBytes_FromStringAndSize(<const char*>data, size)
        if canonical_any(value) != value:
            return refuse(reader, "value that is no Any in its one form")
        Py_INCREF(value)
        item.value = <PyObject*>value
    return 0


# --- checking --------------------------------------------------------------------------------------------------------

cdef int check_store(Reader* reader, int kind, int depth) except -1:
    """All of a store; the hashes of its elements are kept for the join."""
    if kind == FLAG:
        return read_dots(reader)
    if kind != GSET and kind != ORSET and kind != ORMAP:
        return check_items(reader, kind)
    cdef int flags = byte(reader)
    if flags > NAMED or (flags == NAMED and reader.pruned):
        return refuse(reader, "unknown flags of a store")
    if kind == ORMAP and depth < 1:
        return refuse(reader, "maps nested too deeply")
    cdef uint32_t count = counted(reader, 2)
    cdef Element* elements = <Element*>resized(NULL, (count + 1) * sizeof(Element))
    try:
        check_entries(reader, kind, depth, elements, count)
        return check_different(reader, elements, count)
    finally:
        free(elements)


cdef int check_entries(Reader* reader, int kind, int depth, Element* elements, uint32_t count) except -1:
    cdef uint32_t i
    for i in range(count):
        read_entry(reader, &elements[i], kind == ORMAP)
        elements[i].hash = element_hash(&elements[i])
        push(&reader.hashes, elements[i].hash)
        reader.added += elements[i].size + ENTRY_SIZE
        if kind == ORMAP:
            check_store(reader, (elements[i].tag & 7) + 1, depth - 1)
    return 0


cdef int check_different(Reader* reader, const Element* elements, uint32_t count) except -1:
    """No element twice."""
    cdef uint32_t i, j, mask = 3
    cdef uint32_t* places
    if count < 2:
        return 0
    while mask < count * 2:
        mask = mask << 1 | 1
    places = <uint32_t*>resized(NULL, (<size_t>mask + 1) * sizeof(uint32_t))
    memset(places, 0xFF, (<size_t>mask + 1) * sizeof(uint32_t))
    try:
        for i in range(count):
            j = elements[i].hash & mask
            while places[j] != NO_ENTRY:
                if same_element(&elements[places[j]], &elements[i]):
                    reader.p = elements[i].data
                    return refuse(reader, "entry twice")
                j = (j + 1) & mask
            places[j] = i
    finally:
        free(places)
    return 0


cdef inline bint same_element(const Element* a, const Element* b) noexcept nogil:
    return a.hash == b.hash and a.tag == b.tag and a.size == b.size and memcmp(a.data, b.data, a.size) == 0


cdef enum:
    FEW_REPLICAS = 64  # fit on the stack


cdef int check_items(Reader* reader, int kind) except -1:
    cdef uint32_t i, count = counted(reader, 2)
    cdef Item item
    if count > reader.replicas:
        return refuse(reader, "more entries than replicas")
    cdef uint8_t[FEW_REPLICAS] few
    cdef uint8_t* met = few
    if reader.replicas >= FEW_REPLICAS:
        met = <uint8_t*>resized(NULL, reader.replicas + 1)
    memset(met, 0, reader.replicas + 1)
    try:
        for i in range(count):
            read_item(reader, kind, &item)
            if item.value != NULL:
                reader.added += item_size(&item)
            Py_XDECREF(item.value)
            if met[reader.index]:
                return refuse(reader, "replica twice")
            met[reader.index] = 1
            reader.added += 16
    finally:
        if met != few:
            free(met)
    return 0


cdef void release_reader(Reader* reader) noexcept:
    free(reader.slots)
    free(reader.ids)
    free(reader.types)
    free(reader.url_hashes)
    free(reader.hashes.data)
    release_dots(&reader.dots)
    release_context(&reader.context)
