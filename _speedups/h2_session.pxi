# One HTTP/2 connection, of either end: an asyncio buffered protocol that feeds an nghttp2 session and writes what it has to
# say once a loop turn. nghttp2's callbacks stand at the end of this part; none of them sends or receives.

cdef enum:
    ANNOUNCED_ABOVE = 1000  # MAX_CONCURRENT_STREAMS is announced so far above the limit at which calls are refused politely
    RESET_SLACK = 2
cdef double CLOSE_TIMEOUT = 2.0  # seconds a peer has to take the last bytes of a closing connection


cdef class Connection:
    def __cinit__(self, *args):
        global live_connections
        live_connections += 1
        self.timer.owner = <void *>self

    def __dealloc__(self):
        global live_connections
        live_connections -= 1
        if self.session is not NULL:
            nghttp2_session_del(self.session)

    # --- asyncio protocol ---

    def connection_made(self, transport):
        self.transport = transport
        transport.set_write_buffer_limits(high=OUT_ROOM)
        self.born = self.last_read = self.reset_refilled = self.context.refresh()
        self.reset_tokens = self.limits.reset_burst
        self.peer_name = name_of_peer(transport)
        self.start_session()
        self.watch()

    def get_buffer(self, sizehint):
        return self.context.input_view

    def buffer_updated(self, Py_ssize_t size):
        if self.lost or self.closing:
            return
        self.last_read = self.context.refresh()
        if self.ping_pending:
            self.ping_pending = False
            self.watch()  # for the next PING, which is due before the timeout of the answered one
        self.feed(self.context.input, size)

    def eof_received(self):
        return False

    def pause_writing(self):
        self.write_paused = True

    def resume_writing(self):
        self.write_paused = False
        self.mark_dirty()

    def connection_lost(self, error):
        self.lost = True
        if not self.in_session:
            self.tear_down()

    # --- reading ---

    cdef void start_session(self) noexcept:
        pass

    cdef void feed(self, const uint8_t *data, Py_ssize_t size) noexcept:
        cdef ssize_t used
        if self.session is NULL or self.in_session:
            return
        self.in_session = True
        used = nghttp2_session_mem_recv(self.session, data, size)
        self.in_session = False
        if used == NGHTTP2_ERR_FLOODED:
            self.flooded()
            self.abort()
        elif used < 0:
            self.protocol_error()
            self.abort()
        if self.lost or self.broken:
            self.finish_break()
            return
        if self.write_paused and nghttp2_session_get_outbound_queue_size(self.session) > self.queue_limit():
            self.flooded()
            self.abort()
            return
        self.after_read()
        if nghttp2_session_want_write(self.session) or not nghttp2_session_want_read(self.session):
            self.mark_dirty()

    cdef size_t queue_limit(self) noexcept:
        """Control frames that may wait for a peer that does not read."""
        return 4 * (<size_t>self.limits.max_streams + ANNOUNCED_ABOVE) + self.limits.max_outbound_acks

    cdef Py_ssize_t building_limit(self) noexcept:
        """Bytes of unfinished messages of all calls."""
        return 4 * max(self.limits.max_message_size, <Py_ssize_t>self.limits.connection_window)

    cdef Py_ssize_t queued_limit(self) noexcept:
        """Bytes that may wait, in all calls, for a peer that does not take its answers."""
        return 4 * max(self.limits.max_message_size, <Py_ssize_t>self.limits.connection_window)

    cdef void after_read(self) noexcept:
        if not self.in_headers:
            self.header_since = 0.0
        elif self.header_since == 0.0:
            self.header_since = self.context.now
            self.watch()

    # --- writing ---

    cdef void mark_dirty(self) noexcept:
        if not self.dirty and not self.lost:
            self.dirty = True
            self.context.dirty.append(self)
            self.context.schedule()

    cdef void flush(self) noexcept:
        if self.session is NULL or self.write_paused or self.lost or self.closing or self.in_session:
            return
        self.fill_out()
        if self.broken or self.lost:
            self.finish_break()
            return
        self.write_out()
        if self.out_full:
            self.out_full = False
            self.mark_dirty()
        elif not nghttp2_session_want_read(self.session) and not nghttp2_session_want_write(self.session):
            self.close_transport()

    cdef void fill_out(self) noexcept:
        """Collect frames of this connection in the loop's write buffer, until there are none or it is full."""
        cdef const uint8_t *frame
        cdef ssize_t size
        cdef LoopContext context = self.context
        self.in_session = True
        while True:
            if context.out_size > OUT_ROOM - OUT_RESERVE:
                self.out_full = True
                break
            size = nghttp2_session_mem_send(self.session, &frame)
            if size <= 0:
                if size < 0:
                    self.broken = True
                break
            if size > OUT_ROOM - context.out_size:
                self.write_out()
            if size > OUT_ROOM:
                self.broken = True
                break
            memcpy(context.out + context.out_size, frame, size)
            context.out_size += size
        self.in_session = False

    cdef void write_out(self) noexcept:
        cdef Py_ssize_t size = self.context.out_size
        if size == 0:
            return
        self.context.out_size = 0
        try:
            self.transport.write(PyBytes_FromStringAndSize(<const char *>self.context.out, size))
        except (OSError, RuntimeError):  # the transport is closing; connection_lost follows
            self.broken = True

    cdef void close_transport(self) noexcept:
        if self.closing or self.lost:
            return
        self.closing = True
        self.close_at = self.context.refresh() + CLOSE_TIMEOUT
        self.watch()
        self.transport.close()

    cdef void abort(self) noexcept:
        """Drop the connection; at once, or as soon as nghttp2 is not on the stack."""
        self.broken = True
        if not self.in_session:
            self.finish_break()

    cdef void finish_break(self) noexcept:
        self.context.out_size = 0
        if self.lost:
            self.tear_down()
        elif self.transport is not None:
            self.closing = True
            self.transport.abort()

    cdef void terminate(self, uint32_t error_code) noexcept:
        """GOAWAY and close, whatever is still open."""
        if self.session is NULL or self.closing:
            return
        nghttp2_session_terminate_session(self.session, error_code)
        self.close_at = self.context.refresh() + CLOSE_TIMEOUT
        self.watch()
        self.mark_dirty()

    cdef void tear_down(self) noexcept:
        """The socket is gone: end what was open and let everything go."""
        cdef Call call
        if self.session is NULL and self.first_call is None and self.transport is None:
            return
        self.context.disarm(&self.timer)
        while self.first_call is not None:
            call = self.first_call
            call.connection_gone()
            if call is self.first_call:
                self.release(call)
        if self.session is not NULL:
            nghttp2_session_del(self.session)
            self.session = NULL
        self.transport = None
        self.heading = None

    # --- calls ---

    cdef void adopt(self, Call call) noexcept:
        call.conn = self
        call.peer_name = self.peer_name
        call.after = self.first_call
        if self.first_call is not None:
            self.first_call.before = call
        self.first_call = call

    cdef void release(self, Call call) noexcept:
        """Forget a call whose stream is gone."""
        if call.conn is None:
            return
        self.uncount(call)
        self.context.disarm(&call.timer)
        if call.before is not None:
            call.before.after = call.after
        else:
            self.first_call = call.after
        if call.after is not None:
            call.after.before = call.before
        call.before = call.after = None
        call.conn = None
        if self.heading is call:
            self.heading = None

    cdef void uncount(self, Call call) noexcept:
        if call.counted:
            call.counted = False
            self.active -= 1

    cdef Call find(self, int32_t stream_id):
        cdef Call call = self.first_call
        while call is not None and call.stream_id != stream_id:
            call = call.after
        return call

    cdef void reset(self, Call call, uint32_t error_code) noexcept:
        if not call.stream_gone and self.session is not NULL:
            nghttp2_submit_rst_stream(self.session, 0, call.stream_id, error_code)
            self.mark_dirty()

    # --- later in the loop, and checks by the clock ---

    cdef void notify(self) noexcept:
        if not self.in_later:
            self.in_later = True
            self.context.later_connections.append(self)
            self.context.schedule()

    cdef void do_later(self) noexcept:
        pass

    cdef double next_check(self) noexcept:
        cdef double at = 1e18
        if self.close_at != 0.0:
            at = self.close_at
        if self.limits.header_timeout > 0.0:
            if not self.greeted:
                at = min(at, self.born + self.limits.header_timeout)
            elif self.header_since != 0.0:
                at = min(at, self.header_since + self.limits.header_timeout)
        if self.limits.keepalive_interval > 0.0 and self.greeted:
            if self.ping_pending:
                at = min(at, self.ping_sent + self.limits.keepalive_timeout)
            else:
                at = min(at, self.last_read + self.limits.keepalive_interval)
        return at

    cdef void watch(self) noexcept:
        """Have `check` called when the next limit of time may be reached."""
        cdef double at = self.next_check()
        if at < 1e17 and not self.lost and (self.timer.after is NULL or at < self.timer.when):
            self.context.arm(&self.timer, at)

    cdef void check(self) noexcept:
        cdef double now = self.context.now + 0.001
        if self.close_at != 0.0 and now >= self.close_at:
            self.abort()
            return
        if self.limits.header_timeout > 0.0:
            if not self.greeted and now >= self.born + self.limits.header_timeout:
                self.flooded()
                self.abort()
                return
            if self.header_since != 0.0 and now >= self.header_since + self.limits.header_timeout:
                self.flooded()
                self.header_since = 0.0
                self.terminate(NGHTTP2_ENHANCE_YOUR_CALM)
                return
        if self.limits.keepalive_interval > 0.0 and self.greeted:
            self.check_keepalive(now)
        self.watch()

    cdef void check_keepalive(self, double now) noexcept:
        if self.ping_pending:
            if now >= self.ping_sent + self.limits.keepalive_timeout:
                self.abort()
        elif now >= self.last_read + self.limits.keepalive_interval:
            nghttp2_submit_ping(self.session, 0, NULL)
            self.ping_pending = True
            self.ping_sent = self.context.now
            self.mark_dirty()

    cdef bint spend_reset_token(self) noexcept:
        """Rapid reset: False when the peer has used up what it may reset."""
        cdef double now = self.context.now
        self.reset_tokens += (now - self.reset_refilled) * self.limits.reset_rate
        self.reset_refilled = now
        if self.reset_tokens > self.limits.reset_burst:
            self.reset_tokens = self.limits.reset_burst
        self.reset_tokens -= 1.0
        return self.reset_tokens >= 0.0

    # --- what differs between the two ends ---

    cdef void flooded(self) noexcept:
        pass

    cdef void protocol_error(self) noexcept:
        pass

    cdef void oversized(self) noexcept:
        pass

    cdef void got_frame(self, const nghttp2_frame *frame) noexcept:
        pass

    cdef void sent_frame(self, const nghttp2_frame *frame) noexcept:
        pass

    cdef void ping_answered(self) noexcept:
        pass


