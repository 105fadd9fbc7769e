"""Shape of the transport: what h2.pyi promises, for those who cimport it, and the state behind it.

A `Connection` owns one nghttp2 session and holds its calls in an intrusive list; nghttp2 keeps borrowed pointers to them. A `LoopContext` is shared by all
connections of one event loop: read buffer, write buffer, the list of connections to flush, and the timer wheel.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from stateside._speedups.accesslog cimport AccessLog
from stateside._speedups.histogram cimport Histogram
from stateside._speedups.nghttp2 cimport nghttp2_frame, nghttp2_session

cdef enum:
    WHEEL_SLOTS = 512
    INLINE_CHUNKS = 2
    CODES = 18  # those of gRPC, and one for whatever else


cdef struct Timer:
    # A node of the timer wheel, embedded in its owner. `owner` is borrowed.
    Timer *before
    Timer *after
    double when
    void *owner
    bint of_call


cdef struct Chunk:
    # One entry of a send queue: an owned bytes object, to be preceded by its length prefix or already framed.
    void *data
    bint framed


cdef class Handler:
    cdef public bint unary
    cdef public bint wants_headers
    cdef public bint wants_metadata
    cdef public bint essential
    cpdef object on_request(self, ServerCall call, bytes message)
    cpdef object on_metadata(self, ServerCall call)
    cpdef object on_open(self, ServerCall call)
    cpdef object on_headers(self, ClientCall call)
    cpdef object on_message(self, Call call, bytes message)
    cpdef object on_half_close(self, ServerCall call)
    cpdef object on_drain(self, Call call)
    cpdef object on_cancel(self, ServerCall call, int status)
    cpdef object on_end(self, ClientCall call, int status, str message)
    cpdef object on_web(self, WebCall call, bytes body)
    cpdef object on_gone(self, WebCall call)


cdef class CallFigures:
    cdef readonly bytes path
    cdef readonly Histogram seconds
    cdef readonly int64_t bytes_in, bytes_out
    cdef int64_t tallies[CODES]
    cdef bytes escaped_path


cdef class Call:
    cdef public object context
    cdef public Handler handler  # written by who takes a call over
    cdef readonly bytes path
    cdef readonly bint ended
    cdef readonly double deadline
    cdef readonly Py_ssize_t queued_bytes
    cdef Connection conn  # None once the stream is gone
    cdef Call before, after  # neighbours in the connection's list
    cdef list kept_headers, kept_trailers
    cdef str peer_name
    cdef int32_t stream_id
    cdef Timer timer
    # headers as they come
    cdef int header_bytes, header_count
    cdef int encoding  # of the peer's messages
    cdef int http_status, grpc_status
    cdef bytes verb  # of the request, unless POST
    cdef bytes grpc_message
    cdef int refusal, http_refusal
    cdef str refusal_text
    # send queue
    cdef Chunk *chunks
    cdef Chunk inline_chunks[INLINE_CHUNKS]
    cdef Py_ssize_t chunk_room, chunk_first, chunk_count, chunk_offset
    cdef bint started  # own headers submitted
    cdef bint closing  # nothing more will be queued
    cdef bint deferred  # nghttp2 was told that there is no data at present
    cdef bint blocked  # send answered False
    cdef bint cut  # reset after what is queued
    cdef bint counted  # in Connection.active
    # receiving
    cdef uint8_t prefix[5]
    cdef int prefix_size
    cdef bint compressed
    cdef void *building  # bytes object of the message that is being put together, owned
    cdef Py_ssize_t message_size, built
    cdef bytes request
    cdef uint8_t *held  # raw bytes kept while paused
    cdef Py_ssize_t held_size, held_first, held_room, owed_connection
    cdef bint paused
    cdef bint local_closed  # END_STREAM is on its way
    cdef bint stream_gone  # nghttp2 has forgotten the stream
    cdef bint headers_sent  # client: the request has left
    cdef bint never_processed
    cdef bint typed  # a content-type of gRPC came
    cdef object own_trailers
    cdef CallFigures figures  # server: where the call is counted
    cdef public str note  # server: what the access log is to say beside, the entity key
    cdef double began  # server: when its headers were complete
    cdef double message_due  # server: when the message of a unary call, or more of it, has to be there; 0.0: it is
    cdef Py_ssize_t message_steps
    cdef int64_t bytes_in, bytes_out  # of messages, as they are on the wire
    cdef bint deaf  # what still comes is thrown away
    cdef bint remote_closed  # END_STREAM came
    cdef bint remote_end_due  # ... and is to be told after what is held
    cdef bint opened  # the handler has seen the call
    cdef bint in_later, resume_due, drain_due, end_due
    cdef int end_status
    cdef str end_message

    cpdef bint send(self, bytes message) except -1
    cpdef bint send_framed(self, bytes data) except -1
    cpdef object pause(self)
    cpdef object resume(self)

    cdef bint queue(self, bytes data, bint framed) except -1
    cdef int push(self, bytes data, bint framed) except -1
    cdef void pop_chunk(self) noexcept
    cdef void drop_queue(self) noexcept
    cdef void copy_out(self, uint8_t *to, Py_ssize_t size) noexcept
    cdef void wake(self) noexcept
    cdef void receive(self, const uint8_t *data, Py_ssize_t size) noexcept
    cdef Py_ssize_t parse(self, const uint8_t *data, Py_ssize_t size) noexcept
    cdef Py_ssize_t parse_prefix(self, const uint8_t *data, Py_ssize_t size) noexcept
    cdef Py_ssize_t build(self, const uint8_t *data, Py_ssize_t size) noexcept
    cdef bint grow_building(self, Py_ssize_t needed) noexcept
    cdef bint begin_message(self, int flag, Py_ssize_t size) noexcept
    cdef void complete(self, bytes message, bint compressed) noexcept
    cdef bytes decompress(self, bytes message)
    cdef void hold(self, const uint8_t *data, Py_ssize_t size) noexcept
    cdef void release_held(self) noexcept
    cdef void forget_held(self, Py_ssize_t size) noexcept
    cdef void forget_building(self) noexcept
    cdef void drop_received(self) noexcept
    cdef void remote_end(self) noexcept
    cdef void do_later(self) noexcept
    cdef void schedule(self) noexcept
    cdef void deliver(self, bytes message) noexcept
    cdef void fault(self, int status, str text) noexcept
    cdef void tell_remote_end(self) noexcept
    cdef void stream_closed(self, uint32_t error_code) noexcept
    cdef void connection_gone(self) noexcept
    cdef void expire(self) noexcept
    cdef void handler_failed(self, str where) noexcept


cdef class ServerCall(Call):
    cpdef object start(self, object headers=*)
    cpdef object reply(self, bytes message, object headers=*)
    cpdef object finish(self, int status=*, str message=*, object trailers=*)
    cpdef object fail(self, int status, str message)
    cdef int submit_headers(self, object headers) except -1
    cdef void close_with(self, int status, str text, object trailers) noexcept
    cdef void await_message(self) noexcept
    cdef bint bytes_received(self, Py_ssize_t size) noexcept
    cdef void tally(self, int status) noexcept
    cdef void submit_trailers_only(self) noexcept
    cdef void submit_trailers(self) noexcept
    cdef void refuse(self) noexcept
    cdef void begin(self) noexcept
    cdef void tell_request(self) noexcept
    cdef void tell_cancel(self, int status) noexcept
    cdef void take_header(self, const uint8_t *name, size_t name_size, const uint8_t *value, size_t size) noexcept


cdef class WebCall(Call):
    cpdef object answer(self, int status, object headers=*, bytes body=*)
    cpdef object begin(self, int status, object headers=*)
    cpdef bint write(self, bytes data) except -1
    cpdef object end(self, bint complete=*)
    cdef bint is_head(self) noexcept
    cdef void conclude(self) noexcept
    cdef int submit(self, int status, object headers, bint with_body) except -1
    cdef void open(self) noexcept
    cdef Py_ssize_t announced_bytes(self)
    cdef void begin_body(self) noexcept
    cdef void too_large(self) noexcept
    cdef void refuse(self, int status, str text) noexcept


cdef class ClientCall(Call):
    cpdef object half_close(self)
    cpdef object cancel(self)
    cdef void end(self, int status, str text) noexcept
    cdef void end_with_reset(self, int status, str text) noexcept
    cdef int final_status(self) noexcept
    cdef void not_sent(self) noexcept
    cdef void take_header(
        self, const uint8_t *name, size_t name_size, const uint8_t *value, size_t size, bint last) noexcept


cdef class Limits:
    cdef readonly Py_ssize_t max_message_size, send_high_water, send_low_water
    cdef readonly int max_header_bytes, max_header_count, max_streams, max_connections
    cdef readonly int stream_window, connection_window
    cdef readonly uint32_t announced_streams
    cdef readonly int reset_burst, reset_rate, max_outbound_acks
    cdef readonly double header_timeout, idle_timeout, keepalive_interval, keepalive_timeout


cdef class LoopContext:
    cdef object loop, call_soon, run_bound, alarm_bound, alarm, __weakref__
    cdef list dirty, later_calls, later_connections
    cdef bint scheduled
    cdef uint8_t *input
    cdef object input_view
    cdef uint8_t *out
    cdef Py_ssize_t out_size
    cdef double now, alarm_at
    cdef Timer slots[WHEEL_SLOTS]
    cdef int64_t wheel_tick
    cdef Py_ssize_t armed

    cdef double refresh(self) noexcept
    cdef void schedule(self) noexcept
    cdef void flush_all(self) noexcept
    cdef void arm(self, Timer *timer, double when) noexcept
    cdef void disarm(self, Timer *timer) noexcept
    cdef void set_alarm(self, int64_t tick) noexcept
    cdef void set_next_alarm(self) noexcept
    cdef void fire_slot(self, int64_t slot) noexcept


cdef class Connection:
    cdef LoopContext context
    cdef Limits limits
    cdef nghttp2_session *session
    cdef object transport
    cdef str peer_name
    cdef Call first_call
    cdef Call heading  # whose header block is arriving
    cdef Py_ssize_t active  # calls that count against the limits
    cdef Py_ssize_t held_bytes, built_bytes, queued_bytes  # of all calls
    cdef Timer timer
    cdef bint dirty, in_later, write_paused, greeted, in_headers, in_session
    cdef bint closing  # the transport was told to close
    cdef bint broken  # abort as soon as nghttp2 is not on the stack
    cdef bint lost
    cdef bint out_full
    cdef bint ping_pending
    cdef double born, last_read, header_since, ping_sent, idle_since, close_at, reset_tokens, reset_refilled

    cdef void start_session(self) noexcept
    cdef void mark_dirty(self) noexcept
    cdef void notify(self) noexcept
    cdef void do_later(self) noexcept
    cdef void feed(self, const uint8_t *data, Py_ssize_t size) noexcept
    cdef void flush(self) noexcept
    cdef void fill_out(self) noexcept
    cdef void write_out(self) noexcept
    cdef void close_transport(self) noexcept
    cdef void abort(self) noexcept
    cdef void finish_break(self) noexcept
    cdef size_t queue_limit(self) noexcept
    cdef void terminate(self, uint32_t error_code) noexcept
    cdef void adopt(self, Call call) noexcept
    cdef void release(self, Call call) noexcept
    cdef void uncount(self, Call call) noexcept
    cdef Call find(self, int32_t stream_id)
    cdef void reset(self, Call call, uint32_t error_code) noexcept
    cdef bint spend_reset_token(self) noexcept
    cdef double next_check(self) noexcept
    cdef void watch(self) noexcept
    cdef void check(self) noexcept
    cdef void check_keepalive(self, double now) noexcept
    cdef void tear_down(self) noexcept
    cdef void flooded(self) noexcept
    cdef void protocol_error(self) noexcept
    cdef void oversized(self) noexcept
    cdef Py_ssize_t building_limit(self) noexcept
    cdef Py_ssize_t queued_limit(self) noexcept
    cdef void after_read(self) noexcept
    cdef void got_frame(self, const nghttp2_frame *frame) noexcept
    cdef void sent_frame(self, const nghttp2_frame *frame) noexcept
    cdef void ping_answered(self) noexcept


cdef class ServerConnection(Connection):
    cdef Server server
    cdef bytes beginning  # what came before it was clear that this is HTTP/2
    cdef uint8_t *early  # headers of the block that is arriving, while it is not known to be of gRPC
    cdef Py_ssize_t early_size, early_room
    cdef bint sniffed, draining, notice_sent
    cdef bint punished, blamed  # counted among floods, among protocol errors
    cdef double notice_at
    cdef bint sniff(self, const uint8_t *data, Py_ssize_t size) except -1
    cdef void open_session(self) noexcept
    cdef void begin_call(self, int32_t stream_id) noexcept
    cdef void begin_web(self, ServerCall call) noexcept
    cdef void keep_early(
        self, const uint8_t *name, Py_ssize_t name_size, const uint8_t *value, Py_ssize_t size) noexcept
    cdef list early_headers(self)
    cdef void got_headers(self, const nghttp2_frame *frame) noexcept
    cdef void drain(self, bint at_once) noexcept
    cdef void final_goaway(self) noexcept
    cdef void cancel_all(self) noexcept


cdef class Server:
    cdef object loop, lookup, http1, closed_waiter, __weakref__
    cdef Handler web
    cdef LoopContext context
    cdef Limits limits
    cdef list listeners
    cdef set open_connections
    cdef bint stopped
    cdef readonly Py_ssize_t streams
    cdef dict routes, unknown_routes
    cdef bytes last_path
    cdef Handler last_handler
    cdef CallFigures last_figures
    cdef dict all_figures
    cdef CallFigures other_figures  # of paths that nobody serves
    cdef public AccessLog access_log
    cdef public Py_ssize_t max_calls  # 0: any number
    cdef public Py_ssize_t other_calls
    cdef public str shedding
    cdef readonly dict shed
    cdef bint crowded
    cdef Py_ssize_t connections_total, calls_total, refused_streams, refused_connections
    cdef Py_ssize_t oversized, floods, protocol_errors, cancelled, expired, untaken, refused_draining
    cpdef str refusal(self, Py_ssize_t counted=*)
    cdef inline bint is_overloaded(self) noexcept:
        if self.shedding is None and not self.crowded:
            return self.max_calls > 0 and self.streams + self.other_calls >= self.max_calls
        return True
    cdef CallFigures figures_of(self, bytes path, Handler handler)
    cdef void route(self, ServerCall call, const uint8_t *path, Py_ssize_t size) noexcept
    cdef void find_route(self, bytes path) noexcept
    cdef void remember(self, bytes path, Handler handler) noexcept
    cpdef object forget(self)
    cpdef object stop_accepting(self)
    cdef void connection_gone(self, ServerConnection connection) noexcept


cdef class ClientConnection(Connection):
    cdef Channel channel
    cdef object ready  # future of Channel.connect
    cdef uint32_t peer_max_streams
    cdef bint draining, was_full
    cdef bytes authority, scheme
    cdef Py_ssize_t capacity(self) noexcept
    cdef void got_headers(self, ClientCall call, bint last) noexcept
    cdef void got_settings(self) noexcept


cdef class Channel:
    cdef ClientConnection connection
    cdef public object on_change
    cdef object __weakref__
    cpdef ClientCall open(self, bytes path, Handler handler, object context=*, object headers=*, double timeout=*)
    cpdef object close(self)
    cdef Py_ssize_t get_capacity(self) noexcept


cdef class PassedCall:
    cdef readonly object client  # None: it has its answer, or is gone
    cdef readonly bytes path, message
    cdef readonly bint streams
    cdef readonly int tries
    cdef public double since  # its owner's
    cdef object headers
    cdef Passage passage
    cdef ClientCall call  # None while it waits
    cdef bytes answer
    cpdef object on_client_drain(self)
    cpdef object on_client_cancel(self, int status)
    cpdef object fail(self, int status, str message)
    cdef int let_go(self) except -1


cdef class Passage(Handler):
    cdef object owner
    cdef public Channel channel
    cdef public bint holding  # others wait, so nobody overtakes them
    cdef readonly int64_t passed
    cpdef object take(self, object client, bytes path, bytes message, bint streams=*, object headers=*)
    cpdef bint pass_on(self, PassedCall passed) except -1
