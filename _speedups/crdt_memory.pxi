# Memory that grows: bytes, lists of entries, lists of dots. Part of crdt.pyx.

cdef inline size_t grown(size_t room, size_t needed) noexcept nogil:
    """Doubling while small; large ones by a quarter, as their pages are the cost."""
    cdef size_t more = room * 2 if room < 65536 else room + room // 4
    if more < 8:
        more = 8
    return more if more > needed else needed


cdef inline void* resized(void* data, size_t size) except NULL:
    cdef void* moved = realloc(data, size)
    if moved == NULL:
        raise MemoryError()
    return moved


cdef inline int reserve(Buffer* buffer, size_t more) except -1:
    if buffer.size + more > buffer.room:
        buffer.room = grown(buffer.room, buffer.size + more)
        buffer.data = <uint8_t*>resized(buffer.data, buffer.room)
    return 0


cdef inline int append(Buffer* buffer, const void* data, size_t size) except -1:
    reserve(buffer, size)
    memcpy(buffer.data + buffer.size, data, size)
    buffer.size += size
    return 0


cdef inline int append_byte(Buffer* buffer, uint8_t value) except -1:
    reserve(buffer, 1)
    buffer.data[buffer.size] = value
    buffer.size += 1
    return 0


cdef inline int append_varint(Buffer* buffer, uint64_t value) except -1:
    reserve(buffer, 10)
    buffer.size = put_varint(buffer.data + buffer.size, value) - buffer.data
    return 0


cdef inline int append_large(Buffer* buffer, u128 value) except -1:
    """A varint of up to 128 bits."""
    reserve(buffer, 19)
    while value >= 0x80:
        buffer.data[buffer.size] = <uint8_t>(<uint64_t>value | 0x80)
        buffer.size += 1
        value = value >> 7
    buffer.data[buffer.size] = <uint8_t>value
    buffer.size += 1
    return 0


cdef int insert_length(Buffer* buffer, size_t start) except -1:
    """The length of what was written from `start`, before it."""
    cdef size_t size = buffer.size - start
    cdef size_t head = varint_size(size)
    reserve(buffer, head)
    memmove(buffer.data + start + head, buffer.data + start, size)
    put_varint(buffer.data + start, size)
    buffer.size += head
    return 0


cdef bytes taken_from(Buffer* buffer):
    """The content as bytes; the buffer is released."""
    try:
        return PyBytes_FromStringAndSize(<char*>buffer.data, <Py_ssize_t>buffer.size)
    finally:
        release(buffer)


cdef inline void release(Buffer* buffer) noexcept:
    free(buffer.data)
    buffer.data = NULL
    buffer.size = buffer.room = 0


cdef inline int push(List* items, uint32_t value) except -1:
    if items.size == items.room:
        items.room = <uint32_t>grown(items.room, items.size + 1)
        items.data = <uint32_t*>resized(items.data, items.room * sizeof(uint32_t))
    items.data[items.size] = value
    items.size += 1
    return 0


cdef inline void empty(List* items) noexcept:
    """Without entries, and without their memory if it was much."""
    items.size = 0
    if items.room > 64:
        free(items.data)
        items.data = NULL
        items.room = 0


cdef inline int push_dot(Dots* dots, uint64_t dot) except -1:
    if dots.size == dots.room:
        dots.room = <uint32_t>grown(dots.room, dots.size + 1)
        dots.data = <uint64_t*>resized(dots.data, dots.room * sizeof(uint64_t))
    dots.data[dots.size] = dot
    dots.size += 1
    return 0


cdef inline void release_dots(Dots* dots) noexcept:
    free(dots.data)
    dots.data = NULL
    dots.size = dots.room = 0


cdef inline bint among(uint64_t dot, const uint64_t* dots, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        if dots[i] == dot:
            return True
    return False


cdef int compare_dots(const void* a, const void* b) noexcept nogil:
    cdef uint64_t first = (<const uint64_t*>a)[0]
    cdef uint64_t second = (<const uint64_t*>b)[0]
    return (first > second) - (first < second)
