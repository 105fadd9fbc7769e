# What the user function knows, and the CrdtDelta messages that bring it up to date (spec crdt 1.5, 1.8).
# Part of crdt.pyx.
#
# Others' changes leave a mark on the way (`tell`): only marked nodes and entries are looked at here. An entry remembers
# by a flag whether the user function has it, other nodes the value it has.

cdef enum:
    SAME = 0  # nothing to tell
    WRITTEN = 1
    INCOMPATIBLE = 2  # no change leads there: remove the key, and add it anew


cdef inline int put_any(Buffer* out, State state, uint8_t number, uint32_t type, const Element* element) except -1:
    """A field with an element or key as Any."""
    cdef size_t size = text_size(state.url_sizes[type]) + text_size(element.size)
    cdef uint8_t* p
    reserve(out, size + 12)
    p = put_length(out.data + out.size, number, size)
    p = put_text(p, 1, state.url_data[type], state.url_sizes[type])
    p = put_text(p, 2, element.data, element.size)
    out.size = p - out.data
    return 0


cdef int put_number(Buffer* out, uint8_t field, uint64_t value) except -1:
    append_byte(out, field << 3)
    return append_varint(out, value)


cdef int put_element(Buffer* out, State state, const Node* node, uint8_t number, uint32_t at) except -1:
    cdef Element element
    element_at(node.table, at, &element)
    return put_any(out, state, number, element.tag >> 3 if node.kind == ORMAP else element.tag, &element)


# --- the whole value -------------------------------------------------------------------------------------------------

cdef int put_whole(Buffer* out, State state, Node* node) except -1:
    """Content of the member: from zero to what is here. The user function has it then."""
    if node.table != NULL:
        return put_whole_map(out, state, node) if node.kind == ORMAP else put_whole_set(out, state, node)
    node.pending = False
    node.stale = False
    if node.kind == LWWREGISTER:
        return put_register(out, state, node)
    if node.kind == VOTE:
        node.known_total = 0
        if put_difference(out, state, node) == SAME:
            triple_of(state, node, &node.known_flag, &node.known_for, &node.known_total)
        return 0
    node.known_sum = 0
    node.known_flag = False
    node.pending = True
    put_difference(out, state, node)
    return 0


cdef int put_whole_set(Buffer* out, State state, Node* node) except -1:
    cdef uint32_t i
    for i in range(node.table.used):
        if not is_used(node.table, i):
            continue
        node.table.entries[i].dots &= ~(PENDING | KNOWN)
        if has_dots(node.table.entries[i].dots):
            node.table.entries[i].dots |= KNOWN
            put_element(out, state, node, 1 if node.kind == GSET else 3, i)
        else:
            drop_if_unused(state, node, i)
    empty(&node.pendings)
    node.pending = False
    return 0


cdef int put_whole_map(Buffer* out, State state, Node* node) except -1:
    cdef uint32_t i
    cdef Element key
    empty(&node.pendings)
    node.pending = False
    node.stale = False
    node.known_keys = 0
    for i in range(node.table.used):
        if is_used(node.table, i):
            node.table.entries[i].dots &= ~(PENDING | KNOWN)
    for i in range(node.table.used):
        if not is_used(node.table, i):
            continue
        if is_shown(state, node, i, &key):
            put_added(out, state, node, i)
        elif child_of(node, i) != NULL:
            forget_view(state, node.children[i])
        if is_used(node.table, i):
            drop_if_unused(state, node, i)
    return 0


cdef int put_added(Buffer* out, State state, Node* node, uint32_t at) except -1:
    """A key with all below it."""
    cdef size_t start, delta, member
    cdef Node* child = ensure_child(state, node, at, False)
    append_byte(out, 4 << 3 | LEN)
    start = out.size
    put_element(out, state, node, 1, at)
    append_byte(out, 2 << 3 | LEN)
    delta = out.size
    append_byte(out, child.kind << 3 | LEN)
    member = out.size
    put_whole(out, state, child)
    insert_length(out, member)
    insert_length(out, delta)
    insert_length(out, start)
    node.table.entries[at].dots |= KNOWN
    node.known_keys += 1
    return 0


cdef int put_register(Buffer* out, State state, Node* node) except -1:
    cdef Item* best = winner(state, node)
    if best != NULL:
        append_byte(out, 1 << 3 | LEN)
        append_varint(out, PyBytes_GET_SIZE(<object>best.value))
        append(out, PyBytes_AS_STRING(<object>best.value), PyBytes_GET_SIZE(<object>best.value))
    know_value(node, NULL)
    return 0


# --- the difference --------------------------------------------------------------------------------------------------

