# Changes made here: new dots, and what they and removals cover. Part of crdt.pyx.
#
# Removing and replacing covers dots that the user function has seen. What it has not seen stays, and it will be told.

cdef inline uint64_t new_dot(State state) except 0:
    """The next change of this replica."""
    cdef uint64_t dot
    if state.gone[state.own]:
        raise Rejected(f"replica {state.replica} was pruned from this state")
    if state.own_last >= ENDLESS - 1:
        raise Rejected(f"replica {state.replica} has made all the changes that can be counted")
    state.own_last += 1
    dot = packed(state.own, state.own_last)
    add_dot(&state.context, dot)
    if state.view_open:
        add_dot(&state.seen, dot)
    return dot


cdef inline bint has_seen(State state, uint64_t dot) noexcept:
    """Whether the user function has."""
    return not state.view_open or not state.behind or contains(&state.seen, dot)


cdef inline int cover(State state, uint64_t dot) except -1:
    """A dot goes; the next delta says so."""
    if slot_in(dot) == state.own and count_in(dot) > state.taken:
        return 0
    push_dot(&state.covered, dot)
    if state.covered.size > MAX_COVERED:
        state.all_fresh = True
        release_dots(&state.covered)
    return 0


cdef int cover_seen(State state, Node* node, uint32_t at) except -1:
    """Cover an entry's dots that were seen; the others into state.scratch."""
    cdef uint64_t single
    cdef uint32_t i, count = 0
    cdef const uint64_t* dots = dots_of(node.table, at, &single, &count)
    state.scratch.size = 0
    for i in range(count):
        if has_seen(state, dots[i]):
            cover(state, dots[i])
        else:
            push_dot(&state.scratch, dots[i])
    return 0


cdef int renew(State state, Node* node, uint32_t at) except -1:
    """A new dot in place of those seen."""
    cdef uint64_t dot = new_dot(state)
    cover_seen(state, node, at)
    push_dot(&state.scratch, dot)
    return set_dots(state, node, at, state.scratch.data, state.scratch.size)


cdef int leave_unseen(State state, Node* node, uint32_t at) except -1:
    cover_seen(state, node, at)
    return set_dots(state, node, at, state.scratch.data, state.scratch.size)


cdef uint32_t entry_of(Node* node, const Element* element) except? GONE:
    """The entry of an element, made if there is none."""
    cdef uint32_t at = find(node.table, element)
    if at == NO_ENTRY:
        at = insert(node.table, element)
        node.kinds |= 1u << (element.tag & 7)
    return at


# --- sets ------------------------------------------------------------------------------------------------------------

cdef int add_element(State state, Node* node, const Element* element) except -1:
    cdef uint32_t at = entry_of(node, element)
    renew(state, node, at)
    node.table.entries[at].dots |= KNOWN
    return touch(node, at)


cdef int remove_element(State state, Node* node, const Element* element) except -1:
    cdef uint32_t at = find(node.table, element)
    if at == NO_ENTRY:
        return 0
    node.table.entries[at].dots &= ~KNOWN
    if has_dots(node.table.entries[at].dots):
        leave_unseen(state, node, at)
        touch(node, at)
        tell_presence(state, node, at)
    return drop_if_unused(state, node, at)


cdef int clear_set(State state, Node* node) except -1:
    cdef uint32_t i
    node.whole = True
    if node.parent == NULL and not (state.view_open and state.behind):
        return clear_at_once(state, node)
    for i in range(node.table.used):
        if is_used(node.table, i):
            node.table.entries[i].dots &= ~(KNOWN | TOUCHED)
            if has_dots(node.table.entries[i].dots):
                leave_unseen(state, node, i)
                tell_presence(state, node, i)
            drop_if_unused(state, node, i)
    empty(&node.touched)
    return 0


cdef int clear_at_once(State state, Node* node) except -1:
    """The whole state is a set of which everything was seen."""
    cdef uint64_t single
    cdef uint32_t i, j, count = 0
    cdef const uint64_t* dots
    for i in range(node.table.used):
        if is_used(node.table, i):
            dots = dots_of(node.table, i, &single, &count)
            for j in range(count):
                cover(state, dots[j])
    reset(node.table)
    empty(&node.touched)
    empty(&node.pendings)
    node.pending = False
    state.sum_low = state.sum_high = 0
    state.bytes_held = 0
    return 0


