# The accepting end: routing by path, limits, graceful close.

cdef enum:
    MAX_REMEMBERED_PATHS = 4096
    PREFACE_SIZE = 24
    BOMB = 64  # times the bytes of headers that are allowed: nobody means that
cdef double NOTICE_TIMEOUT = 1.0  # seconds for the answer to the PING behind a shutdown notice
cdef bytes PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# An empty SETTINGS frame, then GOAWAY with ENHANCE_YOUR_CALM.
cdef bytes TOO_MANY_CONNECTIONS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11))
cdef bytes NOT_HTTP2 = (
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 26\r\n\r\n"
    b"This port speaks HTTP/2.\r\n"
)


cdef int on_request_header(
    nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
    const uint8_t *value, size_t size, uint8_t flags, void *user_data
) noexcept:
    cdef Connection conn = <Connection>user_data
    cdef ServerCall call
    if conn.heading is None:
        return 0
    call = <ServerCall>conn.heading
    call.header_bytes += name_size + size + 32
    if call.http_refusal == 431:
        return 0 if call.header_bytes <= BOMB * conn.limits.max_header_bytes else cut_off_bomb(conn)
    call.header_count += 1
    if call.header_bytes > conn.limits.max_header_bytes or call.header_count > conn.limits.max_header_count:
        call.http_refusal = 431
        conn.oversized()
        return 0
    call.take_header(name, name_size, value, size)
    return 0


cdef int cut_off_bomb(Connection conn) noexcept:
    """A few bytes that stand for many megabytes of headers cost us their checking: the rest is not even looked at."""
    conn.flooded()
    conn.terminate(NGHTTP2_ENHANCE_YOUR_CALM)
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE


cdef int on_request_begin(nghttp2_session *session, const nghttp2_frame *frame, void *user_data) noexcept:
    cdef ServerConnection conn = <ServerConnection>user_data
    if frame.hd.type == NGHTTP2_HEADERS:
        conn.in_headers = True
        conn.heading = None
        if frame.headers.cat == NGHTTP2_HCAT_REQUEST:
            conn.begin_call(frame.hd.stream_id)
    return 0


cdef nghttp2_session_callbacks *server_callbacks = new_callbacks()
nghttp2_session_callbacks_set_on_begin_headers_callback(server_callbacks, on_request_begin)
nghttp2_session_callbacks_set_on_header_callback(server_callbacks, on_request_header)


