"""The far end of a measurement, compiled, so that what is measured is what stands before it.

`EntityEcho` is a user function for event sourced entities: it answers each command with the command's own payload and,
if the method says so, emits events; `ValueEcho`, `CounterEcho` and `ActionEcho` are its like for the other entity types,
`EndlessAction` streams, and `DirectEcho` is a plain gRPC method. All are handlers of the project's own transport; no
Python code runs for a call or a streamed message. The near end is `generator`.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from stateside._speedups.h2 cimport Call, Handler, ServerCall
from stateside._speedups.protobuf cimport (
    LEN,
    VARINT,
    Field,
    I64,
    Reader,
    field_size,
    int64_size,
    put_int64,
    put_length,
    put_raw,
    put_text,
    read_field,
    text_size,
)

cdef enum:
    INVALID_ARGUMENT = 3

FILL_EVENTS = 1000
cdef int64_t fill_events = FILL_EVENTS


cdef int64_t now_ns() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <int64_t>moment.tv_sec * 1_000_000_000 + moment.tv_nsec


# --- the echo user function ------------------------------------------------------------------------------------------

cdef enum:
    # EventSourcedStreamIn
    IN_INIT = 1 << 3 | LEN
    IN_EVENT = 2 << 3 | LEN
    IN_COMMAND = 3 << 3 | LEN
    # EventSourcedEvent
    EVENT_SEQUENCE = 1 << 3 | VARINT
    EVENT_PAYLOAD = 2 << 3 | LEN
    # Command
    COMMAND_ID = 2 << 3 | VARINT
    COMMAND_NAME = 3 << 3 | LEN
    COMMAND_PAYLOAD = 4 << 3 | LEN
    # Any
    ANY_TYPE_URL = 1 << 3 | LEN
    ANY_VALUE = 2 << 3 | LEN
    # bench.Written
    WRITTEN_NUMBER = 1 << 3 | I64
    EVENT_BODY_SIZE = 89  # makes a Written of 100 bytes

    # ValueEntityStreamIn
    VALUE_IN_INIT = 1 << 3 | LEN
    VALUE_IN_COMMAND = 2 << 3 | LEN
    # CrdtStreamIn
    CRDT_IN_INIT = 1 << 3 | LEN
    CRDT_IN_DELTA = 2 << 3 | LEN
    CRDT_IN_COMMAND = 4 << 3 | LEN
    # ValueEntityInit
    INIT_STATE = 3 << 3 | LEN

cdef bytes EVENT_TYPE_URL = b"type.googleapis.com/bench.Written"
cdef bytes FORWARD_SERVICE = b"bench.Other"
cdef bytes FORWARD_COMMAND = b"Read"
cdef Py_ssize_t WRITTEN_SIZE = 9 + field_size(EVENT_BODY_SIZE)
cdef Py_ssize_t EVENT_SIZE = field_size(PyBytes_GET_SIZE(EVENT_TYPE_URL)) + field_size(WRITTEN_SIZE)


cdef class EntityStream:
    """What the user function remembers of one entity: how many events it has seen."""


cdef class EntityEcho(Handler):
    """All entity streams; each has an EntityStream as its context."""

    def __cinit__(self):
        self.last_violation = ""

    cpdef object on_open(self, object any_call):
        cdef ServerCall call = <ServerCall>any_call
        call.context = EntityStream()

    cpdef object on_message(self, object any_call, bytes message):
        cdef Call call = <Call>any_call
        cdef Reader reader
        cdef Field field
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(message)
        cdef const uint8_t* end = p + PyBytes_GET_SIZE(message)
        cdef EntityStream stream = <EntityStream>call.context
        reader.start = p
        reader.groups = False
        if p == end or read_field(&reader, p, end, &field) != end:
            self.violated(call, "a message holds exactly one of init, event and command")
        elif field.tag == IN_COMMAND:
            self.answer(call, stream, field.data, field.data + field.size)
        elif field.tag == IN_EVENT:
            if self.replay(stream, field.data, field.data + field.size) == 0:
                self.violated(call, "events follow init, before the first command, numbered without gaps, unchanged")
        elif field.tag != IN_INIT or self.begin(stream) == 0:
            self.violated(call, "init comes first and once")

    cpdef object on_half_close(self, object any_call):
        cdef ServerCall call = <ServerCall>any_call
        call.finish()

    cdef int begin(self, EntityStream stream) except -1:
        self.inits += 1
        if stream.begun:
            return 0
        stream.begun = True
        return 1

    cdef int replay(self, EntityStream stream, const uint8_t* p, const uint8_t* end) except -1:
        """Count one stored event; 0 when it is not the next one of those that were emitted."""
        cdef int64_t sequence = 0
        cdef uint64_t number = 0
        self.last_replayed_ns = now_ns()
        if self.replayed == 0:
            self.first_replayed_ns = self.last_replayed_ns
        self.replayed += 1
        stream.sequence += 1
        if not stream.begun or stream.commanded or not scan_event(p, end, &sequence, &number):
            return 0
        return sequence == stream.sequence and number == <uint64_t>sequence

    cdef int answer(self, Call call, EntityStream stream, const uint8_t* p, const uint8_t* end) except -1:
        cdef Command command
        cdef int64_t events = 0
        if not scan_command(p, end, &command) or command.id <= 0:
            self.violated(call, "a command has an id, a name and a payload")
            return 0
        if not stream.begun:
            self.violated(call, "init comes first and once")
        stream.commanded = True
        if is_text(&command.name, b"Forward", 7):
            self.commands += 1
            call.send(write_forward(&command))
            return 0
        if is_text(&command.name, b"Write", 5):
            events = 1
        elif is_text(&command.name, b"Fill", 4):
            events = fill_events
        self.commands += 1
        self.emitted += events
        call.send(write_reply(&command, stream.sequence + 1, events))
        stream.sequence += events
        return 0

    cdef int violated(self, Call call, str rule) except -1:
        self.violations += 1
        self.last_violation = rule
        return 0


cdef bint is_text(Slice* slice, const char* text, Py_ssize_t size) noexcept nogil:
    return slice.size == size and memcmp(slice.data, text, <size_t>size) == 0


cdef bint scan_event(const uint8_t* p, const uint8_t* end, int64_t* sequence, uint64_t* number) noexcept nogil:
    """An EventSourcedEvent that holds a bench.Written."""
    cdef Reader reader
    cdef Field field
    cdef Slice type_url, value
    value.data = NULL
    value.size = 0
    reader.start = p
    reader.groups = False
    while p < end:
        p = read_field(&reader, p, end, &field)
        if p == NULL:
            return False
        if field.tag == EVENT_SEQUENCE:
            sequence[0] = <int64_t>field.value
        elif field.tag == EVENT_PAYLOAD and not scan_any(field.data, field.data + field.size, &type_url, &value):
            return False
    if value.size != WRITTEN_SIZE or read_field(&reader, value.data, value.data + value.size, &field) == NULL:
        return False
    number[0] = field.value
    return field.tag == WRITTEN_NUMBER


cdef bint scan_command(const uint8_t* p, const uint8_t* end, Command* command) noexcept nogil:
    """A Command, or an ActionCommand, which has the same fields where we look, but no id."""
    cdef Reader reader
    cdef Field field
    memset(command, 0, sizeof(Command))
    reader.start = p
    reader.groups = False
    while p < end:
        p = read_field(&reader, p, end, &field)
        if p == NULL:
            return False
        if field.tag == COMMAND_ID:
            command.id = <int64_t>field.value
        elif field.tag == COMMAND_NAME:
            command.name.data = field.data
            command.name.size = field.size
        elif field.tag == COMMAND_PAYLOAD:
            if not scan_any(field.data, field.data + field.size, &command.type_url, &command.value):
                return False
    return command.name.size > 0 and command.type_url.size > 0


cdef bint scan_any(const uint8_t* p, const uint8_t* end, Slice* type_url, Slice* value) noexcept nogil:
    cdef Reader reader
    cdef Field field
    reader.start = p
    reader.groups = False
    while p < end:
        p = read_field(&reader, p, end, &field)
        if p == NULL:
            return False
        if field.tag == ANY_TYPE_URL:
            type_url.data = field.data
            type_url.size = field.size
        elif field.tag == ANY_VALUE:
            value.data = field.data
            value.size = field.size
    return True


cdef bytes write_reply(Command* command, int64_t first_sequence, int64_t events):
    """EventSourcedStreamOut{reply}: the command's payload back, and events numbered from `first_sequence`."""
    cdef Py_ssize_t payload = text_size(command.type_url.size) + text_size(command.value.size)
    cdef Py_ssize_t reply = field_size(payload)
    cdef Py_ssize_t action = field_size(reply)
    cdef Py_ssize_t whole = int64_size(command.id) + field_size(action) + events * field_size(EVENT_SIZE)
    cdef bytes message = PyBytes_FromStringAndSize(NULL, field_size(whole))
    cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(message)
    cdef int64_t i
    p = put_length(p, 1, whole)  # EventSourcedStreamOut.reply
    p = put_int64(p, 1, command.id)
    p = put_length(p, 2, action)  # .client_action
    p = put_length(p, 1, reply)  # .reply
    p = put_payload(p, 1, payload, command)  # .payload
    for i in range(events):
        p = put_written(p, 4, first_sequence + i)  # .events
    return message


