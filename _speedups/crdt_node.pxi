# Nodes: one CRDT each, the root and those below keys of maps. Part of crdt.pyx.
#
# Here and in the table is all that is ever changed of a store: dots of an entry, an item, a child. Whoever changes it
# keeps three books on the way: the digest, the size, and what the user function has to be told.

cdef Node* new_node(State state, int kind, Node* parent, uint32_t at, uint64_t salt) except NULL:
    cdef Node* node = <Node*>calloc(1, sizeof(Node))
    if node == NULL:
        raise MemoryError()
    node.kind = <uint8_t>kind
    node.parent = parent
    node.at = at
    node.salt = salt
    node.known_total = 1
    if kind == GSET or kind == ORSET or kind == ORMAP:
        try:
            node.table = new_table()
        except MemoryError:
            free(node)
            raise
    state.votes += kind == VOTE
    return node


cdef void free_node(State state, Node* node) noexcept:
    """With all below it. The books are not kept."""
    cdef uint32_t i
    if node == NULL:
        return
    for i in range(node.children_room):
        free_node(state, node.children[i])
    for i in range(node.count):
        Py_XDECREF(node.items[i].value)
    Py_XDECREF(node.known_value)
    free(node.children)
    free(node.items)
    free(node.pendings.data)
    free(node.touched.data)
    free_table(node.table)
    state.votes -= node.kind == VOTE
    free(node)


cdef inline bint is_empty(const Node* node) noexcept nogil:
    return node.table.live == 0 if node.table != NULL else node.count == 0


# --- digest ----------------------------------------------------------------------------------------------------------

cdef inline void count_sum(State state, XXH128_hash_t content, uint64_t dot, bint add) noexcept:
    """The part of a dot and what hangs on it, into the digest or out of it."""
    cdef uint64_t low, high
    mix_dot(content.low64, content.high64, state.ids[slot_in(dot)], count_in(dot), &low, &high)
    if add:
        state.sum_low += low
        state.sum_high += high
    else:
        state.sum_low -= low
        state.sum_high -= high


cdef inline XXH128_hash_t element_sum(State state, const Node* node, const Element* element) noexcept:
    cdef uint32_t url = element.tag >> 3 if node.kind == ORMAP else element.tag
    cdef uint64_t kind = (element.tag & 7) + 1 if node.kind == ORMAP else 0
    return XXH3_128bits_withSeed(element.data, element.size, node.salt ^ (state.url_hashes[url] + kind * ODD))


cdef XXH128_hash_t item_sum(const Node* node, const Item* item) noexcept:
    cdef uint64_t[6] words
    words[0] = <uint64_t>item.time
    words[1] = item.incarnation + <uint64_t>item.vote
    words[2] = <uint64_t>item.plus
    words[3] = <uint64_t>(item.plus >> 64)
    words[4] = <uint64_t>item.minus
    words[5] = <uint64_t>(item.minus >> 64)
    if item.value != NULL:
        words[1] = XXH3_64bits_withSeed(
            PyBytes_AS_STRING(<object>item.value), PyBytes_GET_SIZE(<object>item.value), 1
        )
    return XXH3_128bits_withSeed(words, sizeof(words), node.salt)


cdef uint64_t salt_below(State state, const Node* node, const Element* element) noexcept:
    cdef XXH128_hash_t sum = element_sum(state, node, element)
    return sum.low64 ^ sum.high64 * ODD


# --- changing an entry of a set or map -------------------------------------------------------------------------------

cdef int set_dots(State state, Node* node, uint32_t at, const uint64_t* dots, uint32_t count) except -1:
    """Other dots for an entry: `dots` is not its own memory."""
    cdef Element element
    cdef uint64_t single
    cdef uint32_t before, i
    cdef const uint64_t* old = dots_of(node.table, at, &single, &before)
    element_at(node.table, at, &element)
    cdef XXH128_hash_t sum = element_sum(state, node, &element)
    for i in range(before):
        count_sum(state, sum, old[i], False)
    for i in range(count):
        count_sum(state, sum, dots[i], True)
    if before and not count:
        state.bytes_held -= element.size + ENTRY_SIZE
    elif count and not before:
        state.bytes_held += element.size + ENTRY_SIZE
    return put_dots(node.table, at, dots, count)