cdef class ServerConnection(Connection):
    def __init__(self, Server server):
        self.server = server
        self.context = server.context
        self.limits = server.limits

    def __dealloc__(self):
        PyMem_RawFree(self.early)

    def connection_made(self, transport):
        cdef Server server = self.server
        if server.stopped or len(server.open_connections) >= self.limits.max_connections:
            server.refused_connections += 1
            server.refused_draining += server.stopped
            self.lost = True
            transport.write(TOO_MANY_CONNECTIONS)
            transport.close()
            return
        server.connections_total += 1
        server.open_connections.add(self)
        Connection.connection_made(self, transport)

    def connection_lost(self, error):
        Connection.connection_lost(self, error)
        self.server.connection_gone(self)

    def buffer_updated(self, Py_ssize_t size):
        if self.lost or self.closing:
            return
        if not self.sniffed and not self.sniff(self.context.input, size):
            return
        Connection.buffer_updated(self, size)

    cdef bint sniff(self, const uint8_t *data, Py_ssize_t size) except -1:
        """Whether this is HTTP/2 and not yet decided bytes were consumed; True: go on with the whole buffer."""
        cdef Py_ssize_t known = 0 if self.beginning is None else len(self.beginning)
        cdef Py_ssize_t part = min(size, PREFACE_SIZE - known)
        if memcmp(data, PyBytes_AS_STRING(PREFACE) + known, part) != 0:
            self.not_http2((self.beginning or b"") + PyBytes_FromStringAndSize(<const char *>data, size))
            return False
        if known + part < PREFACE_SIZE:
            self.beginning = (self.beginning or b"") + PyBytes_FromStringAndSize(<const char *>data, size)
            return False
        self.sniffed = True
        self.open_session()
        if self.beginning is not None:
            self.feed(<const uint8_t *>PyBytes_AS_STRING(self.beginning), known)
            self.beginning = None
        return True

    def not_http2(self, bytes data):
        transport = self.transport
        if self.server.http1 is None:
            self.server.protocol_errors += 1
            transport.write(NOT_HTTP2)
            self.close_transport()
            return
        self.lost = True
        self.tear_down()
        self.server.connection_gone(self)
        protocol = self.server.http1(data)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)

    cdef void open_session(self) noexcept:
        """Not before the preface has come: whoever speaks another protocol is not to be greeted in this one."""
        cdef nghttp2_option *option = session_options(self.limits)
        nghttp2_session_server_new3(&self.session, server_callbacks, <void *>self, option, &memory)
        nghttp2_option_del(option)
        announce(self, self.limits.announced_streams)

    cdef void begin_call(self, int32_t stream_id) noexcept:
        cdef ServerCall call = ServerCall.__new__(ServerCall)
        call.stream_id = stream_id
        self.early_size = 0
        self.adopt(call)
        self.heading = call
        nghttp2_session_set_stream_user_data(self.session, stream_id, <void *>call)

    # --- requests that are not gRPC's ---

    cdef void begin_web(self, ServerCall call) noexcept:
        """Another kind of call takes the place of `call`, whose headers showed it."""
        cdef WebCall web = WebCall.__new__(WebCall)
        web.stream_id = call.stream_id
        web.path = call.path
        web.verb = call.verb
        web.handler = self.server.web
        web.kept_headers = self.early_headers() + (call.kept_headers or [])
        self.release(call)
        self.adopt(web)
        nghttp2_session_set_stream_user_data(self.session, web.stream_id, <void *>web)
        web.open()

    cdef void keep_early(
        self, const uint8_t *name, Py_ssize_t name_size, const uint8_t *value, Py_ssize_t size
    ) noexcept:
        """Sizes and bytes, one header after the other: most blocks turn out to be of gRPC, where nobody asks for them."""
        cdef Py_ssize_t needed = self.early_size + 2 * sizeof(Py_ssize_t) + name_size + size
        cdef uint8_t *moved
        if needed > self.early_room:
            moved = <uint8_t *>PyMem_RawRealloc(self.early, 2 * needed)
            if moved is NULL:
                self.abort()
                return
            self.early = moved
            self.early_room = 2 * needed
        moved = self.early + self.early_size
        memcpy(moved, &name_size, sizeof(Py_ssize_t))
        memcpy(moved + sizeof(Py_ssize_t), &size, sizeof(Py_ssize_t))
        memcpy(moved + 2 * sizeof(Py_ssize_t), name, name_size)
        memcpy(moved + 2 * sizeof(Py_ssize_t) + name_size, value, size)
        self.early_size = needed

    cdef list early_headers(self):
        cdef list headers = []
        cdef const char *at = <const char *>self.early
        cdef const char *end = at + self.early_size
        cdef Py_ssize_t sizes[2]
        while at < end:
            memcpy(sizes, at, sizeof(sizes))
            at += sizeof(sizes)
            headers.append(
                (PyBytes_FromStringAndSize(at, sizes[0]), PyBytes_FromStringAndSize(at + sizes[0], sizes[1]))
            )
            at += sizes[0] + sizes[1]
        return headers

    cdef void got_frame(self, const nghttp2_frame *frame) noexcept:
        if frame.hd.type == NGHTTP2_HEADERS:
            self.got_headers(frame)
        elif frame.hd.type == NGHTTP2_SETTINGS:
            self.greeted = True
            self.watch()
        elif frame.hd.type == NGHTTP2_RST_STREAM and not self.spend_reset_token():
            self.flooded()
            self.terminate(NGHTTP2_ENHANCE_YOUR_CALM)

    cdef void got_headers(self, const nghttp2_frame *frame) noexcept:
        cdef void *call
        cdef ServerCall heading = <ServerCall>self.heading  # which a WebCall may displace
        self.in_headers = False
        if heading is not None:
            heading.begin()
            self.heading = None
        if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
            call = nghttp2_session_get_stream_user_data(self.session, frame.hd.stream_id)
            if call is not NULL:
                (<Call>call).remote_end()

    cdef void sent_frame(self, const nghttp2_frame *frame) noexcept:
        cdef void *call
        if frame.hd.type == NGHTTP2_HEADERS or frame.hd.type == NGHTTP2_DATA:
            if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
                call = nghttp2_session_get_stream_user_data(self.session, frame.hd.stream_id)
                if call is not NULL and not (<Call>call).remote_closed:
                    nghttp2_submit_rst_stream(self.session, 0, frame.hd.stream_id, NGHTTP2_NO_ERROR)
        elif frame.hd.type == NGHTTP2_GOAWAY and frame.goaway.error_code != NGHTTP2_NO_ERROR:
            if not self.blamed and not self.punished:
                self.protocol_error()
            self.close_at = self.context.refresh() + CLOSE_TIMEOUT
            self.watch()
        elif frame.hd.type == NGHTTP2_RST_STREAM and frame.rst_stream.error_code == NGHTTP2_PROTOCOL_ERROR:
            if not self.spend_reset_token():  # the peer makes us reset: the same attack in reverse
                self.flooded()
                self.terminate(NGHTTP2_ENHANCE_YOUR_CALM)

    cdef void uncount(self, Call call) noexcept:
        if call.counted:
            call.counted = False
            self.active -= 1
            self.server.streams -= 1
            if self.active == 0:
                self.idle_since = self.context.now
                if self.limits.idle_timeout > 0.0:
                    self.watch()

    # --- checks ---

    cdef double next_check(self) noexcept:
        cdef double at = Connection.next_check(self)
        if self.limits.idle_timeout > 0.0 and self.active == 0 and not self.draining:
            at = min(at, max(self.idle_since, self.born) + self.limits.idle_timeout)
        if self.notice_sent:
            at = min(at, self.notice_at + NOTICE_TIMEOUT)
        return at

    cdef void check(self) noexcept:
        if self.limits.idle_timeout > 0.0 and self.active == 0 and not self.draining:
            if self.context.now + 0.001 >= max(self.idle_since, self.born) + self.limits.idle_timeout:
                self.drain(False)
        if self.notice_sent and self.context.now + 0.001 >= self.notice_at + NOTICE_TIMEOUT:
            self.final_goaway()
        Connection.check(self)

    cdef void flooded(self) noexcept:
        if not self.punished:
            self.punished = True
            self.server.floods += 1

    cdef void protocol_error(self) noexcept:
        self.blamed = True
        self.server.protocol_errors += 1

    cdef void oversized(self) noexcept:
        self.server.oversized += 1

    # --- graceful close ---

    cdef void drain(self, bint at_once) noexcept:
        """Announce the end; the last stream is named when the peer has surely read the announcement."""
        if self.draining:
            return
        self.draining = True
        if self.session is NULL:
            self.close_transport()
            return
        if at_once or not self.greeted:
            self.notice_sent = True
            self.final_goaway()
            return
        nghttp2_submit_shutdown_notice(self.session)
        nghttp2_submit_ping(self.session, 0, NULL)
        self.notice_sent = True
        self.notice_at = self.context.refresh()
        self.watch()
        self.mark_dirty()

    cdef void ping_answered(self) noexcept:
        if self.notice_sent:
            self.final_goaway()

    cdef void final_goaway(self) noexcept:
        if self.session is NULL or not self.notice_sent:
            return
        self.notice_sent = False
        nghttp2_submit_goaway(
            self.session, 0, nghttp2_session_get_last_proc_stream_id(self.session), NGHTTP2_NO_ERROR, NULL, 0
        )
        self.mark_dirty()

    cdef void cancel_all(self) noexcept:
        self.terminate(NGHTTP2_NO_ERROR)


