# CrdtDelta messages of the user function: checked as a whole, then applied. Part of crdt.pyx.

cdef struct Span:
    const uint8_t* p
    const uint8_t* end

cdef struct Named:  # an Any
    const uint8_t* url
    size_t url_size
    const uint8_t* value
    size_t size


cdef class Parsing:
    """One message while it is read; keeps what had to be joined of it in memory."""
    cdef WireReader wire
    cdef list kept
    cdef uint64_t added
    cdef bint switches_off  # a Flag that has a value of false is in it

    def __cinit__(self):
        self.kept = []

    cdef int refuse(self, str what, const uint8_t* where) except -1:
        raise Malformed(f"{what} at byte {where - self.wire.start}")


cdef inline const uint8_t* next_field(Parsing parsing, Span* span, Field* field) except NULL:
    field.tag = 0
    cdef const uint8_t* p = read_field(&parsing.wire, span.p, span.end, field)
    if p == NULL:
        raise Malformed(f"{parsing.wire.error.decode()} at byte {parsing.wire.where - parsing.wire.start}")
    span.p = p
    return p


cdef int join_spans(Parsing parsing, Span* before, const Field* field) except -1:
    """Occurrences of one sub-message, one after the other, are their merge."""
    cdef bytes joined = PyBytes_FromStringAndSize(<const char*>before.p, before.end - before.p)
    joined += PyBytes_FromStringAndSize(<const char*>field.data, field.size)
    parsing.kept.append(joined)
    before.p = <const uint8_t*>PyBytes_AS_STRING(joined)
    before.end = before.p + len(joined)
    return 0


cdef int take_span(Parsing parsing, Span* span, const Field* field) except -1:
    if span.p != NULL:
        return join_spans(parsing, span, field)
    span.p = field.data
    span.end = field.data + field.size
    return 0


cdef int read_member(Parsing parsing, Span message, Span* member) except -1:
    """Which member of a CrdtDelta is set: its number and content; 0 for none."""
    cdef Field field
    cdef int kind = 0
    member.p = NULL
    while message.p < message.end:
        next_field(parsing, &message, &field)
        if field.tag & 7 == LEN and GCOUNTER <= <int>(field.tag >> 3) <= VOTE:
            if <int>(field.tag >> 3) != kind:
                member.p = NULL
            kind = <int>(field.tag >> 3)
            take_span(parsing, member, &field)
    return kind


cdef int read_any(Parsing parsing, Span span, Named* named) except -1:
    cdef Field field
    memset(named, 0, sizeof(Named))
    while span.p < span.end:
        next_field(parsing, &span, &field)
        if field.tag == LEN_1:
            named.url = field.data
            named.url_size = field.size
        elif field.tag == LEN_2:
            named.value = field.data
            named.size = field.size
    return 0


cdef int read_map_entry(Parsing parsing, Span span, Span* key, Span* delta) except -1:
    cdef Field field
    key.p = delta.p = NULL
    while span.p < span.end:
        next_field(parsing, &span, &field)
        if field.tag == LEN_1:
            take_span(parsing, key, &field)
        elif field.tag == LEN_2:
            take_span(parsing, delta, &field)
    return 0


cdef inline Span span_of(const Field* field) noexcept:
    return Span(field.data, field.data + field.size)


cdef Span whole_of(Parsing parsing, bytes data) except *:
    cdef Span span
    if data is None:
        raise TypeError("a delta must be bytes, not None")
    span.p = <const uint8_t*>PyBytes_AS_STRING(data)
    span.end = span.p + len(data)
    parsing.wire.start = span.p
    parsing.wire.groups = True
    return span


# --- checking --------------------------------------------------------------------------------------------------------

cdef int check_any(Parsing parsing, Span span) except -1:
    """An Any; its length counts as added."""
    cdef Named named
    read_any(parsing, span, &named)
    parsing.added += named.size + ENTRY_SIZE
    if not is_ascii(named.url, named.url_size):
        try:
            PyUnicode_DecodeUTF8(<const char*>named.url, named.url_size, NULL)
        except UnicodeDecodeError:
            return parsing.refuse("type URL that is not UTF-8", named.url)
    if named.size >= NO_ENTRY:
        return parsing.refuse("value that is too long", named.value)
    return 0