cdef inline int tell_entry(State state, Node* node, uint32_t at) except -1:
    """The user function may have to be told of an entry."""
    if state.view_open and not node.table.entries[at].dots & PENDING:
        node.table.entries[at].dots |= PENDING
        push(&node.pendings, at)
        if not node.pending:
            tell(state, node)
    return 0


cdef int tell(State state, Node* node) except -1:
    """The user function may have to be told of a node."""
    node.pending = True
    if node.parent != NULL:
        return tell_entry(state, node.parent, node.at)
    return 0


cdef inline int tell_presence(State state, Node* node, uint32_t at) except -1:
    """Tell of an element if the user function has it and it is gone, or the other way round."""
    cdef uint64_t dots = node.table.entries[at].dots
    if state.view_open and has_dots(dots) != (dots & KNOWN != 0):
        return tell_entry(state, node, at)
    return 0


cdef inline int touch(Node* node, uint32_t at) except -1:
    """The next delta names the entry."""
    if not node.table.entries[at].dots & TOUCHED:
        node.table.entries[at].dots |= TOUCHED
        push(&node.touched, at)
        if node.touched.size > 2 * node.table.live + 4096 and not node.whole:
            return forget_names(node)
    return 0


cdef int forget_names(Node* node) except -1:
    """Too many removed elements are kept for the next delta: it will make its receivers look at all of theirs."""
    cdef uint32_t i, at, kept = 0
    node.whole = True
    if node.kind == ORMAP:
        return 0
    for i in range(node.touched.size):
        at = node.touched.data[i]
        if has_dots(node.table.entries[at].dots) or i + 1 == node.touched.size:
            node.touched.data[kept] = at
            kept += 1
        else:
            node.table.entries[at].dots &= ~TOUCHED
            if not node.table.entries[at].dots & (PENDING | MET):
                erase(node.table, at)
    node.touched.size = kept
    return 0


cdef int drop_if_unused(State state, Node* node, uint32_t at) except -1:
    """Erase an entry that has no dots and that nobody has to name."""
    if node.table.entries[at].dots & ~KNOWN == 0:
        if node.kind == ORMAP and at < node.children_room and node.children[at] != NULL:
            free_node(state, node.children[at])
            node.children[at] = NULL
        erase(node.table, at)
    return 0


cdef Node* child_of(const Node* node, uint32_t at) noexcept nogil:
    return node.children[at] if at < node.children_room else NULL


cdef Node* ensure_child(State state, Node* node, uint32_t at, bint whole) except NULL:
    """The CRDT below a key, made if there is none; `whole`: how its deltas begin then."""
    cdef Node* child = child_of(node, at)
    cdef Element element
    cdef uint32_t room
    if child != NULL:
        return child
    if at >= node.children_room:
        room = node.table.room
        node.children = <Node**>resized(node.children, room * sizeof(Node*))
        memset(node.children + node.children_room, 0, (room - node.children_room) * sizeof(Node*))
        node.children_room = room
    element_at(node.table, at, &element)
    child = new_node(state, (element.tag & 7) + 1, node, at, salt_below(state, node, &element))
    child.whole = whole
    node.children[at] = child
    return child


# --- changing an item ------------------------------------------------------------------------------------------------

cdef inline uint64_t item_size(const Item* item) noexcept:
    return 16 if item.value == NULL else 16 + <uint64_t>PyBytes_GET_SIZE(<object>item.value)


cdef Item* find_item(const Node* node, uint32_t slot) noexcept nogil:
    cdef uint32_t i
    for i in range(node.count):
        if slot_in(node.items[i].dot) == slot:
            return &node.items[i]
    return NULL


