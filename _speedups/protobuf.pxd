"""The protobuf wire format in C: fields read from and written to plain memory (protobuf.dev, "Encoding").

Below everything in `wire` and below any other kernel that meets serialized messages. Nothing here touches a Python
object. Readers give the position after what was read, or NULL with the reason in the `Reader`; they refuse what
protobuf's C runtime refuses. Writers give the position after what was written; the caller has summed up the `*_size`
functions before.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum WireType:
    VARINT = 0
    I64 = 1
    LEN = 2
    START_GROUP = 3
    END_GROUP = 4
    I32 = 5

cdef enum:
    MAX_NESTED_GROUPS = 100
    MAX_FIELD_NUMBER = 536870911
    MAX_MESSAGE_SIZE = 2147483647

cdef struct Reader:
    const uint8_t* start  # of the outermost message
    bint groups  # whether unknown groups are skipped; otherwise they are errors
    const char* error  # after NULL: what was wrong
    const uint8_t* where  # after NULL: where

cdef struct Field:
    uint32_t tag  # field number << 3 | wire type
    uint64_t value  # of VARINT, I64 and I32
    const uint8_t* data  # of LEN
    Py_ssize_t size  # of LEN


cdef inline const uint8_t* refuse(Reader* reader, const char* error, const uint8_t* where) noexcept nogil:
    reader.error = error
    reader.where = where
    return NULL


# --- reading ---------------------------------------------------------------------------------------------------------

cdef inline const uint8_t* read_field(
    Reader* reader, const uint8_t* p, const uint8_t* end, Field* field
) noexcept nogil:
    """The field at `p`, known or not. Needs p < end."""
    cdef const uint8_t* at = p
    field.value = 0
    field.data = NULL
    field.size = 0
    p = read_tag(reader, p, end, &field.tag)
    if p == NULL:
        return NULL
    cdef uint32_t wire_type = field.tag & 7
    if wire_type == LEN:
        return read_length_delimited(reader, p, end, field)
    if wire_type == VARINT:
        return read_varint(reader, p, end, &field.value)
    if wire_type == I64:
        return read_fixed(reader, p, end, 8, &field.value)
    if wire_type == I32:
        return read_fixed(reader, p, end, 4, &field.value)
    if wire_type == START_GROUP:
        if not reader.groups:
            return refuse(reader, b"group", at)
        return skip_group(reader, p, end, field.tag)
    if wire_type == END_GROUP:
        return refuse(reader, b"end of a group that was not begun", at)
    return refuse(reader, b"unknown wire type", at)


cdef inline const uint8_t* read_tag(Reader* reader, const uint8_t* p, const uint8_t* end, uint32_t* tag) noexcept nogil:
    """Field number and wire type: a varint of 32 bits in at most 5 bytes."""
    cdef uint64_t value = 0
    cdef const uint8_t* at = p
    p = read_short_varint(reader, p, end, &value)
    if p == NULL:
        return NULL
    if value < 8:
        return refuse(reader, b"field number 0", at)
    if value > 0xFFFFFFFFu:
        return refuse(reader, b"field number too large", at)
    tag[0] = <uint32_t>value
    return p


cdef inline const uint8_t* read_length_delimited(
    Reader* reader, const uint8_t* p, const uint8_t* end, Field* field
) noexcept nogil:
    cdef uint64_t size = 0
    cdef const uint8_t* at = p
    p = read_short_varint(reader, p, end, &size)
    if p == NULL:
        return NULL
    if size > <uint64_t>(end - p):
        return refuse(reader, b"truncated: length beyond the end", at)
    field.data = p
    field.size = <Py_ssize_t>size
    return p + size


cdef inline const uint8_t* read_varint(
    Reader* reader, const uint8_t* p, const uint8_t* end, uint64_t* value
) noexcept nogil:
    """Up to 10 bytes; bits above the 64th are dropped."""
    if p < end and p[0] < 0x80:
        value[0] = p[0]
        return p + 1
    return read_long_varint(reader, p, end, value, 10)


cdef inline const uint8_t* read_short_varint(
    Reader* reader, const uint8_t* p, const uint8_t* end, uint64_t* value
) noexcept nogil:
    """Up to 5 bytes: tags and lengths."""
    if p < end and p[0] < 0x80:
        value[0] = p[0]
        return p + 1
    return read_long_varint(reader, p, end, value, 5)


cdef inline const uint8_t* read_long_varint(
    Reader* reader, const uint8_t* p, const uint8_t* end, uint64_t* value, int max_bytes
) noexcept nogil:
    cdef const uint8_t* at = p
    cdef uint64_t result = 0
    cdef int shift = 0
    while shift < 7 * max_bytes:
        if p >= end:
            return refuse(reader, b"truncated varint", at)
        result |= <uint64_t>(p[0] & 0x7F) << shift
        if p[0] < 0x80:
            value[0] = result
            return p + 1
        p += 1
        shift += 7
    return refuse(reader, b"varint too long", at)


cdef inline const uint8_t* read_fixed(
    Reader* reader, const uint8_t* p, const uint8_t* end, int size, uint64_t* value
) noexcept nogil:
    """Little-endian, 4 or 8 bytes."""
    if end - p < size:
        return refuse(reader, b"truncated fixed-size value", p)
    cdef uint64_t result = 0
    cdef int i
    for i in range(size):
        result |= <uint64_t>p[i] << (8 * i)
    value[0] = result
    return p + size


cdef inline const uint8_t* skip_group(
    Reader* reader, const uint8_t* p, const uint8_t* end, uint32_t start_tag
) noexcept nogil:
    """Behind the end of the group that `start_tag` began, and of all groups in it."""
    cdef uint32_t[MAX_NESTED_GROUPS] open_groups
    cdef const uint8_t* at = p
    cdef Field field
    cdef int depth = 1
    open_groups[0] = start_tag
    while depth > 0:
        if p >= end:
            return refuse(reader, b"truncated group", at)
        at = p
        p = read_tag(reader, p, end, &field.tag)
        if p == NULL:
            return NULL
        if field.tag & 7 == START_GROUP:
            if depth == MAX_NESTED_GROUPS:
                return refuse(reader, b"groups nested too deeply", at)
            open_groups[depth] = field.tag
            depth += 1
        elif field.tag & 7 == END_GROUP:
            depth -= 1
            if field.tag >> 3 != open_groups[depth] >> 3:
                return refuse(reader, b"end of another group", at)
        else:
            p = read_field(reader, at, end, &field)
            if p == NULL:
                return NULL
    return p


cdef inline bint is_ascii(const uint8_t* p, Py_ssize_t size) noexcept nogil:
    cdef uint64_t bits = 0
    cdef uint64_t word = 0
    cdef Py_ssize_t i = 0
    while i + 8 <= size:
        memcpy(&word, p + i, 8)
        bits |= word
        i += 8
    while i < size:
        bits |= p[i]
        i += 1
    return bits & 0x8080808080808080u == 0


cdef inline int64_t zigzag(uint64_t value) noexcept nogil:
    """A number of type sint64 from its varint."""
    return <int64_t>((value >> 1) ^ (0 - (value & 1)))


cdef inline int32_t zigzag32(uint64_t value) noexcept nogil:
    """A number of type sint32 from its varint."""
    cdef uint32_t low = <uint32_t>value
    return <int32_t>((low >> 1) ^ (0 - (low & 1)))


# --- sizes; every tag here has one byte, that is, field numbers up to 15 ---------------------------------------------

cdef inline Py_ssize_t varint_size(uint64_t value) noexcept nogil:
    cdef Py_ssize_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline Py_ssize_t int64_size(int64_t value) noexcept nogil:
    """Of a field; 0 for the default, which is not written."""
    return 1 + varint_size(<uint64_t>value) if value != 0 else 0


cdef inline Py_ssize_t field_size(Py_ssize_t size) noexcept nogil:
    """Of a length-delimited field with `size` bytes in it."""
    return 1 + varint_size(<uint64_t>size) + size


cdef inline Py_ssize_t text_size(Py_ssize_t size) noexcept nogil:
    """Of a string or bytes field; 0 for the empty default, which is not written."""
    return field_size(size) if size != 0 else 0


# --- writing ---------------------------------------------------------------------------------------------------------

cdef inline uint8_t* put_varint(uint8_t* p, uint64_t value) noexcept nogil:
    while value >= 0x80:
        p[0] = <uint8_t>(value | 0x80)
        value >>= 7
        p += 1
    p[0] = <uint8_t>value
    return p + 1


cdef inline uint8_t* put_int64(uint8_t* p, uint8_t number, int64_t value) noexcept nogil:
    if value == 0:
        return p
    p[0] = <uint8_t>(number << 3 | VARINT)
    return put_varint(p + 1, <uint64_t>value)


cdef inline uint8_t* put_length(uint8_t* p, uint8_t number, Py_ssize_t size) noexcept nogil:
    """Head of a length-delimited field; its `size` bytes have to follow."""
    p[0] = <uint8_t>(number << 3 | LEN)
    return put_varint(p + 1, <uint64_t>size)


cdef inline uint8_t* put_raw(uint8_t* p, const void* data, Py_ssize_t size) noexcept nogil:
    memcpy(p, data, <size_t>size)
    return p + size


cdef inline uint8_t* put_field(uint8_t* p, uint8_t number, const void* data, Py_ssize_t size) noexcept nogil:
    return put_raw(put_length(p, number, size), data, size)


cdef inline uint8_t* put_text(uint8_t* p, uint8_t number, const void* data, Py_ssize_t size) noexcept nogil:
    """String or bytes; the empty default is not written."""
    return put_field(p, number, data, size) if size != 0 else p
