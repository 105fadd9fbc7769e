# The lowest part of the transport: memory for nghttp2, header arrays, and the text forms of gRPC over HTTP/2
# (status, percent-encoded message, timeout).

# --- allocator -------------------------------------------------------------------------------------------------------
# nghttp2 allocates and frees several small blocks for every stream and frame. Freed blocks are kept by size class; a
# header of 16 bytes before each block holds its class. All use of nghttp2 happens with the GIL held, so no lock is needed.

cdef enum:
    BLOCK_HEADER = 16
    CLASS_STEP = 32
    CLASSES = 33  # blocks of 0, 32, 64 ... 1024 bytes
    KEPT_BYTES_PER_CLASS = 1 << 20

cdef struct FreeBlock:
    FreeBlock *next

cdef FreeBlock *free_blocks[CLASSES]
cdef size_t free_counts[CLASSES]
memset(free_blocks, 0, sizeof(free_blocks))
memset(free_counts, 0, sizeof(free_counts))


cdef void *allocate(size_t size, void *user_data) noexcept:
    cdef size_t index = (size + CLASS_STEP - 1) // CLASS_STEP
    cdef char *block
    if index < CLASSES:
        if free_blocks[index] is not NULL:
            block = <char *>free_blocks[index]
            free_blocks[index] = free_blocks[index].next
            free_counts[index] -= 1
            return block
        block = <char *>PyMem_RawMalloc(BLOCK_HEADER + index * CLASS_STEP)
    else:
        block = <char *>PyMem_RawMalloc(BLOCK_HEADER + size)
    if block is NULL:
        return NULL
    (<size_t *>block)[0] = size if index >= CLASSES else index
    return block + BLOCK_HEADER


cdef void deallocate(void *pointer, void *user_data) noexcept:
    cdef size_t index
    if pointer is NULL:
        return
    index = (<size_t *>(<char *>pointer - BLOCK_HEADER))[0]
    if 0 < index < CLASSES and free_counts[index] * index * CLASS_STEP < KEPT_BYTES_PER_CLASS:
        (<FreeBlock *>pointer).next = free_blocks[index]
        free_blocks[index] = <FreeBlock *>pointer
        free_counts[index] += 1
    else:
        PyMem_RawFree(<char *>pointer - BLOCK_HEADER)


cdef void *allocate_zeroed(size_t count, size_t size, void *user_data) noexcept:
    cdef void *pointer
    if size and count > (<size_t>-1) // 2 // size:
        return NULL
    pointer = allocate(count * size, user_data)
    if pointer is not NULL:
        memset(pointer, 0, count * size)
    return pointer


cdef void *reallocate(void *pointer, size_t size, void *user_data) noexcept:
    cdef size_t old
    cdef void *moved
    if pointer is NULL:
        return allocate(size, user_data)
    old = (<size_t *>(<char *>pointer - BLOCK_HEADER))[0]
    if old < CLASSES:
        old *= CLASS_STEP
        if size <= old:
            return pointer
    moved = allocate(size, user_data)
    if moved is NULL:
        return NULL
    memcpy(moved, pointer, old if old < size else size)
    deallocate(pointer, user_data)
    return moved


cdef nghttp2_mem memory
memory.mem_user_data = NULL
memory.malloc = allocate
memory.free = deallocate
memory.calloc = allocate_zeroed
memory.realloc = reallocate

# --- header arrays ---------------------------------------------------------------------------------------------------

cdef enum:
    NV_ROOM = 80  # entries of one header block that we send: ours and up to MAX_OWN_HEADERS of the caller
    MAX_OWN_HEADERS = 64
    MAX_OWN_HEADER_BYTES = 32 * 1024  # nghttp2 sends no block of more than 64 KiB
    STATIC = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE
    STATIC_NAME = NGHTTP2_NV_FLAG_NO_COPY_NAME
    FLEETING = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX

cdef struct Block:
    # A header block under construction.
    nghttp2_nv items[NV_ROOM]
    size_t size


cdef inline void put(Block *block, const char *name, size_t name_size, const char *value, size_t size, uint8_t flags) noexcept:
    cdef nghttp2_nv *item = &block.items[block.size]
    item.name = <uint8_t *>name
    item.namelen = name_size
    item.value = <uint8_t *>value
    item.valuelen = size
    item.flags = flags
    block.size += 1


cdef int put_own(Block *block, object headers) except -1:
    """Append the caller's headers, which must outlive the submission. ValueError names the one that cannot be sent."""
    cdef bytes name, value
    cdef Py_ssize_t total = 0
    if len(headers) > MAX_OWN_HEADERS:
        raise ValueError(f"{len(headers)} headers: at most {MAX_OWN_HEADERS} can be sent")
    for name, value in headers:
        if name is None or value is None or name.startswith(b":") or not nghttp2_check_header_name(
            <const uint8_t *>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)
        ):
            raise ValueError(f"header name {name!r} cannot be sent")
        if not nghttp2_check_header_value_rfc9113(<const uint8_t *>PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)):
            raise ValueError(f"value {value!r} of header {name!r} cannot be sent")
        total += PyBytes_GET_SIZE(name) + PyBytes_GET_SIZE(value)
        if total > MAX_OWN_HEADER_BYTES:
            raise ValueError(f"headers of more than {MAX_OWN_HEADER_BYTES} bytes, at {name!r}, cannot be sent")
        put(block, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name), PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), 0)
    return 0


