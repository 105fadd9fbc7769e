# Causal contexts: which dots were ever seen. Part of crdt.pyx.

cdef inline uint64_t packed(uint32_t slot, uint64_t n) noexcept nogil:
    return <uint64_t>slot << 48 | n


cdef inline uint32_t slot_in(uint64_t dot) noexcept nogil:
    return <uint32_t>(dot >> 48)


cdef inline uint64_t count_in(uint64_t dot) noexcept nogil:
    return dot & ENDLESS


cdef inline bint contains(const Context* context, uint64_t dot) noexcept nogil:
    cdef uint32_t slot = slot_in(dot)
    if slot < context.slots and count_in(dot) <= context.prefix[slot]:
        return True
    return context.runs != 0 and in_cloud(context, dot)


cdef bint in_cloud(const Context* context, uint64_t dot) noexcept nogil:
    cdef uint32_t low = 0
    cdef uint32_t high = context.runs
    cdef uint32_t middle
    while low < high:
        middle = (low + high) >> 1
        if context.cloud[middle].last < dot:
            low = middle + 1
        else:
            high = middle
    return low < context.runs and context.cloud[low].first <= dot


cdef int widen(Context* context, uint32_t slots) except -1:
    """Room for so many replicas."""
    if slots > context.slots:
        context.prefix = <uint64_t*>resized(context.prefix, slots * sizeof(uint64_t))
        memset(context.prefix + context.slots, 0, (slots - context.slots) * sizeof(uint64_t))
        context.slots = slots
    return 0


cdef int add_dot(Context* context, uint64_t dot) except -1:
    cdef uint32_t slot = slot_in(dot)
    widen(context, slot + 1)
    if context.runs == 0 and count_in(dot) == context.prefix[slot] + 1:
        context.prefix[slot] += 1
        return 0
    if contains(context, dot):
        return 0
    cdef Run run = Run(dot, dot)
    return add_runs(context, &run, 1)


cdef int add_runs(Context* context, const Run* runs, uint32_t count) except -1:
    """Join with ascending runs; O(runs of both)."""
    cdef uint32_t total = context.runs + count
    if total == 0:
        return 0
    cdef Run* joined = <Run*>resized(NULL, total * sizeof(Run))
    cdef uint32_t i = 0, j = 0, size = 0
    cdef Run run
    while i < context.runs or j < count:
        if j == count or (i < context.runs and context.cloud[i].first <= runs[j].first):
            run = context.cloud[i]
            i += 1
        else:
            run = runs[j]
            j += 1
        if size and joined[size - 1].last + 1 >= run.first:
            joined[size - 1].last = max(joined[size - 1].last, run.last)
        else:
            joined[size] = run
            size += 1
    free(context.cloud)
    context.cloud = joined
    context.room = total
    context.runs = size
    return compact(context)


cdef int compact(Context* context) except -1:
    """Runs that continue a prefix become part of it."""
    cdef uint32_t i, slot, kept = 0
    cdef Run run
    for i in range(context.runs):
        run = context.cloud[i]
        slot = slot_in(run.first)
        widen(context, slot + 1)
        if count_in(run.first) <= context.prefix[slot] + 1:
            context.prefix[slot] = max(context.prefix[slot], count_in(run.last))
        else:
            context.cloud[kept] = run
            kept += 1
    context.runs = kept
    return 0


cdef int unite(Context* context, const Context* other) except -1:
    cdef uint32_t slot
    widen(context, other.slots)
    for slot in range(other.slots):
        context.prefix[slot] = max(context.prefix[slot], other.prefix[slot])
    if other.runs:
        return add_runs(context, other.cloud, other.runs)
    return compact(context) if context.runs else 0


cdef int copy_context(Context* target, const Context* source) except -1:
    widen(target, source.slots)
    if target.slots:
        memset(target.prefix, 0, target.slots * sizeof(uint64_t))
    if source.slots:
        memcpy(target.prefix, source.prefix, source.slots * sizeof(uint64_t))
    if source.runs > target.room:
        target.cloud = <Run*>resized(target.cloud, source.runs * sizeof(Run))
        target.room = source.runs
    if source.runs:
        memcpy(target.cloud, source.cloud, source.runs * sizeof(Run))
    target.runs = source.runs
    return 0


cdef bint same_context(const Context* a, const Context* b) noexcept nogil:
    cdef uint32_t slot
    if a.runs != b.runs or (a.runs and memcmp(a.cloud, b.cloud, a.runs * sizeof(Run)) != 0):
        return False
    for slot in range(max(a.slots, b.slots)):
        if (a.prefix[slot] if slot < a.slots else 0) != (b.prefix[slot] if slot < b.slots else 0):
            return False
    return True


cdef uint64_t last_of(const Context* context, uint32_t slot) noexcept nogil:
    """The largest n seen of a replica."""
    cdef uint64_t last = context.prefix[slot] if slot < context.slots else 0
    cdef uint32_t i
    for i in range(context.runs):
        if slot_in(context.cloud[i].last) == slot:
            last = max(last, count_in(context.cloud[i].last))
    return last


cdef uint64_t cloud_size(const Context* context) noexcept nogil:
    cdef uint64_t size = 0
    cdef uint32_t i
    for i in range(context.runs):
        size += context.cloud[i].last - context.cloud[i].first + 1
    return size


cdef void strip_slot(Context* context, uint32_t slot, uint64_t prefix) noexcept nogil:
    """What was seen of a replica is from now on: so much, and nothing beyond."""
    cdef uint32_t i, kept = 0
    if slot < context.slots:
        context.prefix[slot] = prefix
    for i in range(context.runs):
        if slot_in(context.cloud[i].first) != slot:
            context.cloud[kept] = context.cloud[i]
            kept += 1
    context.runs = kept


cdef void release_context(Context* context) noexcept:
    free(context.prefix)
    free(context.cloud)
    memset(context, 0, sizeof(Context))
