# Encoding of states and deltas (docs/crdt-format.md). Part of crdt.pyx.

cdef class Writer:
    """The store is written first: it finds out which replicas and type URLs the head has to name."""
    cdef State state
    cdef Buffer out
    cdef uint32_t* index_of  # by slot
    cdef uint32_t* url_index_of  # by type
    cdef list urls
    cdef uint32_t index
    cdef uint64_t n
    cdef bint canonical

    def __cinit__(self, State state, bint canonical):
        self.state = state
        self.canonical = canonical
        self.urls = []
        self.index_of = <uint32_t*>resized(NULL, (state.slots + 1) * sizeof(uint32_t))
        self.url_index_of = <uint32_t*>resized(NULL, (len(state.urls) + 1) * sizeof(uint32_t))
        memset(self.url_index_of, 0xFF, (len(state.urls) + 1) * sizeof(uint32_t))

    def __dealloc__(self):
        free(self.index_of)
        free(self.url_index_of)
        release(&self.out)

    # --- head

    cdef bytes message(self, const Context* context, bint with_pruned, int what):
        """The whole message; `what` of the state."""
        cdef Buffer head
        cdef State state = self.state
        cdef list slots = self.named_slots(context)
        cdef list pruned = by_identity(state, [slot for slot in range(state.slots) if with_pruned and state.gone[slot]])
        cdef bytes url
        memset(&head, 0, sizeof(Buffer))
        self.store(state.root, what)
        try:
            append_byte(&head, FORMAT)
            append_byte(&head, state.kind)
            for named in (slots, pruned):
                append_varint(&head, len(named))
                for slot in named:
                    append(&head, &state.ids[<uint32_t>slot], 8)
            for slot in slots:
                put_runs(&head, context, slot)
            append_varint(&head, len(self.urls))
            for url in self.urls:
                append_varint(&head, len(url))
                append(&head, PyBytes_AS_STRING(url), len(url))
            append(&head, self.out.data, self.out.size)
        except BaseException:
            release(&head)
            raise
        return taken_from(&head)

    cdef list named_slots(self, const Context* context):
        """Replicas in the context, by ascending identity; they get their index."""
        cdef uint32_t slot, i
        cdef State state = self.state
        slots = set()
        for slot in range(min(context.slots, state.slots)):
            if context.prefix[slot] and not state.gone[slot]:
                slots.add(slot)
        for i in range(context.runs):
            slots.add(slot_in(context.cloud[i].first))
        named = by_identity(state, slots)
        for i in range(<uint32_t>len(named)):
            self.index_of[<uint32_t>named[i]] = i
        return named

    # --- dots and elements

    cdef int coded(self, uint64_t dot, uint8_t* code) except -1:
        """The code of a dot; what has to follow it is for `rest`."""
        if self.index_of[slot_in(dot)] == self.index:
            code[0] = NEXT if count_in(dot) == self.n + 1 else NEAR
        else:
            code[0] = FAR
        return 0

    cdef int rest(self, uint64_t dot, uint8_t code) except -1:
        if code == NEAR:
            append_varint(&self.out, unzigzag(<int64_t>(count_in(dot) - self.n)))
        elif code == FAR:
            append_varint(&self.out, self.index_of[slot_in(dot)])
            append_varint(&self.out, count_in(dot))
        self.index = self.index_of[slot_in(dot)]
        self.n = count_in(dot)
        return 0

    cdef int dot(self, uint64_t dot) except -1:
        cdef uint8_t code = 0
        self.coded(dot, &code)
        append_byte(&self.out, code)
        return self.rest(dot, code)

    cdef int dots(self, const uint64_t* dots, uint32_t count) except -1:
        cdef uint32_t i
        append_varint(&self.out, count)
        if self.canonical and count > 1:
            order = [(self.index_of[slot_in(dots[i])], dots[i]) for i in range(count)]
            for _, dot in sorted(order):
                self.dot(dot)
            return 0
        for i in range(count):
            self.dot(dots[i])
        return 0

    cdef uint32_t url(self, uint32_t type):
        if self.url_index_of[type] == NO_ENTRY:
            self.url_index_of[type] = <uint32_t>len(self.urls)
            self.urls.append(self.state.urls[type])
        return self.url_index_of[type]

    cdef int entry(self, const Node* node, uint32_t at, const uint64_t* dots, uint32_t count) except -1:
        """Element or key with its dots."""
        cdef Element element
        cdef uint8_t code = NONE if count == 0 else SEVERAL
        element_at(node.table, at, &element)
        if count == 1:
            self.coded(dots[0], &code)
        append_varint(
            &self.out, <uint64_t>self.url(element.tag >> 3 if node.kind == ORMAP else element.tag) << 3 | code
        )
        if count == 1:
            self.rest(dots[0], code)
        elif count:
            self.dots(dots, count)
        append_varint(&self.out, element.size)
        append(&self.out, element.data, element.size)
        if node.kind == ORMAP:
            append_byte(&self.out, <uint8_t>((element.tag & 7) + 1))
        return 0

    # --- stores

    cdef int store(self, Node* node, int what) except -1:
        if node.kind == FLAG:
            return self.flag(node, what)
        if node.table == NULL:
            return self.items(node, what)
        append_byte(&self.out, NAMED if what != ALL and not node.whole else 0)
        if self.canonical:
            return self.sorted_entries(node)
        return self.touched_entries(node) if what == FRESH else self.entries(node, what)

    cdef int entries(self, Node* node, int what) except -1:
        """All with dots; of a union of deltas also the names of those without."""
        cdef uint32_t i, count
        cdef uint64_t single
        cdef const uint64_t* dots
        append_varint(&self.out, node.table.live if what == ALL else node.table.count)
        for i in range(node.table.used):
            if is_used(node.table, i) and (what == UNION or has_dots(node.table.entries[i].dots)):
                dots = dots_of(node.table, i, &single, &count)
                self.entry(node, i, dots, count)
                if node.kind == ORMAP:
                    self.below(node, i, what)
        return 0

    cdef int sorted_entries(self, Node* node) except -1:
        cdef uint32_t i, count
        cdef uint64_t single
        cdef const uint64_t* dots
        found = named_entries(self.state, node)
        append_varint(&self.out, len(found))
        for _, _, _, i in sorted(found):
            dots = dots_of(node.table, i, &single, &count)
            self.entry(node, i, dots, count)
            if node.kind == ORMAP:
                self.below(node, i, ALL)
        return 0

    cdef int touched_entries(self, Node* node) except -1:
        """Of a delta: entries that own changes touched, with the dots they made."""
        cdef uint32_t i, j, at, count, named = 0
        cdef uint64_t single
        cdef const uint64_t* dots
        cdef Dots* fresh = &self.state.scratch
        for i in range(node.touched.size):
            named += is_used(node.table, node.touched.data[i])
        append_varint(&self.out, named)
        for i in range(node.touched.size):
            at = node.touched.data[i]
            if not is_used(node.table, at):
                continue
            dots = dots_of(node.table, at, &single, &count)
            fresh.size = 0
            for j in range(count):
                if is_fresh(self.state, dots[j]):
                    push_dot(fresh, dots[j])
            if fresh.size == 0 and has_fresh(self.state, child_of(node, at)):
                self.entry(node, at, dots, count)
            else:
                self.entry(node, at, fresh.data, fresh.size)
            if node.kind == ORMAP:
                self.below(node, at, FRESH)
        return 0

    cdef int below(self, Node* node, uint32_t at, int what) except -1:
        """The store of a key's CRDT."""
        cdef Element element
        cdef int kind
        if child_of(node, at) != NULL:
            return self.store(node.children[at], what)
        element_at(node.table, at, &element)
        kind = (element.tag & 7) + 1
        if kind == GSET or kind == ORSET or kind == ORMAP:
            append_byte(&self.out, 0)
        return append_byte(&self.out, 0)

    cdef int flag(self, Node* node, int what) except -1:
        cdef uint32_t i
        cdef Dots* dots = &self.state.scratch
        dots.size = 0
        for i in range(node.count):
            if what != FRESH or is_fresh(self.state, node.items[i].dot):
                push_dot(dots, node.items[i].dot)
        return self.dots(dots.data, dots.size)

    cdef int items(self, Node* node, int what) except -1:
        cdef uint32_t i
        wanted = []
        for i in range(node.count):
            if what != FRESH or is_fresh(self.state, node.items[i].dot):
                wanted.append((self.index_of[slot_in(node.items[i].dot)], i))
        append_varint(&self.out, len(wanted))
        for _, i in sorted(wanted):
            self.item(node, &node.items[i])
        return 0

    cdef int item(self, const Node* node, const Item* item) except -1:
        self.dot(item.dot)
        if node.kind == VOTE:
            append(&self.out, &item.incarnation, 8)
            return append_byte(&self.out, item.vote)
        if node.kind == LWWREGISTER:
            append_varint(&self.out, unzigzag(item.time))
            append_varint(&self.out, PyBytes_GET_SIZE(<object>item.value))
            return append(&self.out, PyBytes_AS_STRING(<object>item.value), PyBytes_GET_SIZE(<object>item.value))
        append_large(&self.out, item.plus)
        if node.kind == PNCOUNTER:
            append_large(&self.out, item.minus)
        return 0