# --- what a replica has ----------------------------------------------------------------------------------------------

cdef int put_own(State state, Node* node, Item* item) except -1:
    """The entry of this replica, with a new dot."""
    cdef Item* old = find_item(node, state.own)
    item.dot = new_dot(state)
    if old != NULL:
        cover(state, old.dot)
    return put_item_of(state, node, item)


cdef int count_up(State state, Node* node, int64_t amount, uint64_t plus) except -1:
    """amount: of a PNCounter; plus: of a GCounter."""
    cdef Item item
    cdef Item* old = find_item(node, state.own)
    if amount == 0 and plus == 0:
        return 0
    memset(&item, 0, sizeof(Item))
    if old != NULL:
        item.plus = old.plus
        item.minus = old.minus
    if amount < 0:
        item.minus += <u128>(0 - <uint64_t>amount)
    else:
        item.plus += <u128>plus + <u128>amount
    if (item.plus | item.minus) >> SUM_BITS:
        raise Rejected("the counter has reached its largest sum")
    if node.pending:
        node.known_sum += <i128>plus + <i128>amount
    return put_own(state, node, &item)


cdef int write_register(State state, Node* node, bytes value, int64_t time) except -1:
    """Whether the value won."""
    cdef Item item
    cdef Item* best = winner(state, node)
    cdef uint64_t mine = state.replica, theirs
    if best != NULL and time <= best.time:
        theirs = state.ids[slot_in(best.dot)]
        if time < best.time or mine >= theirs:  # of one replica's two writes at one time the first one stays
            if state.view_open:
                before_change(state, node)
                know_value(node, <PyObject*>value)
            return 0
    if node.pending:
        know_value(node, <PyObject*>value)
    memset(&item, 0, sizeof(Item))
    item.time = time
    item.value = <PyObject*>value
    put_own(state, node, &item)
    return 1


cdef int64_t next_time(const Item* before, uint64_t clock, int64_t custom, int64_t now) noexcept nogil:
    """Timestamp of a write (spec crdt 1.6). Without a value, time begins with it."""
    cdef int64_t later, earlier
    if clock == CLOCK_CUSTOM:
        return custom
    if before == NULL:
        return -now if clock == CLOCK_REVERSE else custom if clock == CLOCK_AUTO_INCREMENT else now
    later = before.time + 1 if before.time < INT64_MAX else INT64_MAX
    earlier = before.time - 1 if before.time > INT64_MIN else INT64_MIN
    if clock == CLOCK_REVERSE:
        return min(-now, earlier)
    return max(custom if clock == CLOCK_AUTO_INCREMENT else now, later)


cdef int switch_on(State state, Node* node) except -1:
    cdef Item item
    cdef uint32_t i = 0
    memset(&item, 0, sizeof(Item))
    item.dot = new_dot(state)
    while i < node.count:
        if has_seen(state, node.items[i].dot):
            cover(state, node.items[i].dot)
            remove_item(state, node, &node.items[i])
        else:
            i += 1
    if node.pending:
        node.known_flag = True
    return add_item(state, node, &item)


cdef int cast_vote(State state, Node* node, bint vote) except -1:
    cdef Item item
    cdef Item* mine = find_item(node, state.own)
    cdef bint voted = mine != NULL and mine.incarnation == state.incarnation and mine.vote
    if voted != vote:
        memset(&item, 0, sizeof(Item))
        item.incarnation = state.incarnation
        item.vote = vote
        put_own(state, node, &item)
    if state.view_open:
        if node.known_flag != vote:
            node.known_for += 1 if vote else -1
            node.known_flag = vote
        if not node.pending:
            tell(state, node)
    return 0


# --- maps ------------------------------------------------------------------------------------------------------------

