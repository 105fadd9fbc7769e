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


# --- server ----------------------------------------------------------------------------------------------------------


@cython.final
cdef class ServerCall(Call):
    @property
    def peer(self):
        return self.peer_name

    cpdef object start(self, object headers=()):
        if not self.ended and not self.started:
            self.submit_headers(headers)

    cpdef object reply(self, bytes message, object headers=()):
        if self.ended or self.closing:
            return
        if self.conn.queued_bytes > self.conn.queued_limit():
            self.close_with(RESOURCE_EXHAUSTED, "too many answers wait on this connection to be taken", ())
            return
        if not self.started:
            self.submit_headers(headers)
        self.push(message, False)
        self.close_with(OK, "", ())

    cpdef object finish(self, int status=OK, str message="", object trailers=()):
        cdef Block checked
        if self.ended or self.closing:
            return
        if trailers:
            checked.size = 0
            put_own(&checked, trailers)
        self.close_with(status, message, trailers)

    cpdef object fail(self, int status, str message):
        if self.ended or self.closing:
            return
        self.drop_queue()
        self.close_with(status, message, ())

    cdef bint queue(self, bytes data, bint framed) except -1:
        if not self.started and not self.ended and not self.closing:
            self.submit_headers(())
        return Call.queue(self, data, framed)

    cdef int submit_headers(self, object headers) except -1:
        cdef nghttp2_data_provider provider
        cdef Block block
        cdef Block *chosen = &OK_HEADERS
        if headers:
            memcpy(block.items, OK_HEADERS.items, OK_HEADERS.size * sizeof(nghttp2_nv))
            block.size = OK_HEADERS.size
            put_own(&block, headers)
            chosen = &block
        provider.source.ptr = <void *>self
        provider.read_callback = read_data
        self.started = True
        nghttp2_submit_response(self.conn.session, self.stream_id, chosen.items, chosen.size, &provider)
        self.conn.mark_dirty()
        return 0

    cdef void close_with(self, int status, str text, object trailers) noexcept:
        self.ended = self.closing = True
        self.end_status = status
        self.end_message = text
        self.own_trailers = trailers
        self.drop_received()
        if self.started or self.queued_bytes:
            self.wake()
        else:
            self.submit_trailers_only()

    cdef void submit_trailers_only(self) noexcept:
        cdef Block block
        memcpy(block.items, OK_HEADERS.items, OK_HEADERS.size * sizeof(nghttp2_nv))
        block.size = OK_HEADERS.size
        self.started = self.local_closed = True
        put_status(self, &block)
        nghttp2_submit_response(self.conn.session, self.stream_id, block.items, block.size, NULL)
        self.conn.mark_dirty()

    cdef void submit_trailers(self) noexcept:
        cdef Block block
        if self.end_status == OK and not self.end_message and not self.own_trailers:
            nghttp2_submit_trailer(self.conn.session, self.stream_id, OK_TRAILERS.items, OK_TRAILERS.size)
            return
        block.size = 0
        put_status(self, &block)
        nghttp2_submit_trailer(self.conn.session, self.stream_id, block.items, block.size)

    # --- from request headers to the handler ---

    cdef void take_header(self, const uint8_t *name, size_t name_size, const uint8_t *value, size_t size) noexcept:
        cdef ServerConnection conn = <ServerConnection>self.conn
        cdef double seconds
        if name[0] == 0x3A:  # a pseudo header
            if name_size == 5 and memcmp(name, b":path", 5) == 0:
                conn.server.route(self, value, size)
            elif name_size == 7 and memcmp(name, b":method", 7) == 0:
                if size != 4 or memcmp(value, b"POST", 4) != 0:
                    self.http_refusal = 405
            return
        if name_size == 12 and memcmp(name, b"content-type", 12) == 0:
            self.typed = is_grpc(value, size)
        elif name_size == 12 and memcmp(name, b"grpc-timeout", 12) == 0:
            seconds = parse_timeout(value, size)
            if seconds < 0.0:
                self.refusal = INTERNAL
                self.refusal_text = f"malformed grpc-timeout {value[:min(<Py_ssize_t>size, 40)]!r}"
            else:
                self.deadline = conn.context.now + seconds
        elif name_size == 13 and memcmp(name, b"grpc-encoding", 13) == 0:
            self.encoding = encoding_of(value, size)
            if self.encoding == ENCODING_UNKNOWN:
                self.refusal = UNIMPLEMENTED
                self.refusal_text = f"grpc-encoding {value[:min(<Py_ssize_t>size, 40)]!r} is not known here"
                self.own_trailers = ((b"grpc-accept-encoding", b"identity,gzip"),)
        if self.handler is not None and self.handler.wants_headers:
            keep_header(self, name, name_size, value, size, False)

    cdef void begin(self) noexcept:
        """The request's headers are complete."""
        cdef ServerConnection conn = <ServerConnection>self.conn
        if not self.typed and self.http_refusal == 0:
            self.http_refusal = 415
        if self.http_refusal == 0 and self.refusal == 0 and conn.active >= conn.limits.max_streams:
            conn.server.refused_streams += 1
            self.refusal = RESOURCE_EXHAUSTED
            self.refusal_text = f"more than {conn.limits.max_streams} calls at once on this connection"
        elif self.refusal == 0 and conn.queued_bytes > conn.queued_limit():
            conn.server.refused_streams += 1
            self.refusal = RESOURCE_EXHAUSTED
            self.refusal_text = "too many answers wait on this connection to be taken"
        if self.http_refusal or self.refusal:
            self.refuse()
            return
        self.counted = True
        conn.active += 1
        conn.server.streams += 1
        conn.server.calls_total += 1
        if self.deadline != 0.0:
            conn.context.arm(&self.timer, self.deadline)
        if not self.handler.unary:
            self.opened = True
            try:
                self.handler.on_open(self)
            except BaseException:
                self.handler_failed("on_open")

    cdef void refuse(self) noexcept:
        cdef Block block
        cdef bytes status
        if self.http_refusal == 0:
            self.close_with(self.refusal, self.refusal_text, self.own_trailers or ())
            return
        self.ended = self.closing = self.started = self.local_closed = True
        self.drop_received()
        status = b"%d" % self.http_refusal
        block.size = 0
        put(&block, b":status", 7, PyBytes_AS_STRING(status), 3, STATIC_NAME)
        put(&block, b"content-length", 14, b"0", 1, STATIC)
        nghttp2_submit_response(self.conn.session, self.stream_id, block.items, block.size, NULL)
        self.conn.mark_dirty()

    cdef void deliver(self, bytes message) noexcept:
        if self.ended:
            return
        if not self.handler.unary:
            Call.deliver(self, message)
        elif self.request is None:
            self.request = message
        else:
            self.close_with(INVALID_ARGUMENT, "a unary method takes one request message, more came", ())

    cdef void tell_remote_end(self) noexcept:
        if self.ended:
            return
        if self.building is not NULL or self.prefix_size:
            self.fault(INTERNAL, "the last message is cut short")
        elif self.handler.unary:
            self.tell_request()
        else:
            try:
                self.handler.on_half_close(self)
            except BaseException:
                self.handler_failed("on_half_close")

    cdef void tell_request(self) noexcept:
        cdef bytes message = self.request
        if message is None:
            self.close_with(INVALID_ARGUMENT, "a unary method takes one request message, none came", ())
            return
        self.request = None
        self.opened = True
        try:
            self.handler.on_request(self, message)
        except BaseException:
            self.handler_failed("on_request")

    # --- the end ---

    cdef void fault(self, int status, str text) noexcept:
        if self.ended:
            return
        self.drop_queue()
        self.close_with(status, text, ())
        self.tell_cancel(CANCELLED)

    cdef void handler_failed(self, str where) noexcept:
        Call.handler_failed(self, where)
        if not self.ended:
            self.drop_queue()
            self.close_with(INTERNAL, "internal error", ())

    cdef void expire(self) noexcept:
        cdef ServerConnection conn = <ServerConnection>self.conn
        if self.ended:
            conn.reset(self, NGHTTP2_CANCEL)  # finished, but the peer does not take the answer
            return
        conn.server.expired += 1
        self.drop_queue()
        self.close_with(DEADLINE_EXCEEDED, "deadline exceeded", ())
        self.tell_cancel(DEADLINE_EXCEEDED)

    cdef void stream_closed(self, uint32_t error_code) noexcept:
        cdef ServerConnection conn = <ServerConnection>self.conn
        cdef bint was_ended = self.ended
        self.stream_gone = self.ended = True
        self.drop_queue()
        self.drop_received()
        conn.release(self)
        if not was_ended:
            conn.server.cancelled += 1
            self.tell_cancel(CANCELLED)

    cdef void connection_gone(self) noexcept:
        self.stream_closed(NGHTTP2_CANCEL)

    cdef void tell_cancel(self, int status) noexcept:
        if not self.opened:
            return
        try:
            self.handler.on_cancel(self, status)
        except BaseException:
            Call.handler_failed(self, "on_cancel")