cdef bytes write_forward(Command* command):
    """EventSourcedStreamOut{reply}: the command's payload, to be taken by the other service."""
    cdef Py_ssize_t payload = text_size(command.type_url.size) + text_size(command.value.size)
    cdef Py_ssize_t service = PyBytes_GET_SIZE(FORWARD_SERVICE)
    cdef Py_ssize_t name = PyBytes_GET_SIZE(FORWARD_COMMAND)
    cdef Py_ssize_t forward = field_size(service) + field_size(name) + field_size(payload)
    cdef Py_ssize_t action = field_size(forward)
    cdef Py_ssize_t whole = int64_size(command.id) + field_size(action)
    cdef bytes message = PyBytes_FromStringAndSize(NULL, field_size(whole))
    cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(message)
    p = put_length(p, 1, whole)  # EventSourcedStreamOut.reply
    p = put_int64(p, 1, command.id)
    p = put_length(p, 2, action)  # .client_action
    p = put_length(p, 2, forward)  # .forward
    p = put_text(p, 1, PyBytes_AS_STRING(FORWARD_SERVICE), service)
    p = put_text(p, 2, PyBytes_AS_STRING(FORWARD_COMMAND), name)
    put_payload(p, 3, payload, command)
    return message


cdef uint8_t* put_payload(uint8_t* p, uint8_t number, Py_ssize_t size, Command* command) noexcept:
    """An Any: what the command carries."""
    p = put_length(p, number, size)
    p = put_text(p, 1, command.type_url.data, command.type_url.size)
    return put_text(p, 2, command.value.data, command.value.size)