cdef int check_change(Parsing parsing, int kind, Span span, int depth) except -1:
    """What no state would make right."""
    cdef Field field
    cdef uint64_t increment = 0
    cdef bint on = False
    if kind == ORMAP and depth < 1:
        return parsing.refuse("maps nested too deeply", span.p)
    while span.p < span.end:
        next_field(parsing, &span, &field)
        if field.tag == INT_1:
            increment = field.value
            on = field.value != 0
        elif field.tag & 7 == LEN:
            check_part(parsing, kind, &field, depth)
    if kind == GCOUNTER and increment >> 63:
        raise Rejected("Cannot decrement a GCounter")
    if kind == FLAG and not on:
        parsing.switches_off = True
    parsing.added += ENTRY_SIZE
    return 0


cdef int check_part(Parsing parsing, int kind, const Field* field, int depth) except -1:
    cdef int number = <int>(field.tag >> 3)
    if kind == GSET or kind == LWWREGISTER:
        return check_any(parsing, span_of(field)) if number == 1 else 0
    if kind == ORSET or (kind == ORMAP and number == 2):
        return check_any(parsing, span_of(field)) if number == 2 or number == 3 else 0
    if kind == ORMAP and (number == 3 or number == 4):
        return check_map_entry(parsing, span_of(field), depth)
    return 0


cdef int check_map_entry(Parsing parsing, Span span, int depth) except -1:
    cdef Span key, delta, member
    cdef int kind
    read_map_entry(parsing, span, &key, &delta)
    if key.p == NULL:
        raise Rejected("Map entry without key")
    if delta.p == NULL:
        raise Rejected("Map entry without delta")
    check_any(parsing, key)
    kind = read_member(parsing, delta, &member)
    if not kind:
        raise Rejected("Empty delta")
    return check_change(parsing, kind, member, depth - 1)


# --- flags that may not go off ---------------------------------------------------------------------------------------

cdef int check_flags(State state, Parsing parsing, const Node* node, int kind, Span span) except -1:
    """Rejected: a flag that the user function has seen on is switched off. node: NULL for what is not there."""
    cdef Span part = span
    cdef Field field
    cdef bint cleared = False
    if kind == FLAG:
        return check_flag(state, parsing, node, span)
    if kind != ORMAP:
        return 0
    removed = set()
    while part.p < part.end:
        next_field(parsing, &part, &field)
        if field.tag == INT_1:
            cleared = field.value != 0
        elif field.tag == LEN_2:
            removed.add(any_of(parsing, span_of(&field)))
    if cleared:
        node = NULL
    while span.p < span.end:
        next_field(parsing, &span, &field)
        if field.tag == LEN_3 or field.tag == LEN_4:
            check_key_flags(state, parsing, node, span_of(&field), removed)
    return 0


cdef int check_flag(State state, Parsing parsing, const Node* node, Span span) except -1:
    cdef Field field
    cdef bint on = False
    cdef uint32_t i
    while span.p < span.end:
        next_field(parsing, &span, &field)
        if field.tag == INT_1:
            on = field.value != 0
    if node != NULL and not on:
        for i in range(node.count):
            if has_seen(state, node.items[i].dot):
                raise Rejected("Cannot switch off already enabled flag")
    return 0


cdef int check_key_flags(State state, Parsing parsing, const Node* node, Span span, set removed) except -1:
    cdef Span key_span, delta, member
    cdef const Node* child = NULL
    cdef Element key
    cdef bytes name
    read_map_entry(parsing, span, &key_span, &delta)
    cdef int kind = read_member(parsing, delta, &member)
    if node != NULL:
        name = any_of(parsing, key_span)
        if name not in removed and any_element(state, name, &key, False) and visible_kind(state, node, &key) == kind:
            child = child_of(node, find_key(node, &key, kind))
    return check_flags(state, parsing, child, kind, member)


cdef bytes any_of(Parsing parsing, Span span):
    """In its one form."""
    cdef Named named
    read_any(parsing, span, &named)
    return any_bytes(named.url, named.url_size, named.value, named.size)


# --- applying --------------------------------------------------------------------------------------------------------