cdef int remove_key(State state, Node* node, const Element* key, int kept_kind) except -1:
    """Of a key all types but one."""
    cdef int kind
    cdef uint32_t at
    for kind in range(GCOUNTER, VOTE + 1):
        if kind != kept_kind and node.kinds >> (kind - 1) & 1:
            at = find_key(node, key, kind)
            if at != NO_ENTRY:
                remove_entry(state, node, at)
    return 0


cdef int remove_entry(State state, Node* node, uint32_t at) except -1:
    cdef Node* child = child_of(node, at)
    forget_known(state, node, at)
    if has_dots(node.table.entries[at].dots):
        leave_unseen(state, node, at)
        touch(node, at)
        if child != NULL:
            cover_all(state, child)
        if has_dots(node.table.entries[at].dots):
            return tell_entry(state, node, at)
    if child != NULL:
        drop_all(state, child)
        free_node(state, child)
        node.children[at] = NULL
    return drop_if_unused(state, node, at)


cdef void forget_known(State state, Node* node, uint32_t at) noexcept:
    """The user function no longer has a key."""
    if state.view_open and node.table.entries[at].dots & KNOWN:
        node.known_keys -= 1
        node.table.entries[at].dots &= ~KNOWN


cdef int cover_all(State state, Node* node) except -1:
    """Everything seen below a removed key goes. The user function has none of it."""
    cdef uint32_t i = 0
    node.whole = True
    forget_view(state, node)
    zero_known(node)
    if node.table == NULL:
        while i < node.count:
            if has_seen(state, node.items[i].dot):
                cover(state, node.items[i].dot)
                remove_item(state, node, &node.items[i])
            else:
                i += 1
        return 0
    for i in range(node.table.used):
        if is_used(node.table, i):
            node.table.entries[i].dots &= ~(KNOWN | TOUCHED)
            if node.kind == ORMAP:
                remove_entry(state, node, i)
            elif has_dots(node.table.entries[i].dots):
                leave_unseen(state, node, i)
            if is_used(node.table, i):
                node.table.entries[i].dots &= ~(TOUCHED | PENDING)
                drop_if_unused(state, node, i)
    empty(&node.touched)
    empty(&node.pendings)
    node.pending = False
    return 0


cdef void zero_known(Node* node) noexcept:
    """The user function has the zero of the type, or does not have the key."""
    node.known_sum = 0
    node.known_flag = False
    node.known_for = 0
    node.known_total = 1
    node.known_keys = 0
    node.stale = False
    know_value(node, NULL)


cdef int clear_map(State state, Node* node) except -1:
    cdef uint32_t i
    for i in range(node.table.used):
        if is_used(node.table, i):
            remove_entry(state, node, i)
    for i in range(node.touched.size):
        if is_used(node.table, node.touched.data[i]):
            node.table.entries[node.touched.data[i]].dots &= ~TOUCHED
            drop_if_unused(state, node, node.touched.data[i])
    empty(&node.touched)
    node.whole = True
    return 0


cdef Node* changed_key(State state, Node* node, const Element* key, int kind, bint adding) except? NULL:
    """The CRDT that an `added` or `updated` entry of a map changes, its key renewed; NULL if it is to be ignored."""
    cdef Element wanted = key[0]
    cdef uint32_t at
    cdef Node* child
    wanted.tag = key.tag << 3 | <uint32_t>(kind - 1)
    if adding:
        remove_key(state, node, key, kind)
        at = entry_of(node, &wanted)
    else:
        at = find(node.table, &wanted)
        if visible_kind(state, node, key) != kind:
            if at != NO_ENTRY and child_of(node, at) != NULL:
                child_of(node, at).stale = True
                tell_entry(state, node, at)
            return NULL
    renew(state, node, at)
    touch(node, at)
    child = ensure_child(state, node, at, True)
    if adding and state.view_open and not node.table.entries[at].dots & KNOWN:
        node.table.entries[at].dots |= KNOWN
        node.known_keys += 1
        begin_known(state, child)
    if adding and state.view_open and visible_kind(state, node, key) != kind:
        tell_entry(state, node, at)
    return child