cdef int put_difference(Buffer* out, State state, Node* node) except -1:
    """Content of the member: from what the user function has to what is here. Only with WRITTEN it has that then."""
    if node.kind == GCOUNTER or node.kind == PNCOUNTER:
        return put_step(out, state, node)
    if node.kind == GSET or node.kind == ORSET:
        return put_set_difference(out, state, node)
    if node.kind == ORMAP:
        return put_map_difference(out, state, node)
    if node.kind == VOTE:
        return put_votes(out, state, node)
    if not node.pending:
        return SAME
    node.pending = False
    if node.kind == LWWREGISTER:
        if same_value(state, node):
            know_value(node, NULL)
            return SAME
        put_register(out, state, node)
        return WRITTEN
    if node.known_flag == (node.count != 0):
        return SAME
    if node.known_flag:
        return INCOMPATIBLE
    append_byte(out, 1 << 3)
    append_byte(out, 1)
    return WRITTEN


cdef bint same_value(State state, const Node* node):
    """Whether the user function has the register's value."""
    cdef Item* best = winner(state, node)
    if best == NULL or node.known_value == NULL:
        return best == NULL and node.known_value == NULL
    return <bytes>best.value == <bytes>node.known_value


cdef int put_step(Buffer* out, State state, Node* node) except -1:
    """A counter's; what does not fit into 64 bits is for the next time."""
    cdef i128 step
    cdef i128 largest = <i128>(<u128>-1 >> 64) if node.kind == GCOUNTER else <i128>INT64_MAX
    if not node.pending:
        return SAME
    step = sum_of(node) - node.known_sum
    if step < 0 and node.kind == GCOUNTER:
        return INCOMPATIBLE
    node.pending = False
    if step == 0:
        return SAME
    if step > largest or step < -largest - 1:
        step = largest if step > 0 else -largest - 1
        node.known_sum += step
        tell(state, node)
    append_byte(out, 1 << 3)
    append_varint(out, <uint64_t>step if node.kind == GCOUNTER else unzigzag(<int64_t>step))
    return WRITTEN


cdef inline uint64_t unzigzag(int64_t value) noexcept nogil:
    return (<uint64_t>value << 1) ^ <uint64_t>(value >> 63)


cdef int triple_of(State state, const Node* node, bint* self_vote, uint32_t* votes, uint32_t* total) except -1:
    """What a vote comes to among the members."""
    cdef uint32_t i
    cdef Item* mine = find_item(node, state.own)
    members = state.members
    self_vote[0] = (
        mine != NULL and mine.vote and mine.incarnation == state.incarnation and state.incarnation in members
    )
    votes[0] = 0
    for i in range(node.count):
        if node.items[i].vote and node.items[i].incarnation in members:
            votes[0] += 1
    total[0] = <uint32_t>(len(members) + state.absent)
    return 0


cdef int put_votes(Buffer* out, State state, Node* node) except -1:
    cdef bint self_vote
    cdef uint32_t votes, total
    triple_of(state, node, &self_vote, &votes, &total)
    node.pending = False
    if self_vote == node.known_flag and votes == node.known_for and total == node.known_total:
        return SAME
    if self_vote:
        put_number(out, 1, 1)
    if votes:
        put_number(out, 2, votes)
    if total:
        put_number(out, 3, total)
    node.known_flag, node.known_for, node.known_total = self_vote, votes, total
    return WRITTEN


cdef int put_set_difference(Buffer* out, State state, Node* node) except -1:
    cdef uint32_t i, at, added = 0, removed = 0
    cdef uint64_t dots
    for i in range(node.pendings.size):
        dots = node.table.entries[node.pendings.data[i]].dots
        added += has_dots(dots) and not dots & KNOWN
        removed += dots & KNOWN != 0 and not has_dots(dots)
    if removed and node.kind == GSET:
        return INCOMPATIBLE
    if node.kind == ORSET and removed and (node.table.live == 0 or added + removed > node.table.live):
        put_number(out, 1, 1)
        put_whole_set(out, state, node)
        return WRITTEN
    for i in range(node.pendings.size):
        at = node.pendings.data[i]
        dots = node.table.entries[at].dots
        node.table.entries[at].dots &= ~(PENDING | KNOWN)
        if has_dots(dots):
            node.table.entries[at].dots |= KNOWN
            if not dots & KNOWN:
                put_element(out, state, node, 1 if node.kind == GSET else 3, at)
        else:
            if dots & KNOWN:
                put_element(out, state, node, 2, at)
            drop_if_unused(state, node, at)
    empty(&node.pendings)
    node.pending = False
    return WRITTEN if added or removed else SAME


# --- of a map --------------------------------------------------------------------------------------------------------

cdef int put_map_difference(Buffer* out, State state, Node* node) except -1:
    cdef size_t start = out.size
    cdef uint32_t i
    cdef List pendings = node.pendings
    memset(&node.pendings, 0, sizeof(List))
    node.pending = False
    cdef bint cleared = node.table.live == 0 and node.known_keys != 0
    try:
        for i in range(pendings.size):
            if node.table.entries[pendings.data[i]].dots & PENDING:
                put_key_difference(out, state, node, pendings.data[i])
    finally:
        free(pendings.data)
    if cleared:
        out.size = start
        put_number(out, 1, 1)
    return WRITTEN if out.size > start else SAME