cdef int apply_change(State state, Parsing parsing, Node* node, Span span, int64_t now) except -1:
    """A checked change."""
    if node.kind == GSET or node.kind == ORSET:
        return apply_to_set(state, parsing, node, span)
    if node.kind == ORMAP:
        return apply_to_map(state, parsing, node, span, now)
    cdef Field field
    cdef uint64_t first = 0, clock = 0, custom = 0
    cdef Span value = Span(NULL, NULL)
    while span.p < span.end:
        next_field(parsing, &span, &field)
        if field.tag == INT_1:
            first = field.value
        elif field.tag == INT_2:
            clock = field.value
        elif field.tag == INT_3:
            custom = field.value
        elif field.tag == LEN_1 and node.kind == LWWREGISTER:
            take_span(parsing, &value, &field)
    if node.kind == GCOUNTER:
        return count_up(state, node, 0, first)
    if node.kind == PNCOUNTER:
        return count_up(state, node, zigzag(first), 0)
    if node.kind == FLAG:
        return switch_on(state, node) if first else 0
    if node.kind == VOTE:
        return cast_vote(state, node, first != 0)
    write_register(
        state, node, any_of(parsing, value), next_time(winner(state, node), clock, <int64_t>custom, now)
    )
    return 0


cdef int apply_to_set(State state, Parsing parsing, Node* node, Span span) except -1:
    cdef Span part = span
    cdef Field field
    cdef Element element
    cdef bint removes = False, clears = False
    cdef uint32_t added = LEN_1 if node.kind == GSET else LEN_3
    if node.kind == ORSET:
        while part.p < part.end:
            next_field(parsing, &part, &field)
            removes = removes or field.tag == LEN_2
            clears = field.value != 0 if field.tag == INT_1 else clears
    if clears:
        clear(state, node)
    part = span
    while removes and part.p < part.end:
        next_field(parsing, &part, &field)
        if field.tag == LEN_2 and read_element(state, parsing, span_of(&field), &element, False):
            remove_element(state, node, &element)
    part = span
    while part.p < part.end:
        next_field(parsing, &part, &field)
        if field.tag == added:
            read_element(state, parsing, span_of(&field), &element, True)
            add_element(state, node, &element)
    return 0


cdef int clear(State state, Node* node) except -1:
    """A set or map."""
    return clear_map(state, node) if node.kind == ORMAP else clear_set(state, node)


cdef int read_element(State state, Parsing parsing, Span span, Element* element, bint adopt) except -1:
    """From an Any; whether its type URL is known, if it is not to be adopted."""
    cdef Named named
    read_any(parsing, span, &named)
    return make_element(state, &named, element, adopt)


cdef int make_element(State state, const Named* named, Element* element, bint adopt) except -1:
    cdef uint32_t type
    if state.last_type < state.types_room and is_url(state, state.last_type, named.url, named.url_size):
        type = state.last_type
    else:
        type = find_type(state, named.url, named.url_size, adopt)
        if type == NO_ENTRY:
            return 0
    element.tag = type
    element.url_hash = state.url_hashes[type]
    element.data = named.value if named.value != NULL else NOTHING
    element.size = <uint32_t>named.size
    element.hash = element_hash(element)
    return 1


cdef int apply_to_map(State state, Parsing parsing, Node* node, Span span, int64_t now) except -1:
    cdef Span part = span
    cdef Field field
    cdef Element key
    cdef bint clears = False
    cdef uint32_t met = 0, number
    while part.p < part.end:
        next_field(parsing, &part, &field)
        clears = field.value != 0 if field.tag == INT_1 else clears
        met |= 1u << (field.tag >> 3 & 7) if field.tag & 7 == LEN and field.tag < 64 else 0
    if clears:
        clear(state, node)
    for number in range(2, 5):
        part = span
        while met >> number & 1 and part.p < part.end:
            next_field(parsing, &part, &field)
            if field.tag != (number << 3 | LEN):
                continue
            if number != 2:
                apply_map_entry(state, parsing, node, span_of(&field), number == 4, now)
            elif read_element(state, parsing, span_of(&field), &key, False):
                remove_key(state, node, &key, 0)
    return 0


cdef int apply_map_entry(State state, Parsing parsing, Node* node, Span span, bint adding, int64_t now) except -1:
    cdef Span key_span, delta, member
    cdef Element key
    cdef int kind
    cdef Node* child
    read_map_entry(parsing, span, &key_span, &delta)
    kind = read_member(parsing, delta, &member)
    if not read_element(state, parsing, key_span, &key, adding):
        return 0
    child = changed_key(state, node, &key, kind, adding)
    return apply_change(state, parsing, child, member, now) if child != NULL else 0
