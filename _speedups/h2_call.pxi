# One gRPC call. Outgoing messages wait in a queue of chunks from which nghttp2's DATA frames are filled; incoming DATA is cut
# into messages and told to the handler, or held back while the handler has paused the call.

cdef enum:
    ENCODING_IDENTITY = 0
    ENCODING_GZIP = 1
    ENCODING_UNKNOWN = 2

    FIRST_BUILDING = 64 * 1024  # a longer message grows as it comes, so that announcing one costs its sender as much


@cython.freelist(4096)
cdef class Call:
    def __cinit__(self):
        global live_calls
        live_calls += 1
        self.chunks = self.inline_chunks
        self.chunk_room = INLINE_CHUNKS
        self.timer.owner = <void *>self
        self.timer.of_call = True

    def __init__(self):
        raise TypeError("calls are made by Server and Channel")

    def __dealloc__(self):
        global live_calls
        live_calls -= 1
        self.drop_queue()
        if self.building is not NULL:
            Py_DECREF(<object>self.building)
        if self.held is not NULL:
            free_queue(self.held)

    @property
    def headers(self):
        return [] if self.kept_headers is None else self.kept_headers

    @property
    def trailers(self):
        return [] if self.kept_trailers is None else self.kept_trailers

    # --- sending ---

    cpdef bint send(self, bytes message) except -1:
        return self.queue(message, False)

    cpdef bint send_framed(self, bytes data) except -1:
        return self.queue(data, True)

    cdef bint queue(self, bytes data, bint framed) except -1:
        if self.ended or self.closing:
            return True
        self.push(data, framed)
        self.wake()
        if self.queued_bytes > self.conn.limits.send_high_water:
            self.blocked = True
            return False
        return True

    cdef int push(self, bytes data, bint framed) except -1:
        cdef Py_ssize_t size = len(data)
        cdef Chunk *chunk
        if framed and size == 0:
            return 0
        if size > 0xFFFFFFFF:
            raise ValueError(f"a message of {size} bytes does not fit gRPC's length prefix")
        if self.chunk_first + self.chunk_count == self.chunk_room:
            make_room(self)
        chunk = &self.chunks[self.chunk_first + self.chunk_count]
        Py_INCREF(data)
        chunk.data = <void *>data
        chunk.framed = framed
        self.chunk_count += 1
        if not framed:
            size += 5
        self.bytes_out += size
        self.queued_bytes += size
        self.conn.queued_bytes += size
        return 0

    cdef void pop_chunk(self) noexcept:
        cdef object data = <object>self.chunks[self.chunk_first].data
        Py_DECREF(data)
        self.chunk_offset = 0
        self.chunk_first += 1
        self.chunk_count -= 1
        if self.chunk_count == 0:
            self.chunk_first = 0

    cdef void drop_queue(self) noexcept:
        while self.chunk_count:
            self.pop_chunk()
        if self.conn is not None:
            self.conn.queued_bytes -= self.queued_bytes
        self.queued_bytes = 0
        if self.chunks is not self.inline_chunks:
            free_queue(self.chunks)
            self.chunks = self.inline_chunks
            self.chunk_room = INLINE_CHUNKS

    cdef void copy_out(self, uint8_t *to, Py_ssize_t size) noexcept:
        """The next `size` bytes of the queue, which has them."""
        cdef Chunk *chunk
        cdef uint8_t prefix[5]
        cdef Py_ssize_t length, lead, part
        self.queued_bytes -= size
        self.conn.queued_bytes -= size
        while size:
            chunk = &self.chunks[self.chunk_first]
            length = PyBytes_GET_SIZE(<object>chunk.data)
            lead = 0 if chunk.framed else 5
            if self.chunk_offset < lead:
                write_prefix(prefix, length)
                part = min(lead - self.chunk_offset, size)
                memcpy(to, prefix + self.chunk_offset, part)
                to += part
                size -= part
                self.chunk_offset += part
            part = min(length + lead - self.chunk_offset, size)
            if part > 0:
                memcpy(to, PyBytes_AS_STRING(<object>chunk.data) + (self.chunk_offset - lead), part)
                to += part
                size -= part
                self.chunk_offset += part
            if self.chunk_offset == length + lead:
                self.pop_chunk()
        if self.blocked and self.queued_bytes <= self.conn.limits.send_low_water:
            self.blocked = False
            self.drain_due = True
            self.schedule()

    cdef void wake(self) noexcept:
        if self.deferred:
            self.deferred = False
            nghttp2_session_resume_data(self.conn.session, self.stream_id)
        self.conn.mark_dirty()

    # --- receiving ---

    cdef void receive(self, const uint8_t *data, Py_ssize_t size) noexcept:
        cdef Connection conn = self.conn
        cdef Py_ssize_t used = 0
        if self.deaf:
            used = size
        elif not self.paused and not self.held_size:
            used = self.parse(data, size)
            if self.deaf:
                used = size
        if used:
            nghttp2_session_consume(conn.session, self.stream_id, used)
        if used < size:
            self.hold(data + used, size - used)

    cdef Py_ssize_t parse(self, const uint8_t *data, Py_ssize_t size) noexcept:
        """Cut messages out of `data` until its end or until the handler pauses; how far it came."""
        cdef Py_ssize_t at = 0, length
        cdef bytes message
        while at < size and not self.paused and not self.deaf:
            if self.building is not NULL:
                at += self.build(data + at, size - at)
            elif self.prefix_size == 0 and size - at >= 5 and size - at - 5 >= read_length(data + at):
                length = read_length(data + at)
                if self.begin_message(data[at], length):
                    message = PyBytes_FromStringAndSize(<const char *>data + at + 5, length)
                    at += 5 + length
                    self.complete(message, self.compressed)
            else:
                at += self.parse_prefix(data + at, size - at)
        return at

    cdef Py_ssize_t parse_prefix(self, const uint8_t *data, Py_ssize_t size) noexcept:
        cdef Py_ssize_t part = min(size, 5 - self.prefix_size)
        memcpy(self.prefix + self.prefix_size, data, part)
        self.prefix_size += part
        if self.prefix_size < 5:
            return part
        self.prefix_size = 0
        if not self.begin_message(self.prefix[0], read_length(self.prefix)):
            return part
        if self.message_size == 0:
            self.complete(b"", self.compressed)
            return part
        message = PyBytes_FromStringAndSize(NULL, min(self.message_size, FIRST_BUILDING))
        Py_INCREF(message)
        self.building = <void *>message
        self.built = 0
        return part

    cdef bint begin_message(self, int flag, Py_ssize_t size) noexcept:
        if flag > 1:
            self.fault(INTERNAL, f"the first byte of a message is {flag}, neither 0 nor 1")
            return False
        if size > self.conn.limits.max_message_size:
            self.conn.oversized()
            self.fault(
                RESOURCE_EXHAUSTED, f"message of {size} bytes is larger than the limit of {self.conn.limits.max_message_size}"
            )
            return False
        self.compressed = flag
        self.message_size = size
        self.bytes_in += size + 5
        return True

    cdef Py_ssize_t build(self, const uint8_t *data, Py_ssize_t size) noexcept:
        cdef Py_ssize_t part = min(size, self.message_size - self.built)
        cdef Connection conn = self.conn
        if conn.built_bytes + part > conn.building_limit():
            self.fault(RESOURCE_EXHAUSTED, "too many unfinished messages on this connection")
            return size
        if not self.grow_building(self.built + part):
            self.fault(RESOURCE_EXHAUSTED, "no memory for a message")
            return size
        memcpy(PyBytes_AS_STRING(<object>self.building) + self.built, data, part)
        self.built += part
        conn.built_bytes += part
        if self.built == self.message_size:
            message = <bytes>self.building
            self.forget_building()
            self.complete(message, self.compressed)
        return part

    cdef bint grow_building(self, Py_ssize_t needed) noexcept:
        cdef Py_ssize_t room = PyBytes_GET_SIZE(<object>self.building)
        if needed <= room:
            return True
        room = min(self.message_size, max(needed, 2 * room))
        try:
            _PyBytes_Resize(<PyObject **>&self.building, room)
        except MemoryError:  # the object is gone
            self.conn.built_bytes -= self.built
            self.built = 0
            return False
        return True

    cdef void forget_building(self) noexcept:
        if self.building is NULL:
            return
        self.conn.built_bytes -= self.built
        Py_DECREF(<object>self.building)
        self.building = NULL
        self.built = 0

    cdef void complete(self, bytes message, bint compressed) noexcept:
        if compressed:
            message = self.decompress(message)
            if message is None:
                return
        self.deliver(message)

    cdef bytes decompress(self, bytes message):
        """The message, or None when the call has failed over it."""
        cdef Py_ssize_t limit = self.conn.limits.max_message_size
        if self.encoding != ENCODING_GZIP:
            self.fault(INTERNAL, "a message is marked as compressed, but grpc-encoding names no compression known here")
            return None
        inflater = zlib.decompressobj(31)
        try:
            plain = inflater.decompress(message, limit + 1)
        except zlib.error as error:
            self.fault(INTERNAL, f"a message is not well-formed gzip: {error}")
            return None
        if len(plain) > limit:
            self.conn.oversized()
            self.fault(RESOURCE_EXHAUSTED, f"a compressed message is larger than the limit of {limit} bytes")
            return None
        if not inflater.eof:
            self.fault(INTERNAL, "a message is not well-formed gzip: it is cut short")
            return None
        return plain

    # --- pausing ---

    cpdef object pause(self):
        self.paused = True

    cpdef object resume(self):
        if not self.paused:
            return
        self.paused = False
        if self.held_size:
            self.resume_due = True
            self.schedule()

    cdef void hold(self, const uint8_t *data, Py_ssize_t size) noexcept:
        """Keep raw bytes; the stream's window stays used. The connection's is given back while all held bytes are within its size."""
        cdef Connection conn = self.conn
        if not make_held_room(self, size):
            self.fault(RESOURCE_EXHAUSTED, "no memory for received bytes")
            nghttp2_session_consume(conn.session, self.stream_id, size)
            return
        memcpy(self.held + self.held_first + self.held_size, data, size)
        self.held_size += size
        conn.held_bytes += size
        if conn.held_bytes <= conn.limits.connection_window:
            nghttp2_session_consume_connection(conn.session, size)
        else:
            self.owed_connection += size

    cdef void forget_held(self, Py_ssize_t size) noexcept:
        """The first `size` held bytes were handed on: grant their windows again."""
        cdef Py_ssize_t owed = min(self.owed_connection, size)
        self.held_first += size
        self.held_size -= size
        self.conn.held_bytes -= size
        self.owed_connection -= owed
        if not self.stream_gone:
            nghttp2_session_consume_stream(self.conn.session, self.stream_id, size)
        if owed:
            nghttp2_session_consume_connection(self.conn.session, owed)
        if self.held_size == 0:
            free_queue(self.held)
            self.held = NULL
            self.held_first = self.held_room = 0
        self.conn.mark_dirty()

    cdef void release_held(self) noexcept:
        cdef Py_ssize_t used
        if self.paused or self.deaf or not self.held_size:
            return
        used = self.parse(self.held + self.held_first, self.held_size)
        if self.deaf:
            return  # drop_received has accounted for all
        self.forget_held(used)
        if self.held_size == 0 and self.remote_end_due:
            self.remote_end_due = False
            self.tell_remote_end()

    cdef void drop_received(self) noexcept:
        """Nothing more is to be delivered."""
        self.deaf = True
        self.request = None
        self.prefix_size = 0
        if self.conn is None:
            return
        self.forget_building()
        if self.held_size:
            self.forget_held(self.held_size)

    cdef void remote_end(self) noexcept:
        self.remote_closed = True
        if self.held_size:
            self.remote_end_due = True
        else:
            self.tell_remote_end()

    # --- later in the loop ---

    cdef void schedule(self) noexcept:
        if not self.in_later:
            self.in_later = True
            self.conn.context.later_calls.append(self)
            self.conn.context.schedule()

    cdef void do_later(self) noexcept:
        if self.resume_due:
            self.resume_due = False
            if self.conn is not None:
                self.release_held()
        if self.drain_due:
            self.drain_due = False
            if not self.ended and not self.closing:
                try:
                    self.handler.on_drain(self)
                except BaseException:
                    self.handler_failed("on_drain")

    # --- what differs between the two ends ---

    cdef void deliver(self, bytes message) noexcept:
        if not self.ended:
            try:
                self.handler.on_message(self, message)
            except BaseException:
                self.handler_failed("on_message")

    cdef void fault(self, int status, str text) noexcept:
        pass

    cdef void tell_remote_end(self) noexcept:
        pass

    cdef void stream_closed(self, uint32_t error_code) noexcept:
        pass

    cdef void connection_gone(self) noexcept:
        pass

    cdef void expire(self) noexcept:
        pass

    cdef void handler_failed(self, str where) noexcept:
        log.exception("%s of %r raised in a call of %s", where, self.handler, self.path)