cdef int add_item(State state, Node* node, const Item* item) except -1:
    if node.count == node.room:
        node.room = node.room * 2 if node.room else 2
        node.items = <Item*>resized(node.items, node.room * sizeof(Item))
    node.items[node.count] = item[0]
    Py_XINCREF(item.value)
    node.count += 1
    state.bytes_held += item_size(item)
    count_sum(state, item_sum(node, item), item.dot, True)
    return 0


cdef int remove_item(State state, Node* node, Item* item) except -1:
    state.bytes_held -= item_size(item)
    count_sum(state, item_sum(node, item), item.dot, False)
    Py_XDECREF(item.value)
    node.count -= 1
    item[0] = node.items[node.count]
    return 0


cdef int put_item_of(State state, Node* node, const Item* item) except -1:
    """The entry of its replica, in place of the one that is there."""
    cdef Item* old = find_item(node, slot_in(item.dot))
    if old != NULL:
        remove_item(state, node, old)
    return add_item(state, node, item)


cdef int before_change(State state, Node* node) except -1:
    """Remember what the user function has, before others change it for the first time."""
    cdef Item* best
    if not state.view_open or node.pending:
        return 0
    if node.kind == GCOUNTER or node.kind == PNCOUNTER:
        node.known_sum = sum_of(node)
    elif node.kind == FLAG:
        node.known_flag = node.count != 0
    elif node.kind == LWWREGISTER:
        best = winner(state, node)
        know_value(node, best.value if best != NULL else NULL)
    return tell(state, node)


cdef void know_value(Node* node, PyObject* value) noexcept:
    Py_XINCREF(value)
    Py_XDECREF(node.known_value)
    node.known_value = value


cdef i128 sum_of(const Node* node) noexcept nogil:
    cdef i128 total = 0
    cdef uint32_t i
    for i in range(node.count):
        total += <i128>node.items[i].plus - <i128>node.items[i].minus
    return total


cdef Item* winner(State state, const Node* node) noexcept:
    """Of a register: largest timestamp, then lower replica."""
    cdef Item* best = NULL
    cdef Item* item
    cdef uint32_t i
    for i in range(node.count):
        item = &node.items[i]
        if (
            best == NULL or item.time > best.time
            or (item.time == best.time and state.ids[slot_in(item.dot)] < state.ids[slot_in(best.dot)])
        ):
            best = item
    return best


# --- maps ------------------------------------------------------------------------------------------------------------

cdef uint32_t find_key(const Node* node, const Element* key, int kind) noexcept:
    """The entry of a key with a type. The hash of `key` is that of its type URL and bytes."""
    cdef Element wanted = key[0]
    wanted.tag = (key.tag << 3) | <uint32_t>(kind - 1)
    return find(node.table, &wanted)


cdef int visible_kind(State state, const Node* node, const Element* key) noexcept:
    """Type that a key shows: of its newest dot, largest n, then largest replica; 0 when it is not there."""
    cdef int kind, best = 0
    cdef uint32_t at, i, count
    cdef uint64_t single, n, replica, best_n = 0, best_replica = 0
    cdef const uint64_t* dots
    for kind in range(GCOUNTER, VOTE + 1):
        at = find_key(node, key, kind)
        if at == NO_ENTRY:
            continue
        dots = dots_of(node.table, at, &single, &count)
        for i in range(count):
            n = count_in(dots[i])
            replica = state.ids[slot_in(dots[i])]
            if best == 0 or n > best_n or (n == best_n and replica > best_replica):
                best, best_n, best_replica = kind, n, replica
    return best


cdef inline bint is_shown(State state, const Node* node, uint32_t at, Element* key) noexcept:
    """Whether the entry is the one that its key shows; `key` gets the key without the type."""
    cdef int kind
    element_at(node.table, at, key)
    kind = (key.tag & 7) + 1
    key.tag >>= 3
    return has_dots(node.table.entries[at].dots) and visible_kind(state, node, key) == kind