cdef list by_identity(State state, slots):
    return [slot for _, slot in sorted([(state.ids[<uint32_t>slot], slot) for slot in slots])]


cdef int put_runs(Buffer* out, const Context* context, uint32_t slot) except -1:
    """A replica's prefix and runs beyond it, as distances."""
    cdef uint64_t end = context.prefix[slot] if slot < context.slots else 0
    cdef uint32_t i, count = 0
    for i in range(context.runs):
        count += slot_in(context.cloud[i].first) == slot
    append_varint(out, end)
    append_varint(out, count)
    for i in range(context.runs):
        if slot_in(context.cloud[i].first) == slot:
            append_varint(out, count_in(context.cloud[i].first) - end - 2)
            append_varint(out, context.cloud[i].last - context.cloud[i].first)
            end = count_in(context.cloud[i].last)
    return 0


# --- deltas ----------------------------------------------------------------------------------------------------------

cdef bytes write_delta(State state):
    """What own changes since the last delta add."""
    cdef Context context
    cdef Writer writer = Writer(state, False)
    memset(&context, 0, sizeof(Context))
    try:
        delta_context(state, &context)
        name_keys(state, state.root, &context)
        return writer.message(&context, False, FRESH)
    finally:
        release_context(&context)


cdef inline bint is_fresh(State state, uint64_t dot) noexcept:
    """Whether it was made here since the last delta."""
    return slot_in(dot) == state.own and count_in(dot) > state.taken