cdef uint8_t* put_written(uint8_t* p, uint8_t field_number, int64_t sequence) noexcept:
    """An Any with a bench.Written."""
    p = put_length(p, field_number, EVENT_SIZE)
    p = put_text(p, 1, PyBytes_AS_STRING(EVENT_TYPE_URL), PyBytes_GET_SIZE(EVENT_TYPE_URL))
    p = put_length(p, 2, WRITTEN_SIZE)
    p[0] = WRITTEN_NUMBER
    memcpy(p + 1, &sequence, 8)  # little-endian, as everything this is built for
    p = put_length(p + 9, 2, EVENT_BODY_SIZE)
    memset(p, <int>(sequence & 0x7F), EVENT_BODY_SIZE)
    return p + EVENT_BODY_SIZE


# --- echoes of value entities and actions ----------------------------------------------------------------------------

cdef class ValueStream:
    """What the user function remembers of one value entity: how often its value was replaced."""


cdef class ValueEcho(Handler):
    """All value entity streams; each has a ValueStream as its context."""

    def __cinit__(self):
        self.last_violation = ""

    cpdef object on_open(self, object any_call):
        cdef ServerCall call = <ServerCall>any_call
        call.context = ValueStream()

    cpdef object on_message(self, object any_call, bytes message):
        cdef Call call = <Call>any_call
        cdef Reader reader
        cdef Field field
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(message)
        cdef const uint8_t* end = p + PyBytes_GET_SIZE(message)
        cdef ValueStream stream = <ValueStream>call.context
        cdef bint kept = False
        reader.start = p
        reader.groups = False
        if p != end and read_field(&reader, p, end, &field) == end:
            if field.tag == VALUE_IN_COMMAND:
                kept = self.answer(call, stream, field.data, field.data + field.size)
            elif field.tag == VALUE_IN_INIT:
                kept = self.begin(stream, field.data, field.data + field.size)
        if not kept:
            self.violations += 1
            self.last_violation = "init comes first and once, with the value last stored, then commands"

    cpdef object on_half_close(self, object any_call):
        cdef ServerCall call = <ServerCall>any_call
        call.finish()

    cdef int begin(self, ValueStream stream, const uint8_t* p, const uint8_t* end) except -1:
        """0 when this is not the first init, or has a value that was never stored."""
        cdef uint64_t number = 0
        self.inits += 1
        if stream.begun or not scan_state(p, end, &number):
            return 0
        stream.begun = True
        stream.updates = <int64_t>number
        return 1

    cdef int answer(self, Call call, ValueStream stream, const uint8_t* p, const uint8_t* end) except -1:
        cdef Command command
        if not stream.begun or not scan_command(p, end, &command) or command.id <= 0:
            return 0
        self.commands += 1
        stream.updates += 1
        self.updates += 1
        call.send(write_update(&command, stream.updates))
        return 1


