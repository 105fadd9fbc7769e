# The join: an encoded state or delta into a state, straight from its bytes. Part of crdt.pyx.
#
# One rule for dots everywhere: those in both stay, and those in one that the other's context does not have. A store of
# a delta is either NAMED, then whatever of it lost dots is named in it and nothing else is looked at, or like that of a
# full state, then all entries here are held against the other's context.

cdef int join_store(State state, Reader* reader, Node* node) except -1:
    if node.kind == FLAG:
        return join_flag(state, reader, node)
    if node.table == NULL:
        return join_items(state, reader, node)
    cdef bint named = byte(reader) == NAMED
    cdef uint32_t i, count = counted(reader, 2)
    if not named and state.collecting:
        node.whole = True
    for i in range(count):
        if node.kind == ORMAP:
            join_key(state, reader, node, not named)
        else:
            join_element(state, reader, node, not named)
    if not named:
        sweep(state, reader, node)
    return 0


cdef int skip_store(State state, Reader* reader, int kind) except -1:
    """Over a store that hangs on a key which is gone here."""
    cdef uint32_t i, count
    cdef Element element
    cdef Item item
    if kind == FLAG:
        return read_dots(reader)
    if kind == GSET or kind == ORSET or kind == ORMAP:
        byte(reader)
    count = counted(reader, 2)
    for i in range(count):
        if kind == GSET or kind == ORSET or kind == ORMAP:
            read_entry(reader, &element, kind == ORMAP)
            reader.next_hash += 1
            if kind == ORMAP:
                skip_store(state, reader, (element.tag & 7) + 1)
        else:
            read_item(reader, kind, &item)
            Py_XDECREF(item.value)
    return 0


# --- dots of entries -------------------------------------------------------------------------------------------------

cdef inline bint stays(uint64_t dot, const uint64_t* others, uint32_t count, const Context* context) noexcept nogil:
    """Whether a dot stays beside the other's dots and context."""
    return not contains(context, dot) or among(dot, others, count)


cdef int joined_dots(State state, Reader* reader, const uint64_t* mine, uint32_t count) except -1:
    """Join of dots here with reader.dots, into state.scratch; whether it differs from those here."""
    cdef uint32_t i
    cdef bint different = False
    state.scratch.size = 0
    for i in range(count):
        if stays(mine[i], reader.dots.data, reader.dots.size, &reader.context):
            push_dot(&state.scratch, mine[i])
        else:
            different = True
    for i in range(reader.dots.size):
        if not contains(&state.context, reader.dots.data[i]) and not among(reader.dots.data[i], mine, count):
            push_dot(&state.scratch, reader.dots.data[i])
            different = True
    return different


cdef uint32_t join_entry(State state, Reader* reader, Node* node, Element* element) except? GONE:
    """Of an element or key with reader.dots; the entry, NO_ENTRY if there is none. It may be without dots."""
    cdef uint64_t single
    cdef uint32_t count = 0
    cdef const uint64_t* mine = NULL
    cdef uint32_t at
    element.hash = reader.hashes.data[reader.next_hash]
    reader.next_hash += 1
    at = find(node.table, element)
    if at != NO_ENTRY:
        mine = dots_of(node.table, at, &single, &count)
        if count == 1 and reader.dots.size == 1 and mine[0] == reader.dots.data[0]:
            return at
    if joined_dots(state, reader, mine, count):
        state.changed = True
        if at == NO_ENTRY:
            at = insert(node.table, element)
            node.kinds |= 1u << (element.tag & 7)
        set_dots(state, node, at, state.scratch.data, state.scratch.size)
    elif at == NO_ENTRY and state.collecting:
        at = insert(node.table, element)
        node.kinds |= 1u << (element.tag & 7)
    if state.collecting and at != NO_ENTRY:
        touch_only(node, at)
    return at


cdef int touch_only(Node* node, uint32_t at) except -1:
    """The union of deltas names the entry."""
    if not node.table.entries[at].dots & TOUCHED:
        node.table.entries[at].dots |= TOUCHED
        push(&node.touched, at)
    return 0


cdef int join_element(State state, Reader* reader, Node* node, bint mark) except -1:
    cdef Element element
    read_entry(reader, &element, False)
    cdef uint32_t at = join_entry(state, reader, node, &element)
    if at == NO_ENTRY:
        return 0
    tell_presence(state, node, at)
    if has_dots(node.table.entries[at].dots):
        if mark:
            node.table.entries[at].dots |= MET
        return 0
    return drop_if_unused(state, node, at)


cdef int join_key(State state, Reader* reader, Node* node, bint mark) except -1:
    cdef Element key
    cdef Node* child
    cdef bint fresh, before = state.changed
    read_entry(reader, &key, True)
    state.changed = False
    cdef uint32_t at = join_entry(state, reader, node, &key)
    if at == NO_ENTRY or not has_dots(node.table.entries[at].dots):
        skip_store(state, reader, (key.tag & 7) + 1)
        if at != NO_ENTRY:
            lose_key(state, node, at)
        state.changed = state.changed or before
        return 0
    if mark:
        node.table.entries[at].dots |= MET
    fresh = child_of(node, at) == NULL
    child = ensure_child(state, node, at, node.table.entries[at].dots & TOUCHED != 0 and not state.collecting)
    if fresh and state.collecting and node.table.entries[at].dots & LOST:
        child.whole = True
    join_store(state, reader, child)
    if state.changed:
        tell_entry(state, node, at)
    state.changed = state.changed or before
    return 0