cdef inline Py_ssize_t read_length(const uint8_t *prefix) noexcept:
    return (<Py_ssize_t>prefix[1] << 24) | (<Py_ssize_t>prefix[2] << 16) | (<Py_ssize_t>prefix[3] << 8) | prefix[4]


cdef inline void write_prefix(uint8_t *prefix, Py_ssize_t length) noexcept:
    prefix[0] = 0
    prefix[1] = (length >> 24) & 0xFF
    prefix[2] = (length >> 16) & 0xFF
    prefix[3] = (length >> 8) & 0xFF
    prefix[4] = length & 0xFF


cdef void *new_queue(size_t size) noexcept:
    global live_queues
    cdef void *block = PyMem_RawMalloc(size)
    if block is not NULL:
        live_queues += 1
    return block


cdef void free_queue(void *block) noexcept:
    global live_queues
    live_queues -= 1
    PyMem_RawFree(block)


cdef int make_room(Call call) except -1:
    """Room for one more chunk at the end of the send queue."""
    cdef Py_ssize_t i, room = call.chunk_room
    cdef Chunk *chunks = call.chunks
    if call.chunk_count * 2 > room or room == INLINE_CHUNKS:
        room *= 4
        chunks = <Chunk *>new_queue(room * sizeof(Chunk))
        if chunks is NULL:
            raise MemoryError
    for i in range(call.chunk_count):
        chunks[i] = call.chunks[call.chunk_first + i]
    if chunks is not call.chunks and call.chunks is not call.inline_chunks:
        free_queue(call.chunks)
    call.chunks = chunks
    call.chunk_room = room
    call.chunk_first = 0
    return 0