cdef str name_of_peer(transport):
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        host = f"[{peer[0]}]" if ":" in peer[0] else peer[0]
        return f"{host}:{peer[1]}"
    return str(peer or transport.get_extra_info("sockname") or "unknown")


cdef nghttp2_option *session_options(Limits limits) except NULL:
    cdef nghttp2_option *option
    if nghttp2_option_new(&option) != 0:
        raise MemoryError
    nghttp2_option_set_no_auto_window_update(option, 1)
    nghttp2_option_set_no_closed_streams(option, 1)
    # gRPC's core sends blanks at the ends of grpc-message as they are.
    nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(option, 1)
    nghttp2_option_set_max_outbound_ack(option, limits.max_outbound_acks)
    nghttp2_option_set_max_reserved_remote_streams(option, 0)
    # The precise limit is ours (spend_reset_token), for nghttp2's says INTERNAL_ERROR and refills in steps of a second. It
    # stands behind ours.
    nghttp2_option_set_stream_reset_rate_limit(
        option,
        RESET_SLACK * (<uint64_t>limits.reset_burst + limits.reset_rate),
        RESET_SLACK * <uint64_t>limits.reset_rate + 1,
    )
    limit_continuations(option, 2 + limits.max_header_bytes // 4096)
    return option


cdef void announce(Connection conn, uint32_t max_streams) noexcept:
    """Our SETTINGS and the window of the whole connection."""
    cdef nghttp2_settings_entry entries[3]
    entries[0].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    entries[0].value = conn.limits.stream_window
    entries[1].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
    entries[1].value = conn.limits.max_header_bytes
    if max_streams:
        entries[2].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
        entries[2].value = max_streams
    else:
        entries[2].settings_id = NGHTTP2_SETTINGS_ENABLE_PUSH
        entries[2].value = 0
    nghttp2_submit_settings(conn.session, 0, entries, 3)
    nghttp2_session_set_local_window_size(conn.session, 0, 0, conn.limits.connection_window)
    conn.mark_dirty()


# --- callbacks of nghttp2 --------------------------------------------------------------------------------------------


cdef ssize_t read_data(
    nghttp2_session *session, int32_t stream_id, uint8_t *buffer, size_t length, uint32_t *flags,
    nghttp2_data_source *source, void *user_data
) noexcept:
    """How much of a call's queue goes into the next DATA frame; `send_data` copies it."""
    cdef Call call = <Call>source.ptr
    cdef Connection conn = <Connection>user_data
    cdef Py_ssize_t size = min(<Py_ssize_t>length, call.queued_bytes)
    if conn.context.out_size + size > OUT_ROOM - OUT_RESERVE // 2:
        conn.out_full = True
        return NGHTTP2_ERR_PAUSE
    flags[0] = NGHTTP2_DATA_FLAG_NO_COPY
    if size == call.queued_bytes:
        if call.cut:
            if size == 0:
                nghttp2_submit_rst_stream(session, 0, stream_id, NGHTTP2_INTERNAL_ERROR)
                return NGHTTP2_ERR_DEFERRED
        elif call.closing:
            flags[0] |= NGHTTP2_DATA_FLAG_EOF
            call.local_closed = True
            if isinstance(call, ServerCall):
                flags[0] |= NGHTTP2_DATA_FLAG_NO_END_STREAM
                (<ServerCall>call).submit_trailers()
        elif size == 0:
            call.deferred = True
            return NGHTTP2_ERR_DEFERRED
    return size


cdef int send_data(
    nghttp2_session *session, nghttp2_frame *frame, const uint8_t *header, size_t length, nghttp2_data_source *source,
    void *user_data
) noexcept:
    cdef LoopContext context = (<Connection>user_data).context
    memcpy(context.out + context.out_size, header, 9)
    context.out_size += 9
    if length:
        (<Call>source.ptr).copy_out(context.out + context.out_size, length)
        context.out_size += length
    return 0


cdef int on_data_chunk(
    nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t size, void *user_data
) noexcept:
    cdef void *call = nghttp2_session_get_stream_user_data(session, stream_id)
    if call is NULL:
        nghttp2_session_consume(session, stream_id, size)
    else:
        (<Call>call).receive(data, size)
    return 0


cdef int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *user_data) noexcept:
    cdef void *pointer = nghttp2_session_get_stream_user_data(session, stream_id)
    cdef Call call
    if pointer is not NULL:
        call = <Call>pointer
        nghttp2_session_set_stream_user_data(session, stream_id, NULL)
        call.stream_closed(error_code)
    return 0


cdef int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) noexcept:
    cdef Connection conn = <Connection>user_data
    cdef void *call
    if frame.hd.type == NGHTTP2_DATA:
        if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            call = nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
            if call is not NULL:
                (<Call>call).remote_end()
        elif frame.hd.length == 0 and not conn.spend_reset_token():
            conn.flooded()
            conn.terminate(NGHTTP2_ENHANCE_YOUR_CALM)
        return 0
    if frame.hd.type == NGHTTP2_PING and frame.hd.flags & NGHTTP2_FLAG_ACK:
        conn.ping_answered()
    else:
        conn.got_frame(frame)
    return 0


cdef int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) noexcept:
    if frame.hd.type != NGHTTP2_DATA or frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
        (<Connection>user_data).sent_frame(frame)
    return 0


cdef int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int code, void *user_data) noexcept:
    cdef Connection conn = <Connection>user_data
    conn.protocol_error()
    conn.in_headers = False
    return 0


cdef nghttp2_session_callbacks *new_callbacks() except NULL:
    cdef nghttp2_session_callbacks *callbacks
    if nghttp2_session_callbacks_new(&callbacks) != 0:
        raise MemoryError
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk)
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close)
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv)
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send)
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame)
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_data)
    return callbacks