cdef void put_status(ServerCall call, Block *block) noexcept:
    """grpc-status, grpc-message and the owner's trailers, which finish() has checked."""
    cdef bytes status = encode_status(call.end_status)
    cdef bytes text
    put(block, b"grpc-status", 11, PyBytes_AS_STRING(status), PyBytes_GET_SIZE(status), STATIC_NAME)
    if call.end_message:
        text = encode_message(call.end_message)
        call.grpc_message = text  # keeps the bytes until they are submitted
        put(block, b"grpc-message", 12, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), FLEETING)
    call.request = status
    if call.own_trailers:
        put_own(block, call.own_trailers)


cdef bint is_grpc(const uint8_t *value, size_t size) noexcept:
    """application/grpc, also with a +format or ;parameters."""
    if size < 16 or memcmp(value, b"application/grpc", 16) != 0:
        return False
    return size == 16 or value[16] == 0x2B or value[16] == 0x3B


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


# --- client ----------------------------------------------------------------------------------------------------------


@cython.final
cdef class ClientCall(Call):
    @property
    def unprocessed(self):
        return self.never_processed

    cpdef object half_close(self):
        if not self.ended and not self.closing:
            self.closing = True
            self.wake()

    cpdef object cancel(self):
        if self.ended or self.end_due:
            return
        self.end_due = True
        self.drop_queue()
        self.drop_received()
        self.conn.reset(self, NGHTTP2_CANCEL)
        self.schedule()

    cdef void do_later(self) noexcept:
        if self.end_due:
            self.end(CANCELLED, "cancelled by the caller")
        Call.do_later(self)

    cdef void take_header(
        self, const uint8_t *name, size_t name_size, const uint8_t *value, size_t size, bint last
    ) noexcept:
        if name[0] == 0x3A:
            if name_size == 7 and memcmp(name, b":status", 7) == 0:
                self.http_status = parse_number(value, size)
            return
        if name_size == 11 and memcmp(name, b"grpc-status", 11) == 0:
            if last:
                self.grpc_status = parse_number(value, size)
                if self.grpc_status < 0:
                    self.grpc_status = UNKNOWN
                self.grpc_status += 1  # 0 is: none came
        elif name_size == 12 and memcmp(name, b"grpc-message", 12) == 0:
            self.grpc_message = PyBytes_FromStringAndSize(<const char *>value, size)
        elif name_size == 12 and memcmp(name, b"content-type", 12) == 0:
            self.typed = is_grpc(value, size)
        elif name_size == 13 and memcmp(name, b"grpc-encoding", 13) == 0:
            self.encoding = encoding_of(value, size)
        if self.handler.wants_headers:
            keep_header(self, name, name_size, value, size, last)

    cdef void tell_remote_end(self) noexcept:
        cdef int status
        if self.ended or self.end_due:
            return
        status = self.final_status()
        if status == OK and (self.building is not NULL or self.prefix_size):
            self.end_with_reset(INTERNAL, "the last message is cut short")
        elif self.grpc_status:
            self.end_with_reset(status, decode_message(self.grpc_message))
        elif self.http_status == 200:
            self.end_with_reset(status, "the peer ended the call without a grpc-status")
        else:
            self.end_with_reset(status, f"the peer answered with HTTP status {self.http_status}")

    cdef int final_status(self) noexcept:
        if self.grpc_status:
            return self.grpc_status - 1
        if self.http_status == 200:
            return INTERNAL
        return status_of_http(self.http_status)

    cdef void fault(self, int status, str text) noexcept:
        self.end_with_reset(status, text)

    cdef void handler_failed(self, str where) noexcept:
        Call.handler_failed(self, where)
        self.cancel()

    cdef void expire(self) noexcept:
        self.end_with_reset(DEADLINE_EXCEEDED, "deadline exceeded")

    cdef void end_with_reset(self, int status, str text) noexcept:
        """The call is over here; tell the peer unless both directions are closed anyway."""
        if self.ended:
            return
        if not (self.remote_closed and self.local_closed):
            self.conn.reset(self, NGHTTP2_CANCEL)
        self.end(status, text)

    cdef void end(self, int status, str text) noexcept:
        cdef Connection conn = self.conn
        if self.ended:
            return
        self.ended = self.closing = True
        self.end_due = False
        self.drop_queue()
        self.drop_received()
        conn.context.disarm(&self.timer)
        conn.uncount(self)
        if self.stream_gone:
            conn.release(self)
        try:
            self.handler.on_end(self, status, text)
        except BaseException:
            Call.handler_failed(self, "on_end")

    cdef void not_sent(self) noexcept:
        """The request was never sent: the connection is draining or full of older calls, or the call was cancelled."""
        self.stream_gone = True
        if self.ended:
            self.conn.release(self)
        elif not self.end_due:
            self.never_processed = True
            self.end(UNAVAILABLE, "the connection takes no more calls")

    cdef void stream_closed(self, uint32_t error_code) noexcept:
        self.stream_gone = True
        if self.ended:
            self.conn.release(self)
        elif not self.end_due and not self.remote_end_due:
            self.never_processed = error_code == NGHTTP2_REFUSED_STREAM
            self.end(status_of_reset(error_code), f"the stream was reset, error code {error_code}")

    cdef void connection_gone(self) noexcept:
        self.stream_gone = True
        if self.ended:
            self.conn.release(self)
        elif self.end_due:
            self.end(CANCELLED, "cancelled by the caller")
        else:
            self.never_processed = not self.headers_sent
            self.end(UNAVAILABLE, "the connection was lost")
