# A call at the opening end: it ends exactly once, with the peer's status or with what prevented it.


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
        if self.handler.wants_headers or (self.handler.wants_metadata and is_metadata(name, name_size)):
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
