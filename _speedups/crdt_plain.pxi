# Any messages, values and whole states as Python objects. Part of crdt.pyx.

cdef bytes any_bytes(const uint8_t* url, size_t url_size, const uint8_t* value, size_t size):
    """A serialized Any in its one form."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(text_size(url_size) + text_size(size)))
    cdef uint8_t* p = put_text(<uint8_t*>PyBytes_AS_STRING(out), 1, url, url_size)
    put_text(p, 2, value, size)
    return out


cdef int named_in(bytes data, Named* named) except -1:
    """A serialized Any; valid as long as the bytes."""
    cdef const uint8_t* p = start_of(data)
    cdef size_t size = len(data)
    cdef Parsing parsing
    if size > 4 and p[0] == LEN_1 and p[1] < 0x80 and <size_t>p[1] + 4 <= size and p[p[1] + 2] == LEN_2:
        if p[p[1] + 3] < 0x80 and <size_t>p[1] + 4 + p[p[1] + 3] == size:  # as nearly all are
            named.url = p + 2
            named.url_size = p[1]
            named.value = p + p[1] + 4
            named.size = p[p[1] + 3]
            if named.size and named.url_size:
                return 1 if is_ascii(named.url, named.url_size) else check_named(named)
    parsing = Parsing()
    read_any(parsing, whole_of(parsing, data), named)
    return check_named(named)


cdef int check_named(const Named* named) except -1:
    try:
        PyUnicode_DecodeUTF8(<const char*>named.url, named.url_size, NULL)
    except UnicodeDecodeError:
        raise Malformed("type URL that is not UTF-8") from None
    if named.size >= NO_ENTRY:
        raise Malformed("value that is too long")
    return 0


cdef bytes canonical_any(bytes data):
    """The same Any in its one form."""
    cdef Named named
    if named_in(data, &named):
        return data
    return any_bytes(named.url, named.url_size, named.value, named.size)


cdef tuple rank(bytes data):
    """An Any as type URL and value, in whose order register values stand."""
    cdef Named named
    named_in(data, &named)
    return (
        PyBytes_FromStringAndSize(<const char*>named.url, <Py_ssize_t>named.url_size).decode(),
        PyBytes_FromStringAndSize(<const char*>named.value, <Py_ssize_t>named.size),
    )


cdef inline int any_element(State state, bytes data, Element* element, bint adopt) except -1:
    cdef Named named
    named_in(data, &named)
    return make_element(state, &named, element, adopt)


cdef bytes entry_bytes(State state, const Node* node, uint32_t at):
    """Element or key as Any."""
    cdef Element element
    element_at(node.table, at, &element)
    cdef uint32_t type = element.tag >> 3 if node.kind == ORMAP else element.tag
    return any_bytes(state.url_data[type], state.url_sizes[type], element.data, element.size)


cdef object large_int(i128 value):
    return (<object><int64_t>(value >> 64) << 64) + <uint64_t>value


# --- values ----------------------------------------------------------------------------------------------------------

cdef object value_of(State state, Node* node):
    cdef Item* best
    cdef bint self_vote
    cdef uint32_t votes, total
    if node.kind == GCOUNTER or node.kind == PNCOUNTER:
        return large_int(sum_of(node))
    if node.kind == FLAG:
        return node.count != 0
    if node.kind == LWWREGISTER:
        best = winner(state, node)
        return None if best == NULL else <object>best.value
    if node.kind == VOTE:
        triple_of(state, node, &self_vote, &votes, &total)
        return self_vote, votes, total
    return value_of_map(state, node) if node.kind == ORMAP else value_of_set(state, node)


cdef set value_of_set(State state, Node* node):
    cdef uint32_t i
    cdef set found = set()
    for i in range(node.table.used):
        if is_used(node.table, i) and has_dots(node.table.entries[i].dots):
            found.add(entry_bytes(state, node, i))
    return found


cdef dict value_of_map(State state, Node* node):
    cdef uint32_t i
    cdef Element key
    cdef dict found = {}
    for i in range(node.table.used):
        if is_used(node.table, i) and is_shown(state, node, i, &key):
            found[entry_bytes(state, node, i)] = value_of(state, ensure_child(state, node, i, False))
    return found


# --- dumps, canonical ------------------------------------------------------------------------------------------------

cdef dict dumped_context(State state):
    cdef uint32_t slot, i
    cdef dict clouds = {}
    cdef dict found = {}
    for i in range(state.context.runs):
        slot = slot_in(state.context.cloud[i].first)
        dots = range(count_in(state.context.cloud[i].first), count_in(state.context.cloud[i].last) + 1)
        clouds.setdefault(slot, []).extend(dots)
    for slot in range(min(state.slots, state.context.slots)):
        if not state.gone[slot] and (state.context.prefix[slot] or slot in clouds):
            found[state.ids[slot]] = (state.context.prefix[slot], tuple(clouds.get(slot, ())))
    return dict(sorted(found.items()))


cdef object dumped_dot(State state, uint64_t dot):
    return state.ids[slot_in(dot)], count_in(dot)


cdef object dumped_entry_dots(State state, Node* node, uint32_t at):
    cdef uint64_t single
    cdef uint32_t i, count = 0
    cdef const uint64_t* dots = dots_of(node.table, at, &single, &count)
    return frozenset([dumped_dot(state, dots[i]) for i in range(count)])


cdef object dumped_store(State state, Node* node):
    cdef uint32_t i
    if node.kind == FLAG:
        return frozenset([dumped_dot(state, node.items[i].dot) for i in range(node.count)])
    cdef dict found = {}
    if node.table == NULL:
        for i in range(node.count):
            found[state.ids[slot_in(node.items[i].dot)]] = dumped_item(node, &node.items[i])
        return dict(sorted(found.items()))
    for i in range(node.table.used):
        if is_used(node.table, i) and has_dots(node.table.entries[i].dots):
            dump_entry(state, node, i, found)
    return dict(sorted(found.items(), key=entry_name))


def entry_name(entry):
    return entry[0]


cdef int dump_entry(State state, Node* node, uint32_t at, dict found) except -1:
    cdef Element element
    element_at(node.table, at, &element)
    url = state.urls[element.tag >> 3 if node.kind == ORMAP else element.tag].decode()
    name = (url, PyBytes_FromStringAndSize(<const char*>element.data, element.size))
    dots = dumped_entry_dots(state, node, at)
    if node.kind == ORMAP:
        below = dumped_store(state, ensure_child(state, node, at, False))
        found[name, (element.tag & 7) + 1] = (dots, below)
    else:
        found[name] = dots
    return 0


cdef tuple dumped_item(const Node* node, const Item* item):
    n = count_in(item.dot)
    if node.kind == GCOUNTER:
        return n, large_int(<i128>item.plus)
    if node.kind == PNCOUNTER:
        return n, large_int(<i128>item.plus), large_int(<i128>item.minus)
    if node.kind == VOTE:
        return n, item.incarnation, bool(item.vote)
    return n, item.time, rank(<bytes>item.value)