cdef bint has_fresh(State state, const Node* node) noexcept:
    """Whether there is a fresh dot in a node or below."""
    cdef uint64_t single
    cdef const uint64_t* dots
    cdef uint32_t i, j, count = 0
    if node == NULL:
        return False
    for i in range(node.count):
        if is_fresh(state, node.items[i].dot):
            return True
    for i in range(node.touched.size):
        dots = dots_of(node.table, node.touched.data[i], &single, &count)
        for j in range(count):
            if is_fresh(state, dots[j]):
                return True
        if has_fresh(state, child_of(node, node.touched.data[i])):
            return True
    return False


cdef int name_keys(State state, const Node* node, Context* context) except -1:
    """Keys whose own dots were replaced by others', while something below is fresh: they travel with all their dots."""
    cdef uint64_t single
    cdef const uint64_t* dots
    cdef uint32_t i, j, at, count = 0
    cdef bint fresh
    if node.kind != ORMAP:
        return 0
    for i in range(node.touched.size):
        at = node.touched.data[i]
        if not is_used(node.table, at) or child_of(node, at) == NULL:
            continue
        fresh = False
        dots = dots_of(node.table, at, &single, &count)
        for j in range(count):
            fresh = fresh or is_fresh(state, dots[j])
        if not fresh and has_fresh(state, node.children[at]):
            for j in range(count):
                add_dot(context, dots[j])
        name_keys(state, node.children[at], context)
    return 0


cdef list named_entries(State state, const Node* node):
    """Entries with dots as (type URL, bytes, type - 1, number)."""
    cdef uint32_t i
    cdef Element element
    found = []
    for i in range(node.table.used):
        if is_used(node.table, i) and has_dots(node.table.entries[i].dots):
            element_at(node.table, i, &element)
            url = state.urls[element.tag >> 3 if node.kind == ORMAP else element.tag]
            value = PyBytes_FromStringAndSize(<const char*>element.data, element.size)
            found.append((url, value, element.tag & 7 if node.kind == ORMAP else 0, i))
    return found


cdef int delta_context(State state, Context* context) except -1:
    """Dots made and dots covered."""
    cdef Run* runs
    cdef uint32_t i, size = 0
    if state.own_last > state.taken:
        push_dot(&state.covered, packed(state.own, state.taken + 1))
    if state.covered.size:
        qsort(state.covered.data, state.covered.size, sizeof(uint64_t), compare_dots)
        runs = <Run*>resized(NULL, state.covered.size * sizeof(Run))
        for i in range(state.covered.size):
            runs[size] = Run(state.covered.data[i], state.covered.data[i])
            if slot_in(runs[size].first) == state.own and count_in(runs[size].first) == state.taken + 1:
                runs[size].last = packed(state.own, state.own_last)
            size += 1
        try:
            add_runs(context, runs, size)
        finally:
            free(runs)
    for i in range(state.slots):
        if state.gone[i]:
            strip_slot(context, i, 0)
    return 0


cdef int forget_touched(State state, Node* node) except -1:
    """The next delta begins here."""
    cdef uint32_t i, at
    cdef List touched = node.touched
    node.whole = False
    memset(&node.touched, 0, sizeof(List))
    for i in range(touched.size):
        at = touched.data[i]
        if not is_used(node.table, at):
            continue
        node.table.entries[at].dots &= ~TOUCHED
        if child_of(node, at) != NULL:
            forget_touched(state, node.children[at])
        drop_if_unused(state, node, at)
    touched.size = 0
    if touched.room <= 1024 and node.touched.data == NULL:
        node.touched = touched
    else:
        free(touched.data)
    return 0
