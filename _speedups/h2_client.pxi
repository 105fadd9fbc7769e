# The opening end: one connection, its capacity, and the calls on it.

cdef enum:
    LAST_STREAM_ID = 0x7FFFFFFD
cdef double CONNECT_TIMEOUT = 10.0
cdef uint32_t UNLIMITED = 0xFFFFFFFF


cdef int on_response_begin(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) noexcept:
    cdef Connection conn = <Connection>user_data
    cdef void *call
    if frame.hd.type == NGHTTP2_HEADERS:
        conn.in_headers = True
        call = nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
        conn.heading = <Call>call if call is not NULL else None
    return 0


cdef int on_response_header(
    nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
    const uint8_t *value, size_t size, uint8_t flags, void *user_data
) noexcept:
    cdef Connection conn = <Connection>user_data
    cdef ClientCall call
    if conn.heading is None:
        return 0
    call = <ClientCall>conn.heading
    call.header_bytes += name_size + size + 32
    call.header_count += 1
    if call.header_bytes > conn.limits.max_header_bytes or call.header_count > conn.limits.max_header_count:
        conn.heading = None
        call.end_with_reset(RESOURCE_EXHAUSTED, "the peer's headers are larger than the limit")
        return 0
    call.take_header(name, name_size, value, size, frame.hd.flags & NGHTTP2_FLAG_END_STREAM)
    return 0


cdef int on_request_not_sent(nghttp2_session *session, const nghttp2_frame *frame, int code, void *user_data) noexcept:
    cdef Call call
    if frame.hd.type == NGHTTP2_HEADERS and frame.headers.cat == NGHTTP2_HCAT_REQUEST:
        call = (<Connection>user_data).find(frame.hd.stream_id)
        if call is not None:
            # nghttp2 may have opened the stream already, and then closes it after this callback.
            nghttp2_session_set_stream_user_data(session, frame.hd.stream_id, NULL)
            (<ClientCall>call).not_sent()
    return 0


cdef nghttp2_session_callbacks *client_callbacks = new_callbacks()
nghttp2_session_callbacks_set_on_begin_headers_callback(client_callbacks, on_response_begin)
nghttp2_session_callbacks_set_on_header_callback(client_callbacks, on_response_header)
nghttp2_session_callbacks_set_on_frame_not_send_callback(client_callbacks, on_request_not_sent)


cdef class ClientConnection(Connection):
    def __init__(self, LoopContext context, Limits limits, bytes authority, bytes scheme, ready):
        self.context = context
        self.limits = limits
        self.authority = authority
        self.scheme = scheme
        self.ready = ready
        self.peer_max_streams = UNLIMITED

    def connection_lost(self, error):
        Connection.connection_lost(self, error)
        if self.ready is not None and not self.ready.done():
            self.ready.set_exception(ConnectionResetError("the peer closed the connection before its SETTINGS"))
        self.notify()

    cdef void start_session(self) noexcept:
        cdef nghttp2_option *option = session_options(self.limits)
        nghttp2_session_client_new3(&self.session, client_callbacks, <void *>self, option, &memory)
        nghttp2_option_del(option)
        announce(self, 0)

    cdef void got_frame(self, const nghttp2_frame *frame) noexcept:
        if frame.hd.type == NGHTTP2_HEADERS:
            self.in_headers = False
            if self.heading is not None:
                self.got_headers(<ClientCall>self.heading, frame.hd.flags & NGHTTP2_FLAG_END_STREAM)
        elif frame.hd.type == NGHTTP2_SETTINGS:
            if not frame.hd.flags & NGHTTP2_FLAG_ACK:
                self.got_settings()
        elif frame.hd.type == NGHTTP2_GOAWAY:
            self.draining = True
            self.notify()

    cdef void got_headers(self, ClientCall call, bint last) noexcept:
        self.heading = None
        if last:
            call.remote_end()
        elif call.http_status >= 200 and not call.ended and not call.end_due:
            if call.http_status != 200 or not call.typed:
                call.deaf = True  # not a gRPC answer: the status is told at its end
                return
            try:
                call.handler.on_headers(call)
            except BaseException:
                call.handler_failed("on_headers")

    cdef void got_settings(self) noexcept:
        cdef uint32_t announced = nghttp2_session_get_remote_settings(
            self.session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
        )
        cdef bint changed = announced != self.peer_max_streams
        self.peer_max_streams = announced
        self.greeted = True
        self.watch()
        if self.ready is not None:
            if not self.ready.done():
                self.ready.set_result(None)
            self.ready = None
        elif changed:
            self.was_full = self.capacity() <= 0
            self.notify()

    cdef void sent_frame(self, const nghttp2_frame *frame) noexcept:
        cdef void *call
        if frame.hd.type == NGHTTP2_HEADERS:
            call = nghttp2_session_get_stream_user_data(self.session, frame.hd.stream_id)
            if call is not NULL:
                (<Call>call).headers_sent = True

    cdef void uncount(self, Call call) noexcept:
        if call.counted:
            call.counted = False
            self.active -= 1
            if self.was_full and self.capacity() > 0:
                self.was_full = False
                self.notify()

    cdef Py_ssize_t capacity(self) noexcept:
        return min(<Py_ssize_t>self.peer_max_streams, <Py_ssize_t>self.limits.max_streams) - self.active

    cdef void do_later(self) noexcept:
        cdef Channel channel = self.channel
        if self.lost:
            self.channel = None  # it points here too
        if channel is None or channel.on_change is None:
            return
        try:
            channel.on_change(channel)
        except BaseException:
            log.exception("on_change of a channel raised")


