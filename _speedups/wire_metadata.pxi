# Part of wire.pyx: cloudstate.Metadata from the headers of a client's request, and the headers of its response from
# Metadata. Binary values are base64 in headers, under names that end in -bin (gRPC over HTTP/2, "Custom-Metadata").

cdef enum:
    LONGEST_RESERVED = 20

# Names that are the transport's own: in requests, and those that a user function cannot set in responses.
cdef frozenset NOT_METADATA = frozenset({
    b"content-type", b"content-length", b"te", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding",
    b"grpc-status", b"grpc-message",
})
cdef frozenset NOT_IN_RESPONSES = NOT_METADATA | {
    b"transfer-encoding", b"date", b"server", b"connection", b"keep-alive", b"proxy-connection", b"upgrade",
}
assert max(map(len, NOT_IN_RESPONSES)) == LONGEST_RESERVED

cdef bytes BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
cdef bytes TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
cdef uint8_t[256] sextets  # of the characters of BASE64
cdef uint8_t[256] in_names  # the lower-case form of what header names may hold, 0 for everything else


cdef int fill_tables() except -1:
    cdef int i
    for i in range(256):
        sextets[i] = <uint8_t>(<int>BASE64.find(i))  # 0xFF for all others
        in_names[i] = <uint8_t>i if i in TOKEN else 0
    for i in range(ord("A"), ord("Z") + 1):
        in_names[i] = <uint8_t>(i + 32)
    return 0


fill_tables()


# --- Metadata of headers ---------------------------------------------------------------------------------------------

cdef struct Bytes:
    const uint8_t* data
    Py_ssize_t size


cpdef bytes metadata_of_headers(object headers):
    cdef object items = PySequence_Fast(headers, b"headers must be a sequence of pairs of bytes")
    cdef Py_ssize_t count = PySequence_Fast_GET_SIZE(items)
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t i
    cdef list kept = []
    for i in range(count):
        header = checked_header(<object>PySequence_Fast_GET_ITEM(items, i))
        if is_metadata(<bytes>header[0]):
            kept.append(header)
            total += entries_size(header)
    if not kept:
        return None
    cdef bytes out = new_message(total)
    cdef uint8_t* p = start_of(out)
    for header in kept:
        p = put_entries(p, <tuple>header)
    return finished(out, p)


cdef inline tuple checked_header(object header):
    if type(header) is tuple and len(<tuple>header) == 2:
        if PyBytes_Check((<tuple>header)[0]) and PyBytes_Check((<tuple>header)[1]):
            return header
    raise TypeError("headers must be a sequence of pairs of bytes")


cdef inline bint is_metadata(bytes name) except -1:
    if len(name) > 0 and name[0] == c":":
        return False
    return len(name) > LONGEST_RESERVED or lower_case(name) not in NOT_METADATA


cdef inline bytes lower_case(bytes name):
    """As headers of HTTP/2 are already; those of HTTP/1.1 may not be."""
    cdef const uint8_t* p = start_of(name)
    cdef Py_ssize_t i
    for i in range(len(name)):
        if c"A" <= p[i] <= c"Z":
            return name.lower()
    return name


cdef Py_ssize_t entries_size(tuple header) except -1:
    """Of the entries that a header becomes: one, or as many as it has binary values."""
    cdef Bytes name = memory(<bytes>header[0])
    cdef Bytes rest = memory(<bytes>header[1])
    cdef Bytes part
    cdef Py_ssize_t size = 0
    if not is_binary(&name, &rest):
        return field_size(entry_size(&name, utf8_size(&rest)))
    while rest.data != NULL:
        part = next_part(&rest)
        size += field_size(entry_size(&name, decoded_size(&part)))
    return size


cdef uint8_t* put_entries(uint8_t* p, tuple header) except NULL:
    cdef Bytes name = memory(<bytes>header[0])
    cdef Bytes rest = memory(<bytes>header[1])
    cdef Bytes part
    if not is_binary(&name, &rest):
        p = put_entry(p, &name, 2, utf8_size(&rest))
        return put_utf8(p, &rest)
    while rest.data != NULL:
        part = next_part(&rest)
        p = put_entry(p, &name, 3, decoded_size(&part))
        p = put_decoded(p, &part)
    return p


cdef inline Bytes memory(bytes data) noexcept:
    cdef Bytes found
    found.data = start_of(data)
    found.size = PyBytes_GET_SIZE(data)
    return found