cdef int lose_key(State state, Node* node, uint32_t at) except -1:
    """A key lost its last dot to others' changes: all below it goes too."""
    cdef Node* child = child_of(node, at)
    tell_entry(state, node, at)
    if child != NULL:
        drop_all(state, child)
        if not (state.view_open and node.table.entries[at].dots & KNOWN):
            free_node(state, child)
            node.children[at] = NULL
    if state.collecting:
        node.table.entries[at].dots |= LOST
    return drop_if_unused(state, node, at)


cdef int drop_all(State state, Node* node) except -1:
    """Everything in a node goes, by others' changes."""
    cdef uint32_t i
    if node.table == NULL:
        if node.count:
            before_change(state, node)
            state.changed = True
        while node.count:
            remove_item(state, node, &node.items[node.count - 1])
        return 0
    for i in range(node.table.used):
        if is_used(node.table, i) and has_dots(node.table.entries[i].dots):
            state.changed = True
            set_dots(state, node, i, NULL, 0)
            lose_entry(state, node, i)
    return 0


cdef int lose_entry(State state, Node* node, uint32_t at) except -1:
    """An entry has just lost its last dot to others' changes."""
    if node.kind == ORMAP:
        return lose_key(state, node, at)
    tell_presence(state, node, at)
    return drop_if_unused(state, node, at)


cdef int sweep(State state, Reader* reader, Node* node) except -1:
    """All entries that the other's store did not have, against its context."""
    cdef uint32_t i
    for i in range(node.table.used):
        if not is_used(node.table, i):
            continue
        if node.table.entries[i].dots & MET:
            node.table.entries[i].dots &= ~MET
        elif has_dots(node.table.entries[i].dots):
            sweep_entry(state, reader, node, i)
    return 0


cdef int sweep_entry(State state, Reader* reader, Node* node, uint32_t at) except -1:
    cdef uint64_t single
    cdef uint32_t count = 0
    cdef bint before = state.changed
    cdef const uint64_t* mine = dots_of(node.table, at, &single, &count)
    reader.dots.size = 0
    state.changed = False
    if joined_dots(state, reader, mine, count):
        state.changed = True
        set_dots(state, node, at, state.scratch.data, state.scratch.size)
        if not has_dots(node.table.entries[at].dots):
            lose_entry(state, node, at)
    if node.kind == ORMAP and is_used(node.table, at) and has_dots(node.table.entries[at].dots):
        sweep_below(state, reader, node, at)
    state.changed = state.changed or before
    return 0


cdef int sweep_below(State state, Reader* reader, Node* node, uint32_t at) except -1:
    """A key that the other does not have, and that stays: what is below it that the other removed."""
    cdef Node* child = child_of(node, at)
    if child != NULL:
        if child.table != NULL:
            if state.collecting:
                child.whole = True
            sweep(state, reader, child)
        else:
            sweep_items(state, reader, child)
    if state.changed:
        tell_entry(state, node, at)
    return 0


# --- items -----------------------------------------------------------------------------------------------------------

cdef int join_flag(State state, Reader* reader, Node* node) except -1:
    cdef uint32_t i
    cdef Item item
    read_dots(reader)
    for i in range(node.count):
        node.items[i].met = among(node.items[i].dot, reader.dots.data, reader.dots.size)
    for i in range(reader.dots.size):
        if not contains(&state.context, reader.dots.data[i]):
            before_change(state, node)
            memset(&item, 0, sizeof(Item))
            item.dot = reader.dots.data[i]
            item.met = True
            add_item(state, node, &item)
            state.changed = True
    return sweep_items(state, reader, node)


cdef int join_items(State state, Reader* reader, Node* node) except -1:
    """Counters, registers, votes: of one replica's two entries the newer one, if neither side removed it."""
    cdef uint32_t i, count = counted(reader, 2)
    cdef Item item
    for i in range(node.count):
        node.items[i].met = False
    for i in range(count):
        read_item(reader, node.kind, &item)
        try:
            join_item(state, reader, node, &item)
        finally:
            Py_XDECREF(item.value)
    return sweep_items(state, reader, node)


cdef int join_item(State state, Reader* reader, Node* node, Item* item) except -1:
    cdef Item* mine = find_item(node, slot_in(item.dot))
    if mine != NULL and mine.dot == item.dot:
        mine.met = True
        return 0
    if contains(&state.context, item.dot):
        return 0
    if mine != NULL and not contains(&reader.context, mine.dot) and mine.dot > item.dot:
        return 0
    before_change(state, node)
    state.changed = True
    item.met = True
    return put_item_of(state, node, item)


cdef int sweep_items(State state, Reader* reader, Node* node) except -1:
    """Those that the other does not have and has seen go."""
    cdef uint32_t i = 0
    while i < node.count:
        if not node.items[i].met and contains(&reader.context, node.items[i].dot):
            before_change(state, node)
            state.changed = True
            remove_item(state, node, &node.items[i])
        else:
            node.items[i].met = False
            i += 1
    return 0