cdef int put_key_difference(Buffer* out, State state, Node* node, uint32_t at) except -1:
    """All types of a key at once: the one that the user function has, and the one shown."""
    cdef Element key
    cdef int kind, shown
    cdef uint32_t i, had = NO_ENTRY, now = NO_ENTRY
    cdef uint32_t[9] entries
    element_at(node.table, at, &key)
    key.tag >>= 3
    shown = visible_kind(state, node, &key)
    for kind in range(GCOUNTER, VOTE + 1):
        entries[kind] = i = find_key(node, &key, kind) if node.kinds >> (kind - 1) & 1 else NO_ENTRY
        if i != NO_ENTRY:
            node.table.entries[i].dots &= ~PENDING
            had = i if node.table.entries[i].dots & KNOWN else had
            now = i if kind == shown else now
    if not (had == now and had != NO_ENTRY and put_updated(out, state, node, had)):
        if had != NO_ENTRY:
            put_element(out, state, node, 2, had)
            forget_known(state, node, had)
        if now != NO_ENTRY:
            put_added(out, state, node, now)
    for kind in range(GCOUNTER, VOTE + 1):
        if entries[kind] != NO_ENTRY:
            settle_key(state, node, entries[kind])
    return 0


cdef int settle_key(State state, Node* node, uint32_t at) except -1:
    """After telling: what the user function does not have needs no books, and what is gone may go."""
    cdef Node* child = child_of(node, at)
    if child != NULL and not node.table.entries[at].dots & KNOWN:
        forget_view(state, child)
    if child != NULL and not has_dots(node.table.entries[at].dots) and not child.pending:
        free_node(state, child)
        node.children[at] = NULL
    return drop_if_unused(state, node, at)


cdef bint put_updated(Buffer* out, State state, Node* node, uint32_t at) except -1:
    """A change below a key, if one leads there."""
    cdef size_t start = out.size, entry, delta, member
    cdef Node* child = ensure_child(state, node, at, False)
    cdef int result
    if child.stale:
        return False
    append_byte(out, 3 << 3 | LEN)
    entry = out.size
    put_element(out, state, node, 1, at)
    append_byte(out, 2 << 3 | LEN)
    delta = out.size
    append_byte(out, child.kind << 3 | LEN)
    member = out.size
    result = put_difference(out, state, child)
    if result != WRITTEN:
        out.size = start
        return result == SAME
    insert_length(out, member)
    insert_length(out, delta)
    insert_length(out, entry)
    return True


# --- books that are closed -------------------------------------------------------------------------------------------

cdef int forget_view(State state, Node* node) except -1:
    """No marks below: the user function has none of this, or there is none."""
    cdef uint32_t i, at
    node.pending = False
    if node.table == NULL:
        return 0
    for i in range(node.pendings.size):
        at = node.pendings.data[i]
        node.table.entries[at].dots &= ~PENDING
        if child_of(node, at) != NULL:
            forget_view(state, node.children[at])
        drop_if_unused(state, node, at)
    empty(&node.pendings)
    return 0


cdef bint differs(State state, Node* node) except -1:
    """Whether put_difference would have something to say."""
    cdef uint32_t i, votes, total
    cdef uint64_t dots
    cdef bint self_vote
    if node.kind == VOTE:
        triple_of(state, node, &self_vote, &votes, &total)
        return self_vote != node.known_flag or votes != node.known_for or total != node.known_total
    if not node.pending:
        return False
    if node.kind == GCOUNTER or node.kind == PNCOUNTER:
        return sum_of(node) != node.known_sum
    if node.kind == LWWREGISTER:
        return not same_value(state, node)
    if node.kind == FLAG:
        return node.known_flag != (node.count != 0)
    for i in range(node.pendings.size):
        dots = node.table.entries[node.pendings.data[i]].dots
        if node.kind == ORMAP:
            if key_differs(state, node, node.pendings.data[i]):
                return True
        elif has_dots(dots) != (dots & KNOWN != 0):
            return True
    return False


cdef int known_kind(State state, const Node* node, const Element* key) noexcept:
    """Type that a key has for the user function, 0 if it has none."""
    cdef int kind
    cdef uint32_t at
    for kind in range(GCOUNTER, VOTE + 1):
        at = find_key(node, key, kind)
        if at != NO_ENTRY and node.table.entries[at].dots & KNOWN:
            return kind
    return 0


cdef bint key_differs(State state, Node* node, uint32_t at) except -1:
    cdef Element key
    element_at(node.table, at, &key)
    key.tag >>= 3
    cdef int known = known_kind(state, node, &key), shown = visible_kind(state, node, &key)
    if known != shown:
        return True
    if not shown:
        return False
    cdef Node* child = child_of(node, find_key(node, &key, shown))
    return child != NULL and (child.stale or differs(state, child))


cdef int tell_votes(State state, Node* node) except -1:
    """Other members: every vote that comes to something else now is to be told."""
    cdef uint32_t i
    if node.kind == VOTE and differs(state, node):
        return tell(state, node)
    for i in range(node.children_room):
        if node.children[i] != NULL and (node.children[i].kind == VOTE or node.children[i].kind == ORMAP):
            tell_votes(state, node.children[i])
    return 0