cdef bint scan_state(const uint8_t* p, const uint8_t* end, uint64_t* number) noexcept nogil:
    """The number of the Written in a ValueEntityInit's state; 0 where there is none yet."""
    cdef Reader reader
    cdef Field field
    cdef Slice type_url, value
    value.data = NULL
    value.size = 0
    reader.start = p
    reader.groups = False
    while p < end:
        p = read_field(&reader, p, end, &field)
        if p == NULL:
            return False
        if field.tag == INIT_STATE and field.size > 0:
            if read_field(&reader, field.data, field.data + field.size, &field) == NULL:  # ValueEntityInitState.value
                return False
            if not scan_any(field.data, field.data + field.size, &type_url, &value) or value.size != WRITTEN_SIZE:
                return False
            if read_field(&reader, value.data, value.data + value.size, &field) == NULL:
                return False
            number[0] = field.value
    return True


cdef bytes write_update(Command* command, int64_t updates):
    """ValueEntityStreamOut{reply}: the command's payload back, and the value replaced."""
    cdef Py_ssize_t payload = text_size(command.type_url.size) + text_size(command.value.size)
    cdef Py_ssize_t reply = field_size(payload)
    cdef Py_ssize_t action = field_size(reply)
    cdef Py_ssize_t update = field_size(EVENT_SIZE)
    cdef Py_ssize_t state_action = field_size(update)
    cdef Py_ssize_t whole = int64_size(command.id) + field_size(action) + field_size(state_action)
    cdef bytes message = PyBytes_FromStringAndSize(NULL, field_size(whole))
    cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(message)
    p = put_length(p, 1, whole)  # ValueEntityStreamOut.reply
    p = put_int64(p, 1, command.id)
    p = put_length(p, 2, action)  # .client_action
    p = put_length(p, 1, reply)  # .reply
    p = put_payload(p, 1, payload, command)  # .payload
    p = put_length(p, 4, state_action)  # .state_action
    p = put_length(p, 1, update)  # .update
    put_written(p, 1, updates)  # .value
    return message


cdef class CounterEcho(Handler):
    """All CRDT streams. Their context is whether init has come."""

    def __cinit__(self):
        self.last_violation = ""

    cpdef object on_open(self, object any_call):
        cdef ServerCall call = <ServerCall>any_call
        call.context = False

    cpdef object on_message(self, object any_call, bytes message):
        cdef Call call = <Call>any_call
        cdef Reader reader
        cdef Field field
        cdef Command command
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(message)
        cdef const uint8_t* end = p + PyBytes_GET_SIZE(message)
        reader.start = p
        reader.groups = False
        if p != end and read_field(&reader, p, end, &field) == end:
            if field.tag == CRDT_IN_COMMAND:
                if call.context and scan_command(field.data, field.data + field.size, &command) and command.id > 0:
                    self.commands += 1
                    call.send(write_increment(&command))
                    return
            elif field.tag == CRDT_IN_DELTA:
                self.deltas += 1
                if call.context:
                    return
            elif field.tag == CRDT_IN_INIT and not call.context:
                self.inits += 1
                call.context = True
                return
        self.violations += 1
        self.last_violation = "init comes first and once, then commands and deltas"

    cpdef object on_half_close(self, object any_call):
        cdef ServerCall call = <ServerCall>any_call
        call.finish()