class ServerProtocol(ServerConnection, asyncio.BufferedProtocol):
    __slots__ = ()


cdef class Server:
    def __init__(self, loop, lookup, *, Limits limits=None, http1=None, Handler web=None):
        self.loop = loop
        self.lookup = lookup
        self.limits = Limits() if limits is None else limits
        self.http1 = http1
        self.web = web
        self.context = context_of(loop)
        self.listeners = []
        self.open_connections = set()
        self.routes = {}
        self.unknown_routes = {}
        self.all_figures = {}
        self.other_figures = CallFigures(b"")
        self.shed = {}

    @property
    def figures(self):
        return [self.other_figures, *self.all_figures.values()]

    cpdef str refusal(self, Py_ssize_t counted=0):
        cdef Py_ssize_t calls = self.streams + self.other_calls - counted
        cdef str reason = self.shedding
        if reason is None:
            # Once there are too many it goes on until clearly fewer are left.
            self.crowded = 0 < self.max_calls <= calls + (self.max_calls // 10 if self.crowded else 0)
            if not self.crowded:
                return None
            reason = "max_calls_in_flight"
        self.shed[reason] = self.shed.get(reason, 0) + 1
        return reason

    cdef CallFigures figures_of(self, bytes path, Handler handler):
        cdef CallFigures figures = self.all_figures.get(path)
        if handler is None or (figures is None and len(self.all_figures) >= MAX_REMEMBERED_PATHS):
            return self.other_figures
        if figures is None:
            figures = self.all_figures[path] = CallFigures(path)
        return figures

    @property
    def connections(self):
        return len(self.open_connections)

    @property
    def counters(self):
        return {
            "connections_total": self.connections_total,
            "calls_total": self.calls_total,
            "refused_streams": self.refused_streams,
            "refused_connections": self.refused_connections,
            "oversized": self.oversized,
            "floods": self.floods,
            "protocol_errors": self.protocol_errors,
            "cancelled": self.cancelled,
            "expired": self.expired,
            "untaken": self.untaken,
            "refused_draining": self.refused_draining,
        }

    async def listen_tcp(self, host, port, *, reuse_port=False, ssl=None, backlog=1024):
        times = {}
        if ssl is not None:
            times["ssl_shutdown_timeout"] = CLOSE_TIMEOUT
            if self.limits.header_timeout > 0.0:
                times["ssl_handshake_timeout"] = self.limits.header_timeout
        listener = await self.loop.create_server(
            self.new_protocol,
            host,
            port,
            reuse_port=reuse_port or None,
            ssl=ssl,
            backlog=backlog,
            **times,
        )
        self.listeners.append(listener)
        return listener.sockets[0].getsockname()[1]

    async def listen_unix(self, path, *, backlog=1024):
        self.listeners.append(await self.loop.create_unix_server(self.new_protocol, path, backlog=backlog))

    def new_protocol(self):
        return ServerProtocol(self)

    # --- routing ---

    cdef void route(self, ServerCall call, const uint8_t *path, Py_ssize_t size) noexcept:
        if (
            self.last_path is None
            or PyBytes_GET_SIZE(self.last_path) != size
            or memcmp(PyBytes_AS_STRING(self.last_path), path, size) != 0
        ):
            self.find_route(PyBytes_FromStringAndSize(<const char *>path, size))
        call.path = self.last_path
        call.handler = self.last_handler
        call.figures = self.last_figures

    cdef void find_route(self, bytes path) noexcept:
        cdef Handler handler = self.routes.get(path)
        if handler is None and path not in self.unknown_routes:
            try:
                handler = self.lookup(path)
            except BaseException:
                log.exception("lookup of %r failed", path)
            self.remember(path, handler)
        self.last_path = path
        self.last_handler = handler
        self.last_figures = self.figures_of(path, handler)

    cdef void remember(self, bytes path, Handler handler) noexcept:
        # Apart, so that a client that asks for unknown paths pushes no known one out.
        cdef dict known = self.unknown_routes if handler is None else self.routes
        if len(known) >= MAX_REMEMBERED_PATHS:
            known.clear()
        known[path] = handler

    cpdef object forget(self):
        self.routes.clear()
        self.unknown_routes.clear()
        self.last_path = None
        self.last_handler = None

    # --- the end ---

    cpdef object stop_accepting(self):
        self.stopped = True
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()

    async def close(self, double grace=0.0):
        cdef ServerConnection connection
        self.stop_accepting()
        for connection in list(self.open_connections):
            connection.drain(grace <= 0.0)
        if grace > 0.0:
            await self.wait_closed(grace / 2)
            for connection in list(self.open_connections):
                connection.final_goaway()
            await self.wait_closed(grace / 2)
        for connection in list(self.open_connections):
            connection.cancel_all()
        await self.wait_closed(CLOSE_TIMEOUT)
        for connection in list(self.open_connections):
            connection.abort()
        await self.wait_closed(CLOSE_TIMEOUT)

    async def wait_closed(self, double seconds):
        if not self.open_connections:
            return
        if self.closed_waiter is None:
            self.closed_waiter = self.loop.create_future()
        await asyncio.wait([self.closed_waiter], timeout=seconds)

    cdef void connection_gone(self, ServerConnection connection) noexcept:
        self.open_connections.discard(connection)
        if not self.open_connections and self.closed_waiter is not None and not self.closed_waiter.done():
            self.closed_waiter.set_result(None)