cdef Block OK_HEADERS  # :status 200 and the content type
cdef Block OK_TRAILERS  # grpc-status 0
OK_HEADERS.size = 0
OK_TRAILERS.size = 0
put(&OK_HEADERS, b":status", 7, b"200", 3, STATIC)
put(&OK_HEADERS, b"content-type", 12, b"application/grpc", 16, STATIC)
put(&OK_TRAILERS, b"grpc-status", 11, b"0", 1, STATIC)

# --- status and message ----------------------------------------------------------------------------------------------

cdef enum:
    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16

    MAX_STATUS_MESSAGE = 4096  # bytes of UTF-8; longer ones are cut, for peers bound the size of header blocks

cdef list STATUS_TEXTS = [b"%d" % number for number in range(17)]


cdef bytes encode_status(int status):
    if 0 <= status <= 16:
        return STATUS_TEXTS[status]
    return b"%d" % status


cdef bytes encode_message(str message):
    """Percent-encoding of grpc-message; blanks at either end too, which HTTP/2 does not allow there."""
    cdef bytes raw = message.encode("utf-8", "replace")
    if len(raw) > MAX_STATUS_MESSAGE:
        raw = raw[:MAX_STATUS_MESSAGE].decode("utf-8", "ignore").encode()
    cdef const uint8_t *text = <const uint8_t *>PyBytes_AS_STRING(raw)
    cdef Py_ssize_t i, size = PyBytes_GET_SIZE(raw)
    cdef bint plain = not size or (text[0] != 0x20 and text[size - 1] != 0x20)
    for i in range(size):
        if text[i] < 0x20 or text[i] > 0x7E or text[i] == 0x25:
            plain = False
            break
    if plain:
        return raw
    return percent_encode(text, size)


cdef bytes percent_encode(const uint8_t *text, Py_ssize_t size):
    cdef bytearray encoded = bytearray()
    cdef Py_ssize_t i
    for i in range(size):
        if text[i] < 0x20 or text[i] > 0x7E or text[i] == 0x25 or (text[i] == 0x20 and (i == 0 or i == size - 1)):
            encoded += b"%%%02X" % text[i]
        else:
            encoded.append(text[i])
    return bytes(encoded)


cdef inline int hex_digit(uint8_t c) noexcept:
    if 0x30 <= c <= 0x39:
        return c - 0x30
    if 0x41 <= c <= 0x46:
        return c - 0x37
    if 0x61 <= c <= 0x66:
        return c - 0x57
    return -1


cdef str decode_message(bytes raw):
    """The reverse; what is not well encoded stays as it is."""
    if raw is None:
        return ""
    if b"%" not in raw:
        return raw.decode("utf-8", "replace")
    cdef const uint8_t *text = <const uint8_t *>PyBytes_AS_STRING(raw)
    cdef Py_ssize_t i = 0, size = PyBytes_GET_SIZE(raw)
    cdef bytearray decoded = bytearray()
    while i < size:
        if text[i] == 0x25 and i + 2 < size and hex_digit(text[i + 1]) >= 0 and hex_digit(text[i + 2]) >= 0:
            decoded.append(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]))
            i += 3
        else:
            decoded.append(text[i])
            i += 1
    return decoded.decode("utf-8", "replace")


cdef int parse_number(const uint8_t *text, Py_ssize_t size) noexcept:
    """A decimal number of up to nine digits; -1 if it is none."""
    cdef int number = 0
    cdef Py_ssize_t i
    if size < 1 or size > 9:
        return -1
    for i in range(size):
        if text[i] < 0x30 or text[i] > 0x39:
            return -1
        number = number * 10 + (text[i] - 0x30)
    return number


cdef double parse_timeout(const uint8_t *text, Py_ssize_t size) noexcept:
    """Seconds of a grpc-timeout; -1.0 if it is malformed."""
    cdef int number
    if size < 2 or size > 9:
        return -1.0
    number = parse_number(text, size - 1)
    if number < 0:
        return -1.0
    if text[size - 1] == 0x6D:  # m
        return number * 1e-3
    if text[size - 1] == 0x75:  # u
        return number * 1e-6
    if text[size - 1] == 0x6E:  # n
        return number * 1e-9
    if text[size - 1] == 0x53:  # S
        return number
    if text[size - 1] == 0x4D:  # M
        return number * 60.0
    if text[size - 1] == 0x48:  # H
        return number * 3600.0
    return -1.0


cdef bytes encode_timeout(double seconds):
    """The finest unit in which the number has at most eight digits."""
    if seconds < 99.0:
        return b"%du" % <int64_t>ceil(seconds * 1e6)
    if seconds < 99_999.0:
        return b"%dm" % <int64_t>ceil(seconds * 1e3)
    if seconds < 99_999_999.0:
        return b"%dS" % <int64_t>ceil(seconds)
    return b"99999999H"


cdef int status_of_http(int http_status) noexcept:
    """doc/http-grpc-status-mapping.md of gRPC."""
    if http_status == 400:
        return INTERNAL
    if http_status == 401:
        return UNAUTHENTICATED
    if http_status == 403:
        return PERMISSION_DENIED
    if http_status == 404:
        return UNIMPLEMENTED
    if http_status == 429 or http_status == 502 or http_status == 503 or http_status == 504:
        return UNAVAILABLE
    return UNKNOWN


cdef int status_of_reset(uint32_t error_code) noexcept:
    """The table "Errors" of gRPC over HTTP/2."""
    if error_code == NGHTTP2_REFUSED_STREAM:
        return UNAVAILABLE
    if error_code == NGHTTP2_CANCEL:
        return CANCELLED
    if error_code == NGHTTP2_ENHANCE_YOUR_CALM:
        return RESOURCE_EXHAUSTED
    if error_code == NGHTTP2_INADEQUATE_SECURITY:
        return PERMISSION_DENIED
    return INTERNAL