cdef int begin_known(State state, Node* node) except -1:
    """The user function has added a key, with the zero of its type, whatever stands here."""
    cdef uint32_t i
    forget_view(state, node)
    zero_known(node)
    if node.table != NULL:
        for i in range(node.table.used):
            if is_used(node.table, i):
                node.table.entries[i].dots &= ~KNOWN
                if has_dots(node.table.entries[i].dots):
                    tell_entry(state, node, i)
    elif node.count or node.kind == VOTE:
        return tell(state, node)
    return 0


# --- a replica that has left -----------------------------------------------------------------------------------------

cdef int inherit(State state, Node* node, uint32_t gone) except -1:
    """What hangs on dots of `gone` hangs on new own ones, in canonical order."""
    cdef uint32_t at
    if node.kind == FLAG:
        return inherit_flag(state, node, gone)
    if node.table == NULL:
        return inherit_item(state, node, gone)
    for _, _, _, at in sorted(named_entries(state, node)):
        inherit_dots(state, node, at, gone)
        if child_of(node, at) != NULL:
            inherit(state, node.children[at], gone)
    return 0


cdef uint64_t heir_dot(State state, uint64_t lost) except 0:
    """A new dot, that the user function has seen if it has seen the one in whose place this stands."""
    cdef uint64_t dot
    cdef bint view_open = state.view_open
    cdef bint seen = has_seen(state, lost)
    state.view_open = view_open and seen
    try:
        dot = new_dot(state)
    finally:
        state.view_open = view_open
    return dot


cdef uint64_t dots_left(State state, const uint64_t* dots, uint32_t count, uint32_t gone) except? 0:
    """Dots of all but `gone` and its heir, into state.scratch; the last one of `gone`, 0 if it has none."""
    cdef uint64_t lost = 0
    cdef uint32_t i
    state.scratch.size = 0
    for i in range(count):
        if slot_in(dots[i]) == gone:
            lost = max(lost, dots[i])
        elif slot_in(dots[i]) != state.own:
            push_dot(&state.scratch, dots[i])
    return lost


cdef int inherit_dots(State state, Node* node, uint32_t at, uint32_t gone) except -1:
    cdef uint64_t single
    cdef uint32_t count = 0
    cdef const uint64_t* dots = dots_of(node.table, at, &single, &count)
    cdef uint64_t lost = dots_left(state, dots, count, gone)
    if not lost:
        return 0
    push_dot(&state.scratch, heir_dot(state, lost))
    return set_dots(state, node, at, state.scratch.data, state.scratch.size)


cdef int inherit_flag(State state, Node* node, uint32_t gone) except -1:
    cdef Item item
    cdef uint64_t lost
    cdef uint32_t i
    cdef Dots dots
    memset(&item, 0, sizeof(Item))
    memset(&dots, 0, sizeof(Dots))
    try:
        for i in range(node.count):
            push_dot(&dots, node.items[i].dot)
        lost = dots_left(state, dots.data, dots.size, gone)
        if not lost:
            return 0
        while node.count:
            remove_item(state, node, &node.items[node.count - 1])
        push_dot(&state.scratch, heir_dot(state, lost))
        for i in range(state.scratch.size):
            item.dot = state.scratch.data[i]
            add_item(state, node, &item)
    finally:
        release_dots(&dots)
    return 0


cdef int inherit_item(State state, Node* node, uint32_t gone) except -1:
    cdef Item* old = find_item(node, gone)
    cdef Item* mine
    cdef Item item
    if old == NULL:
        return 0
    before_change(state, node)
    item = old[0]
    Py_XINCREF(item.value)
    try:
        remove_item(state, node, old)
        mine = find_item(node, state.own)
        if node.kind == VOTE or (node.kind == LWWREGISTER and mine != NULL and not is_later(&item, mine)):
            return 0
        if mine != NULL and node.kind != LWWREGISTER:
            item.plus += mine.plus
            item.minus += mine.minus
        item.dot = heir_dot(state, item.dot)
        return put_item_of(state, node, &item)
    finally:
        Py_XDECREF(item.value)


cdef bint is_later(const Item* a, const Item* b):
    return a.time > b.time or (a.time == b.time and rank(<bytes>a.value) > rank(<bytes>b.value))
