# A request at the accepting end that is not gRPC's: read as a whole, told to the server's `web` handler, and answered as a whole
# or in pieces. It shares the send queue, the flow control and the limits of the calls of gRPC.

cdef enum:
    BODY_STEP = 64 * 1024  # a body may take any time, as long as so much of it comes within each `header_timeout`


@cython.final
cdef class WebCall(Call):
    @property
    def method(self):
        return b"POST" if self.verb is None else self.verb

    @property
    def peer(self):
        return self.peer_name

    # --- the answer ---

    cpdef object answer(self, int status, object headers=(), bytes body=b""):
        cdef bint with_body = PyBytes_GET_SIZE(body) > 0 and not self.is_head()
        if self.ended or self.started:
            return
        self.submit(status, headers, with_body)
        if with_body:
            self.push(body, True)
        self.conclude()

    cpdef object begin(self, int status, object headers=()):
        if self.ended or self.started:
            return
        self.submit(status, headers, not self.is_head())
        if self.is_head():
            self.conclude()

    cpdef bint write(self, bytes data) except -1:
        if not self.started:
            return True
        return self.queue(data, True)

    cpdef object end(self, bint complete=True):
        if self.ended:
            return
        self.conclude()
        if not self.started:
            self.conn.reset(self, NGHTTP2_INTERNAL_ERROR)
            return
        self.cut = not complete
        self.wake()

    cdef bint is_head(self) noexcept:
        return self.verb is not None and self.verb == b"HEAD"

    cdef void conclude(self) noexcept:
        self.ended = self.closing = True
        self.drop_received()

    cdef int submit(self, int status, object headers, bint with_body) except -1:
        cdef nghttp2_data_provider provider
        cdef Block block
        cdef bytes digits = b"%03d" % status
        if not 200 <= status <= 599:
            raise ValueError(f"{status} is no status of an answer")
        block.size = 0
        put(&block, b":status", 7, PyBytes_AS_STRING(digits), 3, STATIC_NAME)
        put_own(&block, headers)
        provider.source.ptr = <void *>self
        provider.read_callback = read_data
        self.started = True
        self.local_closed = not with_body
        nghttp2_submit_response(
            self.conn.session, self.stream_id, block.items, block.size, &provider if with_body else NULL
        )
        self.conn.mark_dirty()
        return 0

    # --- the request ---

    cdef void open(self) noexcept:
        """The request's headers are complete."""
        cdef ServerConnection conn = <ServerConnection>self.conn
        if conn.active >= conn.limits.max_streams or conn.queued_bytes > conn.queued_limit():
            conn.server.refused_streams += 1
            self.refuse(503, "too many requests at once on this connection")
            return
        self.counted = True
        conn.active += 1
        conn.server.streams += 1
        conn.server.calls_total += 1
        if self.announced_bytes() > conn.limits.max_message_size:
            self.too_large()
        elif conn.limits.header_timeout > 0.0:
            conn.context.arm(&self.timer, conn.context.now + conn.limits.header_timeout)

    cdef Py_ssize_t announced_bytes(self):
        for name, value in self.kept_headers:
            if name == b"content-length" and value.isdigit():
                return int(value[:18])
        return 0

    cdef void receive(self, const uint8_t *data, Py_ssize_t size) noexcept:
        cdef Connection conn = self.conn
        cdef Py_ssize_t steps = self.built // BODY_STEP
        nghttp2_session_consume(conn.session, self.stream_id, size)
        if self.deaf:
            return
        if self.building is NULL:
            self.begin_body()
        self.build(data, size)
        if self.built // BODY_STEP > steps and self.timer.after is not NULL:
            conn.context.arm(&self.timer, conn.context.now + conn.limits.header_timeout)

    cdef void begin_body(self) noexcept:
        cdef object body
        self.message_size = self.conn.limits.max_message_size + 1  # which is never complete
        body = PyBytes_FromStringAndSize(NULL, min(self.message_size, FIRST_BUILDING))
        Py_INCREF(body)
        self.building = <void *>body
        self.built = 0

    cdef void complete(self, bytes message, bint compressed) noexcept:
        self.too_large()

    cdef void too_large(self) noexcept:
        self.conn.oversized()
        self.refuse(413, f"the body is larger than {self.conn.limits.max_message_size} bytes")

    cdef void tell_remote_end(self) noexcept:
        cdef bytes body = b""
        if self.deaf:
            return
        self.conn.context.disarm(&self.timer)
        if self.building is not NULL:
            body = PyBytes_FromStringAndSize(PyBytes_AS_STRING(<object>self.building), self.built)
            self.forget_building()
        self.opened = True
        try:
            self.handler.on_web(self, body)
        except BaseException:
            self.handler_failed("on_web")

    # --- the end ---

    cdef void refuse(self, int status, str text) noexcept:
        cdef bytes line = f"{text}\n".encode()
        self.answer(status, ((b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(line))), line)

    cdef void fault(self, int status, str text) noexcept:
        self.refuse(503, text)

    cdef void handler_failed(self, str where) noexcept:
        Call.handler_failed(self, where)
        if not self.ended and not self.started:
            self.refuse(500, "internal error")
        else:
            self.end(False)

    cdef void expire(self) noexcept:
        (<ServerConnection>self.conn).server.expired += 1
        self.refuse(408, "the body did not come in time")

    cdef void stream_closed(self, uint32_t error_code) noexcept:
        cdef ServerConnection conn = <ServerConnection>self.conn
        cdef bint was_ended = self.ended
        self.stream_gone = self.ended = True
        self.drop_queue()
        self.drop_received()
        conn.release(self)
        if was_ended:
            return
        conn.server.cancelled += 1
        if self.opened:
            try:
                self.handler.on_gone(self)
            except BaseException:
                Call.handler_failed(self, "on_gone")

    cdef void connection_gone(self) noexcept:
        self.stream_closed(NGHTTP2_CANCEL)
