# A call at the accepting end: from the request's headers over the handler to trailers, refusal, or cancellation.


cdef enum:
    MESSAGE_STEP = 64 * 1024  # the part of a message that has to come within each `header_timeout`


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
        self.tally(status)
        self.end_status = status
        self.end_message = text
        self.own_trailers = trailers
        self.drop_received()
        if self.started or self.queued_bytes:
            self.wake()
        else:
            self.submit_trailers_only()

    cdef void tally(self, int status) noexcept:
        """The call has ended, as far as we are concerned: count it, once."""
        cdef Server server = (<ServerConnection>self.conn).server
        cdef CallFigures figures = self.figures
        cdef double now = monotonic()
        cdef double seconds = now - self.began if self.began > 0.0 else 0.0
        if figures is None:
            figures = server.other_figures
        figures.tallies[status if 0 <= status < OTHER_CODE else OTHER_CODE] += 1
        figures.bytes_in += self.bytes_in
        figures.bytes_out += self.bytes_out
        figures.seconds.add(seconds)
        if server.access_log is not None:
            server.access_log.line(
                now, seconds, self.conn.peer_name, GRPC, path_to_log(self, figures), code_to_log(self, status),
                self.bytes_in, self.bytes_out, self.note,
            )

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
                    self.verb = PyBytes_FromStringAndSize(<const char *>value, size)
            elif name_size == 10 and conn.server.web is not None and memcmp(name, b":authority", 10) == 0:
                conn.keep_early(b"host", 4, value, size)
            return
        if name_size == 12 and memcmp(name, b"content-type", 12) == 0:
            self.typed = self.typed or is_grpc(value, size)
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
        elif self.handler is not None and self.handler.wants_metadata:
            if is_metadata(name, name_size):
                keep_header(self, name, name_size, value, size, False)
        elif not self.typed and conn.server.web is not None:
            conn.keep_early(name, name_size, value, size)

    cdef void begin(self) noexcept:
        """The request's headers are complete."""
        cdef ServerConnection conn = <ServerConnection>self.conn
        cdef str overload
        self.began = monotonic()
        if not self.typed:
            if conn.server.web is not None and self.path is not None and self.http_refusal != 431:
                conn.begin_web(self)
                return
            if self.http_refusal == 0:
                self.http_refusal = 415
        if self.handler is None and self.refusal == 0 and self.http_refusal == 0:
            self.refusal = UNIMPLEMENTED
            self.refusal_text = f"unknown method {self.path[:200].decode('utf-8', 'replace')}"
        if self.http_refusal == 0 and self.refusal == 0 and conn.active >= conn.limits.max_streams:
            conn.server.refused_streams += 1
            self.refusal = RESOURCE_EXHAUSTED
            self.refusal_text = f"more than {conn.limits.max_streams} calls at once on this connection"
        elif self.refusal == 0 and conn.queued_bytes > conn.queued_limit():
            conn.server.refused_streams += 1
            conn.server.untaken += 1
            self.refusal = RESOURCE_EXHAUSTED
            self.refusal_text = "too many answers wait on this connection to be taken"
        elif (
            conn.server.is_overloaded() and self.http_refusal == 0 and self.refusal == 0 and not self.handler.essential
        ):
            overload = conn.server.refusal()
            if overload is not None:
                self.refusal = RESOURCE_EXHAUSTED
                self.refusal_text = f"the proxy is overloaded ({overload}); try again later"
        if self.http_refusal or self.refusal:
            self.refuse()
            return
        self.counted = True
        conn.active += 1
        conn.server.streams += 1
        conn.server.calls_total += 1
        if self.handler.unary and conn.limits.header_timeout > 0.0:
            self.await_message()
        elif self.deadline != 0.0:
            conn.context.arm(&self.timer, self.deadline)
        if not self.handler.unary:
            self.opened = True
            try:
                self.handler.on_open(self)
            except BaseException:
                self.handler_failed("on_open")

    cdef void await_message(self) noexcept:
        """A unary call may take as long as it likes, but its message may not: each part of it has `header_timeout`."""
        cdef Connection conn = self.conn
        self.message_due = conn.context.now + conn.limits.header_timeout
        if self.deadline != 0.0 and self.deadline < self.message_due:
            self.message_due = self.deadline
        conn.context.arm(&self.timer, self.message_due)

    cdef void receive(self, const uint8_t *data, Py_ssize_t size) noexcept:
        Call.receive(self, data, size)
        if self.message_due != 0.0 and not self.ended and self.bytes_received(size):
            self.await_message()

    cdef bint bytes_received(self, Py_ssize_t size) noexcept:
        """Whether that was the rest of a part."""
        self.message_steps += size
        if self.message_steps < MESSAGE_STEP:
            return False
        self.message_steps = 0
        return True

    cdef void refuse(self) noexcept:
        cdef Block block
        cdef bytes status
        if self.http_refusal == 0:
            self.close_with(self.refusal, self.refusal_text, self.own_trailers or ())
            return
        self.ended = self.closing = self.started = self.local_closed = True
        self.tally(OTHER_CODE)
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
        if self.message_due != 0.0:
            self.message_due = 0.0
            self.conn.context.disarm(&self.timer)
            if self.deadline != 0.0:
                self.conn.context.arm(&self.timer, self.deadline)
        try:
            if self.kept_headers is not None and self.handler.wants_metadata:
                self.handler.on_metadata(self)
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
        if self.message_due != 0.0 and self.message_due != self.deadline:
            self.close_with(DEADLINE_EXCEEDED, "the request's message did not come in time", ())
        else:
            self.close_with(DEADLINE_EXCEEDED, "deadline exceeded", ())
        self.tell_cancel(DEADLINE_EXCEEDED)

    cdef void stream_closed(self, uint32_t error_code) noexcept:
        cdef ServerConnection conn = <ServerConnection>self.conn
        cdef bint was_ended = self.ended
        self.stream_gone = self.ended = True
        if not was_ended:
            self.tally(CANCELLED)
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