cdef inline Py_ssize_t entry_size(Bytes* name, Py_ssize_t value_size) noexcept nogil:
    return text_size(utf8_size(name)) + field_size(value_size)


cdef inline uint8_t* put_entry(uint8_t* p, Bytes* name, uint8_t member, Py_ssize_t value_size) noexcept nogil:
    """A MetadataEntry up to its value."""
    p = put_length(p, 1, entry_size(name, value_size))
    if name.size > 0:
        p = put_length(p, 1, utf8_size(name))
        p = put_utf8(p, name)
    return put_length(p, member, value_size)


cdef inline bint is_binary(Bytes* name, Bytes* value) noexcept nogil:
    """Whether the name says that the values are base64, and all of them are."""
    cdef Bytes rest = value[0]
    cdef Bytes part
    if not names_binary(name.data, name.size):
        return False
    while rest.data != NULL:
        part = next_part(&rest)
        if not is_base64(&part):
            return False
    return True


cdef inline bint names_binary(const uint8_t* name, Py_ssize_t size) noexcept nogil:
    if size < 4 or name[size - 4] != c"-":
        return False
    return name[size - 3] | 32 == c"b" and name[size - 2] | 32 == c"i" and name[size - 1] | 32 == c"n"


# --- base64 ----------------------------------------------------------------------------------------------------------

cdef Bytes next_part(Bytes* rest) noexcept nogil:
    """The value before the next comma, without blanks and padding; `rest` becomes what follows, NULL after the last."""
    cdef Bytes part
    cdef const uint8_t* comma = <const uint8_t*>memchr(rest.data, c",", <size_t>rest.size)
    part.data = rest.data
    part.size = comma - rest.data if comma != NULL else rest.size
    rest.size -= part.size + 1
    rest.data = comma + 1 if comma != NULL else NULL
    while part.size > 0 and part.data[0] == c" ":
        part.data += 1
        part.size -= 1
    while part.size > 0 and part.data[part.size - 1] == c" ":
        part.size -= 1
    if part.size % 4 == 0:
        strip_padding(&part)
    return part


cdef inline void strip_padding(Bytes* part) noexcept nogil:
    cdef int i
    for i in range(2):
        if part.size > 0 and part.data[part.size - 1] == c"=":
            part.size -= 1


cdef inline bint is_base64(Bytes* part) noexcept nogil:
    cdef Py_ssize_t i
    cdef uint8_t wrong = 0
    for i in range(part.size):
        wrong |= sextets[part.data[i]]
    return wrong < 64 and part.size % 4 != 1


cdef inline Py_ssize_t decoded_size(Bytes* part) noexcept nogil:
    return part.size // 4 * 3 + part.size % 4 * 3 // 4


cdef uint8_t* put_decoded(uint8_t* p, Bytes* part) noexcept nogil:
    cdef uint32_t bits = 0
    cdef int count = 0
    cdef Py_ssize_t i
    for i in range(part.size):
        bits = bits << 6 | sextets[part.data[i]]
        count += 6
        if count >= 8:
            count -= 8
            p[0] = <uint8_t>(bits >> count)
            p += 1
    return p