class ClientProtocol(ClientConnection, asyncio.BufferedProtocol):
    __slots__ = ()


cdef class Channel:
    def __init__(self):
        raise TypeError("use Channel.connect or Channel.connect_unix")

    @staticmethod
    async def connect(loop, host, port, *, Limits limits=None, ssl=None, authority=None, server_hostname=None):
        def dial(new_protocol):
            return loop.create_connection(new_protocol, host, port, ssl=ssl, server_hostname=server_hostname)

        name = authority or f"{host}:{port}"
        return await connect(loop, dial, limits, name.encode(), b"https" if ssl else b"http")

    @staticmethod
    async def connect_unix(loop, path, *, Limits limits=None):
        def dial(new_protocol):
            return loop.create_unix_connection(new_protocol, path)

        return await connect(loop, dial, limits, b"localhost", b"http")

    @property
    def active(self):
        return self.connection.active

    @property
    def capacity(self):
        return self.connection.capacity()

    @property
    def peer_max_streams(self):
        return self.connection.peer_max_streams

    @property
    def draining(self):
        return self.connection.draining

    @property
    def closed(self):
        return self.connection.lost or self.connection.closing or self.connection.close_at != 0.0

    cdef Py_ssize_t get_capacity(self) noexcept:
        return self.connection.capacity()

    cpdef ClientCall open(self, bytes path, Handler handler, object context=None, object headers=(), double timeout=0.0):
        cdef ClientConnection conn = self.connection
        cdef ClientCall call
        if self.closed:
            raise ChannelUnavailable("the channel is closed")
        if conn.draining:
            raise ChannelUnavailable("the channel is draining: the peer takes no more calls on it")
        if conn.capacity() <= 0:
            conn.was_full = True
            raise ChannelUnavailable(f"the channel has no capacity: {conn.active} calls are open")
        call = ClientCall.__new__(ClientCall)
        call.handler = handler
        call.context = context
        call.path = path
        submit_request(conn, call, headers, timeout)
        call.counted = True
        conn.active += 1
        if conn.capacity() <= 0:
            conn.was_full = True
        conn.adopt(call)
        if timeout > 0.0:
            call.deadline = conn.context.refresh() + timeout
            conn.context.arm(&call.timer, call.deadline)
        conn.mark_dirty()
        return call

    cpdef object close(self):
        self.connection.terminate(NGHTTP2_NO_ERROR)


cdef int submit_request(ClientConnection conn, ClientCall call, object headers, double timeout) except -1:
    cdef Block block
    cdef bytes timeout_text
    block.size = 0
    put(&block, b":method", 7, b"POST", 4, STATIC)
    put(&block, b":scheme", 7, PyBytes_AS_STRING(conn.scheme), PyBytes_GET_SIZE(conn.scheme), STATIC_NAME)
    put(&block, b":path", 5, PyBytes_AS_STRING(call.path), PyBytes_GET_SIZE(call.path), STATIC_NAME)
    put(&block, b":authority", 10, PyBytes_AS_STRING(conn.authority), PyBytes_GET_SIZE(conn.authority), STATIC_NAME)
    put(&block, b"te", 2, b"trailers", 8, STATIC)
    put(&block, b"content-type", 12, b"application/grpc", 16, STATIC)
    put(&block, b"grpc-accept-encoding", 20, b"identity,gzip", 13, STATIC)
    put(&block, b"user-agent", 10, b"grpc-stateside", 14, STATIC)
    if timeout > 0.0:
        timeout_text = encode_timeout(timeout)
        put(&block, b"grpc-timeout", 12, PyBytes_AS_STRING(timeout_text), PyBytes_GET_SIZE(timeout_text), FLEETING)
    if headers:
        put_own(&block, headers)
    return submit_block(conn, call, &block)


cdef int submit_block(ClientConnection conn, ClientCall call, Block *block) except -1:
    cdef nghttp2_data_provider provider
    provider.source.ptr = <void *>call
    provider.read_callback = read_data
    call.stream_id = nghttp2_submit_request(conn.session, NULL, block.items, block.size, &provider, <void *>call)
    if call.stream_id < 0:
        conn.draining = True  # all stream ids of this connection are used up
        conn.notify()
        raise ChannelUnavailable("the channel is used up: no stream id is left")
    call.started = True
    return 0


async def connect(loop, dial, Limits limits, bytes authority, bytes scheme):
    """A Channel over what `dial` connects, once the peer's SETTINGS came."""
    cdef Channel channel = Channel.__new__(Channel)
    cdef ClientConnection conn
    if not nghttp2_check_header_value_rfc9113(<const uint8_t *>PyBytes_AS_STRING(authority), len(authority)):
        raise ValueError(f"authority {authority!r} cannot be sent")
    ready = loop.create_future()
    conn = ClientProtocol(context_of(loop), Limits() if limits is None else limits, authority, scheme, ready)
    channel.connection = conn

    async def settle():
        await dial(lambda: conn)
        await ready

    try:
        await asyncio.wait_for(settle(), CONNECT_TIMEOUT)
    except asyncio.TimeoutError:
        conn.abort()
        raise TimeoutError(f"no HTTP/2 SETTINGS within {CONNECT_TIMEOUT} s") from None
    except BaseException:
        conn.abort()
        raise
    conn.channel = channel
    return channel