cdef bint make_held_room(Call call, Py_ssize_t size) noexcept:
    cdef Py_ssize_t room
    cdef uint8_t *held
    if call.held_first + call.held_size + size <= call.held_room:
        return True
    room = max(4096, call.held_size + size)
    if call.held_size + size > call.held_room // 2:
        room = max(room, 2 * call.held_room)
    held = <uint8_t *>new_queue(room)
    if held is NULL:
        return False
    if call.held is not NULL:
        memcpy(held, call.held + call.held_first, call.held_size)
        free_queue(call.held)
    call.held = held
    call.held_first = 0
    call.held_room = room
    return True


# --- headers of the peer ---


cdef bint is_grpc(const uint8_t *value, size_t size) noexcept:
    """application/grpc, also with a +format or ;parameters."""
    if size < 16 or memcmp(value, b"application/grpc", 16) != 0:
        return False
    return size == 16 or value[16] == 0x2B or value[16] == 0x3B


cdef bint is_metadata(const uint8_t *name, size_t size) noexcept:
    """Neither gRPC's nor HTTP's own, as far as those that speak gRPC send such."""
    if size == 2:
        return memcmp(name, b"te", 2) != 0
    if size == 10 and memcmp(name, b"user-agent", 10) == 0:
        return False
    if size == 12 and memcmp(name, b"content-type", 12) == 0:
        return False
    return size < 5 or memcmp(name, b"grpc-", 5) != 0


cdef int encoding_of(const uint8_t *value, size_t size) noexcept:
    if size == 8 and memcmp(value, b"identity", 8) == 0:
        return ENCODING_IDENTITY
    if size == 4 and memcmp(value, b"gzip", 4) == 0:
        return ENCODING_GZIP
    return ENCODING_UNKNOWN


cdef void keep_header(
    Call call, const uint8_t *name, size_t name_size, const uint8_t *value, size_t size, bint trailer
) noexcept:
    cdef tuple header = (
        PyBytes_FromStringAndSize(<const char *>name, name_size), PyBytes_FromStringAndSize(<const char *>value, size)
    )
    if trailer:
        if call.kept_trailers is None:
            call.kept_trailers = []
        call.kept_trailers.append(header)
    else:
        if call.kept_headers is None:
            call.kept_headers = []
        call.kept_headers.append(header)
