# Calls that are passed on, as they are, to another server over a channel: one request message there, and back whatever
# the other server answers, without a line of Python for each. Clients are ServerCalls, or what offers the same.


@cython.final
@cython.freelist(1024)
cdef class PassedCall:
    def __init__(self):
        raise TypeError("calls are passed on by a Passage")

    # What a client whose `context` this is tells.

    cpdef object on_client_drain(self):
        if self.call is not None:
            self.call.resume()

    cpdef object on_client_cancel(self, int status):
        cdef ClientCall call = self.call
        if self.client is None:
            return
        self.let_go()
        if call is not None:
            call.cancel()
        else:
            self.passage.owner.on_withdrawn(self)

    cpdef object fail(self, int status, str message):
        """The client hears this, and no more."""
        client = self.client
        if client is not None:
            self.let_go()
            client.finish(status, message)

    cdef int let_go(self) except -1:
        """Client and call are strangers from now on."""
        client, self.client = self.client, None
        self.call = None
        if type(client) is ServerCall:
            if (<ServerCall>client).context is self:
                (<ServerCall>client).context = None
        elif client.context is self:
            client.context = None
        return 0


@cython.final
cdef class Passage(Handler):
    def __init__(self, owner):
        self.owner = owner
        self.wants_metadata = True

    cpdef object take(self, object client, bytes path, bytes message, bint streams=False, object headers=()):
        cdef PassedCall passed = PassedCall.__new__(PassedCall)
        passed.passage = self
        passed.client = client
        passed.path = path
        passed.message = message
        passed.streams = streams
        passed.headers = headers
        if type(client) is ServerCall:
            (<ServerCall>client).context = passed
            (<ServerCall>client).handler = self
        else:
            client.context = passed
        if self.holding or not self.pass_on(passed):
            self.owner.on_waiting(passed)

    cpdef bint pass_on(self, PassedCall passed) except -1:
        cdef ClientConnection conn
        cdef ClientCall call
        cdef double timeout = 0.0, deadline
        if self.channel is None:
            return False
        conn = self.channel.connection
        if conn.lost or conn.closing or conn.broken or conn.draining or conn.close_at != 0.0:
            return False
        if conn.capacity() <= 0:
            conn.was_full = True
            return False
        if type(passed.client) is ServerCall:
            deadline = (<ServerCall>passed.client).deadline
        else:
            deadline = passed.client.deadline
        if deadline != 0.0:
            timeout = max(deadline - conn.context.now, 0.001)
        call = ClientCall.__new__(ClientCall)
        call.handler = self
        call.context = passed
        call.path = passed.path
        try:
            submit_passed(conn, call, passed.headers, timeout)
        except ChannelUnavailable:
            return False
        call.counted = True
        conn.active += 1
        conn.adopt(call)
        call.push(passed.message, False)
        call.closing = True
        conn.mark_dirty()
        passed.call = call
        passed.tries += 1
        self.passed += 1
        return True

    # --- from the other server ---

    cpdef object on_headers(self, ClientCall call):
        cdef PassedCall passed = <PassedCall>call.context
        if passed.streams and passed.client is not None:
            passed.client.start(call.headers)

    cpdef object on_message(self, Call call, bytes message):
        cdef PassedCall passed = <PassedCall>call.context
        cdef bint taken
        if passed.client is None:
            return
        if not passed.streams:
            if passed.answer is not None:
                call.fault(INTERNAL, "the other server gave two answers")
            else:
                passed.answer = message
            return
        if type(passed.client) is ServerCall:
            taken = (<ServerCall>passed.client).queue(message, False)
        else:
            taken = passed.client.send(message)
        if not taken:
            call.pause()

    cpdef object on_end(self, ClientCall call, int status, str message):
        cdef PassedCall passed = <PassedCall>call.context
        cdef bytes answer
        client = passed.client
        call.context = None
        if client is None:
            return
        if status == UNAVAILABLE and call.grpc_status == 0:
            passed.call = None
            self.owner.on_broken(passed, call.never_processed)
            return
        passed.let_go()
        answer = passed.answer
        if status == OK and answer is not None and call.kept_trailers is None:
            if type(client) is ServerCall:
                (<ServerCall>client).reply(answer, call.kept_headers or ())
            else:
                client.reply(answer, call.kept_headers or ())
            return
        if answer is not None:
            client.start(call.kept_headers or ())
            client.send(answer)
        client.finish(status, message, call.kept_trailers or ())

    # --- from a client that is a ServerCall ---

    cpdef object on_drain(self, Call call):
        if type(call) is ServerCall and type(call.context) is PassedCall:
            (<PassedCall>call.context).on_client_drain()

    cpdef object on_cancel(self, ServerCall call, int status):
        if type(call.context) is PassedCall:
            (<PassedCall>call.context).on_client_cancel(status)


cdef int submit_passed(ClientConnection conn, ClientCall call, object headers, double timeout) except -1:
    """As `submit_request`, without what only strangers need. The deadline is held by whoever has the client."""
    cdef Block block
    cdef bytes timeout_text
    block.size = 0
    put(&block, b":method", 7, b"POST", 4, STATIC)
    put(&block, b":scheme", 7, PyBytes_AS_STRING(conn.scheme), PyBytes_GET_SIZE(conn.scheme), STATIC_NAME)
    put(&block, b":path", 5, PyBytes_AS_STRING(call.path), PyBytes_GET_SIZE(call.path), STATIC_NAME)
    put(&block, b":authority", 10, PyBytes_AS_STRING(conn.authority), PyBytes_GET_SIZE(conn.authority), STATIC_NAME)
    put(&block, b"content-type", 12, b"application/grpc", 16, STATIC)
    if timeout > 0.0:
        timeout_text = encode_timeout(timeout)
        put(&block, b"grpc-timeout", 12, PyBytes_AS_STRING(timeout_text), PyBytes_GET_SIZE(timeout_text), FLEETING)
    if headers:
        put_own(&block, headers)
    return submit_block(conn, call, &block)