cdef bytes write_increment(Command* command):
    """CrdtStreamOut{reply}: the command's payload back, and 1 added to a GCounter."""
    cdef Py_ssize_t payload = text_size(command.type_url.size) + text_size(command.value.size)
    cdef Py_ssize_t reply = field_size(payload)
    cdef Py_ssize_t action = field_size(reply)
    cdef Py_ssize_t delta = int64_size(1)
    cdef Py_ssize_t update = field_size(delta)
    cdef Py_ssize_t state_action = field_size(update)
    cdef Py_ssize_t whole = int64_size(command.id) + field_size(action) + field_size(state_action)
    cdef bytes message = PyBytes_FromStringAndSize(NULL, field_size(whole))
    cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(message)
    p = put_length(p, 1, whole)  # CrdtStreamOut.reply
    p = put_int64(p, 1, command.id)
    p = put_length(p, 2, action)  # .client_action
    p = put_length(p, 1, reply)  # .reply
    p = put_payload(p, 1, payload, command)  # .payload
    p = put_length(p, 5, state_action)  # .state_action
    p = put_length(p, 1, update)  # .update
    p = put_length(p, 1, delta)  # .gcounter
    put_int64(p, 1, 1)  # .increment
    return message


cdef class ActionEcho(Handler):
    """`handleUnary`: answers with the payload of the command."""

    def __cinit__(self):
        self.unary = True

    cpdef object on_request(self, object any_call, bytes message):
        cdef ServerCall call = <ServerCall>any_call
        cdef Command command
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(message)
        if not scan_command(p, p + PyBytes_GET_SIZE(message), &command):
            call.fail(INVALID_ARGUMENT, "a command has a name and a payload")
            return
        self.calls += 1
        call.reply(write_response(&command))


cdef bytes write_response(Command* command):
    """ActionResponse{reply}: the command's payload back."""
    cdef Py_ssize_t payload = text_size(command.type_url.size) + text_size(command.value.size)
    cdef bytes message = PyBytes_FromStringAndSize(NULL, field_size(field_size(payload)))
    cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(message)
    p = put_length(p, 2, field_size(payload))  # ActionResponse.reply
    put_payload(p, 1, payload, command)  # .payload
    return message


cdef class EndlessAction(Handler):
    """`handleStreamedOut`: numbered messages as long as somebody takes them. A call's context is the last number."""

    def __cinit__(self):
        self.unary = True

    cpdef object on_request(self, object any_call, bytes message):
        cdef ServerCall call = <ServerCall>any_call
        self.calls += 1
        self.open += 1
        call.context = 0
        self.fill(call)

    cpdef object on_drain(self, object any_call):
        cdef Call call = <Call>any_call
        self.fill(call)

    cpdef object on_cancel(self, object any_call, int status):
        cdef ServerCall call = <ServerCall>any_call
        self.open -= 1

    cdef int fill(self, Call call) except -1:
        """Send until the queue is full."""
        cdef int64_t number = call.context
        cdef int64_t before = number
        cdef bint takes_more = True
        while takes_more and not call.ended:
            number += 1
            takes_more = call.send(write_item(number))
        call.context = number
        self.sent += number - before
        return 0


cdef bytes write_item(int64_t number):
    """ActionResponse{reply} with a bench.Written."""
    cdef Py_ssize_t reply = field_size(EVENT_SIZE)
    cdef bytes message = PyBytes_FromStringAndSize(NULL, field_size(reply))
    cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(message)
    p = put_length(p, 2, reply)  # ActionResponse.reply
    put_written(p, 1, number)  # .payload
    return message


cdef class DirectEcho(Handler):
    """A unary method that answers with its request."""

    def __cinit__(self):
        self.unary = True

    cpdef object on_request(self, object any_call, bytes message):
        cdef ServerCall call = <ServerCall>any_call
        self.calls += 1
        call.reply(message)