cdef bytes base64_of(Field* value):
    """Without padding, as gRPC wants it."""
    cdef const uint8_t* alphabet = <const uint8_t*>BASE64
    cdef Py_ssize_t left = value.size % 3
    cdef bytes out = new_message(value.size // 3 * 4 + (left + 1 if left else 0))
    cdef uint8_t* p = start_of(out)
    cdef uint32_t bits = 0
    cdef int count = 0
    cdef Py_ssize_t i
    for i in range(value.size):
        bits = bits << 8 | value.data[i]
        count += 8
        while count >= 6:
            count -= 6
            p[0] = alphabet[bits >> count & 63]
            p += 1
    if count > 0:
        p[0] = alphabet[bits << (6 - count) & 63]
        p += 1
    return finished(out, p)


# --- text ------------------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t utf8_size(Bytes* text) noexcept nogil:
    """As UTF-8; Latin-1 grows by a byte for every character outside ASCII."""
    cdef Py_ssize_t size = text.size
    cdef Py_ssize_t i
    if is_utf8(text):
        return size
    for i in range(text.size):
        size += text.data[i] >> 7
    return size


cdef inline uint8_t* put_utf8(uint8_t* p, Bytes* text) noexcept nogil:
    cdef Py_ssize_t i
    if is_utf8(text):
        return put_raw(p, text.data, text.size)
    for i in range(text.size):
        if text.data[i] < 0x80:
            p[0] = text.data[i]
            p += 1
        else:
            p[0] = 0xC0 | text.data[i] >> 6
            p[1] = 0x80 | text.data[i] & 0x3F
            p += 2
    return p


cdef inline bint is_utf8(Bytes* text) noexcept nogil:
    return is_ascii(text.data, text.size) or is_long_utf8(text.data, text.data + text.size)


cdef bint is_long_utf8(const uint8_t* p, const uint8_t* end) noexcept nogil:
    """By table 3-7 of the Unicode standard: no overlong forms, no surrogates, nothing beyond U+10FFFF."""
    cdef int following
    while p < end:
        following = continuation_bytes(p[0])
        if following < 0 or end - p <= following:
            return False
        if following > 0 and not allowed_second(p[0], p[1]):
            return False
        p += 1
        while following > 0:
            if p[0] & 0xC0 != 0x80:
                return False
            p += 1
            following -= 1
    return True


cdef inline int continuation_bytes(uint8_t first) noexcept nogil:
    if first < 0x80:
        return 0
    if first < 0xC2 or first > 0xF4:
        return -1
    return 1 if first < 0xE0 else 2 if first < 0xF0 else 3


cdef inline bint allowed_second(uint8_t first, uint8_t second) noexcept nogil:
    if first == 0xE0:
        return second >= 0xA0
    if first == 0xED:
        return second < 0xA0
    if first == 0xF0:
        return second >= 0x90
    if first == 0xF4:
        return second < 0x90
    return True


# --- headers of Metadata ---------------------------------------------------------------------------------------------

cpdef list headers_of_metadata(bytes metadata):
    cdef Reader reader
    cdef Field field
    cdef const uint8_t* p = begin(&reader, metadata)
    cdef const uint8_t* end = p + len(metadata)
    cdef list headers = []
    while p < end:
        p = next_field(&reader, p, end, &field, b"Metadata")
        if field.tag == LEN_1:
            add_header(&reader, &field, headers)
    return headers


cdef int add_header(Reader* reader, Field* entry, list headers) except -1:
    cdef Field key
    cdef Field value
    scan_entry(reader, entry, &key, &value)
    cdef bytes name = header_name(&key)
    if name is None or name in NOT_IN_RESPONSES:
        return 0
    if value.tag == LEN_3:
        headers.append((name if names_binary(start_of(name), len(name)) else name + b"-bin", base64_of(&value)))
    elif value.tag == LEN_2 and is_header_value(&value):
        headers.append((name, content(&value)))
    return 0


cdef int scan_entry(Reader* reader, Field* entry, Field* key, Field* value) except -1:
    """Of several values the last one counts, its tag says which it is; an entry without any leaves the tag at 0."""
    cdef Field field
    cdef const uint8_t* p = entry.data
    cdef const uint8_t* end = p + entry.size
    key.size = value.size = 0
    key.data = value.data = NULL
    value.tag = 0
    while p < end:
        p = next_field(reader, p, end, &field, b"MetadataEntry")
        if field.tag == LEN_1:
            check_utf8(reader, &field, b"MetadataEntry.key")
            key[0] = field
        elif field.tag == LEN_2:
            check_utf8(reader, &field, b"MetadataEntry.string_value")
            value[0] = field
        elif field.tag == LEN_3:
            value[0] = field
    return 0


cdef bytes header_name(Field* key):
    """In lower case; None when it cannot be a name of HTTP/2 (RFC 9113, 8.2.1) or is a pseudo header."""
    cdef Py_ssize_t i
    cdef bytes name = new_message(key.size)
    cdef uint8_t* p = start_of(name)
    for i in range(key.size):
        p[i] = in_names[key.data[i]]
        if p[i] == 0:
            return None
    return name if key.size > 0 else None


cdef bint is_header_value(Field* value) noexcept nogil:
    """No control characters but tabs, no blanks at either end (RFC 9113, 8.2.1, and RFC 9110, 5.5)."""
    cdef Py_ssize_t i
    cdef uint8_t byte
    for i in range(value.size):
        byte = value.data[i]
        if byte < 32 and byte != c"\t" or byte == 127:
            return False
    return value.size == 0 or not (is_blank(value.data[0]) or is_blank(value.data[value.size - 1]))


cdef inline bint is_blank(uint8_t byte) noexcept nogil:
    return byte == c" " or byte == c"\t"
