# cython: auto_pickle=False
"""Protobuf on the way of a command, without the protobuf runtime.

Between the transport and the entity: keys are scanned out of a client's request, the request is wrapped into a
`Command`, the user function's answer is taken apart, and the same for the other side of the stream. Payloads, events,
snapshots, metadata and side effects stay the bytes they are. wire.pyi documents what callers use; `protobuf.pxd` has
the wire format, `serialized.pxd` the way between memory and Python objects.

One compiled module in parts:

    wire_keys.pxi      entity keys
    wire.pyx           commands, event sourced entities, and what all parts stand on
    wire_value.pxi     value entities
    wire_crdt.pxi      CRDTs
    wire_action.pxi    actions
    wire_metadata.pxi  metadata from and to the headers of a call

Every writer sums up the size first and fills one bytes object. Every scanner fills its result in place, field by field,
which is also how protobuf merges repeated occurrences of a sub-message; those that stay bytes are merged by joining.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from stateside._speedups.protobuf cimport (
    I32, I64, LEN, MAX_FIELD_NUMBER, VARINT, Field, Reader, field_size, int64_size, is_ascii, put_field, put_int64,
    put_length, put_raw, put_text, read_field, text_size, zigzag, zigzag32,
)
from stateside._speedups.serialized cimport (
    PySequence_Fast, PySequence_Fast_GET_ITEM, PySequence_Fast_GET_SIZE, PyUnicode_AsUTF8AndSize, Text, appended,
    content, decoded, finished, items_size, merged, new_message, optional_size, put_item, put_items, put_optional,
    sequence_of_bytes, start_of, text_field, utf8,
)

from stateside._speedups.java_numbers import double_text, float_text

class WireError(ValueError):
    """The bytes are not a well-formed message; the text says what and at which offset."""


# Tags that scanners look for: field number << 3 | wire type.
cdef enum:
    INT_1 = 1 << 3 | VARINT
    INT_2 = 2 << 3 | VARINT
    INT_3 = 3 << 3 | VARINT
    INT_4 = 4 << 3 | VARINT
    INT_5 = 5 << 3 | VARINT
    INT_6 = 6 << 3 | VARINT
    LEN_1 = 1 << 3 | LEN
    LEN_2 = 2 << 3 | LEN
    LEN_3 = 3 << 3 | LEN
    LEN_4 = 4 << 3 | LEN
    LEN_5 = 5 << 3 | LEN
    LEN_6 = 6 << 3 | LEN


include "wire_keys.pxi"

# --- proxy to user function ------------------------------------------------------------------------------------------

@cython.final
cdef class CommandWriter:
    def __init__(self, int member, str name not None, str type_url not None):
        if not 1 <= member <= 15:
            raise ValueError(f"{member} is not a member of a stream-in message")
        self.member = <uint8_t>member
        self.name = text_field(3, name)
        self.type_url = text_field(1, type_url)

    cpdef bytes write(
        self, bytes entity_id, int64_t command_id, bytes payload, bytes metadata=None, bint streamed=False
    ):
        if entity_id is None or payload is None:
            raise TypeError("entity_id and payload must be bytes, not None")
        cdef Py_ssize_t any_size = len(self.type_url) + text_size(len(payload))
        cdef Py_ssize_t command_size = (
            text_size(len(entity_id)) + int64_size(command_id) + len(self.name) + field_size(any_size)
            + int64_size(streamed) + optional_size(metadata)
        )
        cdef bytes out = new_message(field_size(command_size))
        cdef uint8_t* p = put_length(start_of(out), self.member, command_size)
        p = put_text(p, 1, start_of(entity_id), len(entity_id))
        p = put_int64(p, 2, command_id)
        p = put_raw(p, start_of(self.name), len(self.name))
        p = put_length(p, 4, any_size)
        p = put_raw(p, start_of(self.type_url), len(self.type_url))
        p = put_text(p, 2, start_of(payload), len(payload))
        p = put_int64(p, 5, streamed)
        p = put_optional(p, 6, metadata)
        return finished(out, p)


cpdef bytes write_init(str service_name, str entity_id, int64_t snapshot_sequence=0, bytes snapshot=None):
    return init_message(service_name, entity_id, snapshot is not None, snapshot_sequence, 2, snapshot)


cdef bytes init_message(
    str service_name, str entity_id, bint has_state, int64_t sequence, uint8_t number, bytes state
):
    """Stream-in message with the init of either protocol; `number` is that of `state` in the init's third field."""
    cdef Text service = utf8(service_name)
    cdef Text entity = utf8(entity_id)
    cdef Py_ssize_t state_size = int64_size(sequence) + optional_size(state)
    cdef Py_ssize_t init_size = text_size(service.size) + text_size(entity.size)
    if has_state:
        init_size += field_size(state_size)
    cdef bytes out = new_message(field_size(init_size))
    cdef uint8_t* p = put_length(start_of(out), 1, init_size)
    p = put_text(p, 1, service.data, service.size)
    p = put_text(p, 2, entity.data, entity.size)
    if has_state:
        p = put_length(p, 3, state_size)
        p = put_int64(p, 1, sequence)
        p = put_optional(p, number, state)
    return finished(out, p)


cdef enum:
    FRAME_HEAD = 5  # of a gRPC message: compressed flag, length as four bytes


cpdef bytes frame_events(int64_t first_sequence, object events):
    cdef object items = sequence_of_bytes(events, b"events must be a sequence of bytes")
    cdef Py_ssize_t count = PySequence_Fast_GET_SIZE(items)
    cdef Py_ssize_t total = 0
    cdef Py_ssize_t i
    for i in range(count):
        total += FRAME_HEAD + field_size(event_size(first_sequence + i, items, i))
    cdef bytes out = new_message(total)
    cdef uint8_t* p = start_of(out)
    for i in range(count):
        p = put_event(p, first_sequence + i, items, i)
    return finished(out, p)


cdef inline Py_ssize_t event_size(int64_t sequence, object items, Py_ssize_t i) noexcept:
    return int64_size(sequence) + field_size(PyBytes_GET_SIZE(<object>PySequence_Fast_GET_ITEM(items, i)))


cdef inline uint8_t* put_event(uint8_t* p, int64_t sequence, object items, Py_ssize_t i) noexcept:
    cdef Py_ssize_t size = event_size(sequence, items, i)
    cdef uint32_t message_size = <uint32_t>field_size(size)
    p[0] = 0
    p[1] = <uint8_t>(message_size >> 24)
    p[2] = <uint8_t>(message_size >> 16)
    p[3] = <uint8_t>(message_size >> 8)
    p[4] = <uint8_t>message_size
    p = put_length(p + FRAME_HEAD, 2, size)
    p = put_int64(p, 1, sequence)
    return put_item(p, 2, items, i)


# --- user function to proxy, scanned ---------------------------------------------------------------------------------

cdef enum:
    C_NONE = 0
    C_REPLY = 1
    C_FORWARD = 2
    C_FAILURE = 3  # as action
    C_INIT = 1
    C_EVENT = 2
    C_COMMAND = 3


@cython.no_gc
@cython.freelist(256)
cdef class Outgoing:
    def __cinit__(self):
        self.type_url = ""
        self.payload = b""
        self.description = ""
        self.events = ()
        self.side_effects = ()


@cython.final
@cython.no_gc
cdef class StreamOut(Outgoing):
    pass


cdef struct Parts:
    # What is handed on only when the whole message has been read; no data: unset.
    Field type_url
    Field payload
    Field text  # description of a failure
    bint restart


ctypedef fused Outcome:
    StreamOut
    ValueOut
    CrdtOut
    ActionOut


cpdef StreamOut scan_event_sourced_out(bytes message):
    cdef Reader reader
    cdef Field field
    cdef Parts parts
    cdef const uint8_t* p = begin(&reader, message)
    cdef const uint8_t* end = p + len(message)
    cdef StreamOut out = StreamOut.__new__(StreamOut)
    forget(&parts)
    while p < end:
        p = next_field(&reader, p, end, &field, b"EventSourcedStreamOut")
        if field.tag == LEN_1:
            enter_kind(out, &parts, C_REPLY)
            scan_reply_out(&reader, &field, out, &parts)
        elif field.tag == LEN_2:
            enter_kind(out, &parts, KIND_FAILURE)
            out.command_id = scan_failure(&reader, &field, &parts, out.command_id)
    hand_on(out, &parts)
    return out


cdef int scan_reply_out(Reader* reader, Field* reply, StreamOut out, Parts* parts) except -1:
    cdef Field field
    cdef const uint8_t* p = reply.data
    cdef const uint8_t* end = p + reply.size
    while p < end:
        p = next_field(reader, p, end, &field, b"EventSourcedReply")
        if field.tag == INT_1:
            out.command_id = <int64_t>field.value
        elif field.tag == LEN_2:
            scan_client_action(reader, &field, out, parts)
        elif field.tag == LEN_3:
            out.side_effects = appended(out.side_effects, &field)
        elif field.tag == LEN_4:
            check_any(reader, &field)
            out.events = appended(out.events, &field)
        elif field.tag == LEN_5:
            check_any(reader, &field)
            out.snapshot = merged(out.snapshot, &field)
    return 0


cdef int scan_client_action(Reader* reader, Field* action, Outcome out, Parts* parts) except -1:
    cdef Field field
    cdef const uint8_t* p = action.data
    cdef const uint8_t* end = p + action.size
    while p < end:
        p = next_field(reader, p, end, &field, b"ClientAction")
        if field.tag == LEN_1:
            enter_action(out, parts, C_REPLY)
            scan_client_reply(reader, &field, out, parts)
        elif field.tag == LEN_2:
            enter_action(out, parts, C_FORWARD)
            out.forward = merged(out.forward, &field)
        elif field.tag == LEN_3:
            enter_action(out, parts, C_FAILURE)
            scan_failure(reader, &field, parts, 0)
    return 0


cdef int scan_client_reply(Reader* reader, Field* reply, Outcome out, Parts* parts) except -1:
    cdef Field field
    cdef const uint8_t* p = reply.data
    cdef const uint8_t* end = p + reply.size
    while p < end:
        p = next_field(reader, p, end, &field, b"Reply")
        if field.tag == LEN_1:
            scan_any_parts(reader, &field, &parts.type_url, &parts.payload)
        elif field.tag == LEN_2:
            out.metadata = merged(out.metadata, &field)
    return 0


cdef int64_t scan_failure(Reader* reader, Field* failure, Parts* parts, int64_t command_id) except? -1:
    """The Failure's command id, or `command_id` when it has none."""
    cdef Field field
    cdef const uint8_t* p = failure.data
    cdef const uint8_t* end = p + failure.size
    while p < end:
        p = next_field(reader, p, end, &field, b"Failure")
        if field.tag == INT_1:
            command_id = <int64_t>field.value
        elif field.tag == LEN_2:
            check_utf8(reader, &field, b"Failure.description")
            parts.text = field
        elif field.tag == INT_3:
            parts.restart = field.value != 0
    return command_id


cdef inline void enter_kind(StreamOut out, Parts* parts, int kind) noexcept:
    """Of a oneof the last member wins; the same one again is merged into what is there."""
    if out.kind == kind:
        return
    if out.kind != C_NONE:
        enter_action(out, parts, C_NONE)
        out.command_id = 0
        out.events = ()
        out.side_effects = ()
        out.snapshot = None
    out.kind = kind


cdef inline void enter_action(Outcome out, Parts* parts, int action) noexcept:
    if out.action == action and action != C_NONE:
        return
    forget(parts)
    out.metadata = None
    out.forward = None
    out.action = action


cdef inline void forget(Parts* parts) noexcept nogil:
    parts.type_url.data = NULL
    parts.payload.data = NULL
    parts.text.data = NULL
    parts.restart = False


cdef inline int hand_on(Outcome out, Parts* parts) except -1:
    if parts.type_url.data != NULL:
        out.type_url = interned(&parts.type_url)
    if parts.payload.data != NULL:
        out.payload = content(&parts.payload)
    if parts.text.data != NULL:
        out.description = decoded(&parts.text)
    if Outcome is not ActionOut:
        out.restart = parts.restart
    return 0


# --- proxy to user function, scanned ---------------------------------------------------------------------------------

IN_NONE = C_NONE
IN_INIT = C_INIT
IN_EVENT = C_EVENT
IN_COMMAND = C_COMMAND


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class StreamIn:
    def __cinit__(self):
        clear_in(self)


cdef inline void clear_in(StreamIn message) noexcept:
    message.service_name = ""
    message.entity_id = ""
    message.snapshot_sequence = 0
    message.snapshot = None
    message.sequence = 0
    message.event = None
    message.command_id = 0
    message.name = ""
    message.type_url = ""
    message.payload = None
    message.streamed = False
    message.metadata = None


cpdef StreamIn scan_event_sourced_in(bytes message):
    cdef Reader reader
    cdef Field field
    cdef const uint8_t* p = begin(&reader, message)
    cdef const uint8_t* end = p + len(message)
    cdef StreamIn found = StreamIn.__new__(StreamIn)
    while p < end:
        p = next_field(&reader, p, end, &field, b"EventSourcedStreamIn")
        if field.tag == LEN_3:
            enter_in(found, C_COMMAND)
            scan_command(&reader, &field, found)
        elif field.tag == LEN_2:
            enter_in(found, C_EVENT)
            scan_event(&reader, &field, found)
        elif field.tag == LEN_1:
            enter_in(found, C_INIT)
            scan_init(&reader, &field, found, b"EventSourcedInit", scan_snapshot)
    return found


cdef inline void enter_in(StreamIn found, int kind) noexcept:
    """Of a oneof the last member wins; the same one again is merged into what is there."""
    if found.kind != kind and found.kind != C_NONE:
        clear_in(found)
    found.kind = kind


ctypedef int (*StateScanner)(Reader*, Field*, StreamIn) except -1


cdef int scan_init(
    Reader* reader, Field* init, StreamIn found, const char* message, StateScanner scan_state
) except -1:
    """Init of either protocol; its third field is what `scan_state` reads."""
    cdef Field field
    cdef const uint8_t* p = init.data
    cdef const uint8_t* end = p + init.size
    while p < end:
        p = next_field(reader, p, end, &field, message)
        if field.tag == LEN_1:
            check_utf8(reader, &field, b"init.service_name")
            found.service_name = interned(&field)
        elif field.tag == LEN_2:
            check_utf8(reader, &field, b"init.entity_id")
            found.entity_id = decoded(&field)
        elif field.tag == LEN_3:
            scan_state(reader, &field, found)
    return 0


cdef int scan_snapshot(Reader* reader, Field* snapshot, StreamIn found) except -1:
    cdef Field field
    cdef const uint8_t* p = snapshot.data
    cdef const uint8_t* end = p + snapshot.size
    while p < end:
        p = next_field(reader, p, end, &field, b"EventSourcedSnapshot")
        if field.tag == INT_1:
            found.snapshot_sequence = <int64_t>field.value
        elif field.tag == LEN_2:
            found.snapshot = merged(found.snapshot, &field)
    return 0


cdef int scan_event(Reader* reader, Field* event, StreamIn found) except -1:
    cdef Field field
    cdef const uint8_t* p = event.data
    cdef const uint8_t* end = p + event.size
    while p < end:
        p = next_field(reader, p, end, &field, b"EventSourcedEvent")
        if field.tag == INT_1:
            found.sequence = <int64_t>field.value
        elif field.tag == LEN_2:
            found.event = merged(found.event, &field)
    return 0


ctypedef fused StreamedIn:
    StreamIn
    CrdtIn


cdef int scan_command(Reader* reader, Field* command, StreamedIn found) except -1:
    cdef Field field
    cdef const uint8_t* p = command.data
    cdef const uint8_t* end = p + command.size
    while p < end:
        p = next_field(reader, p, end, &field, b"Command")
        if field.tag == LEN_1:
            check_utf8(reader, &field, b"Command.entity_id")
            found.entity_id = decoded(&field)
        elif field.tag == INT_2:
            found.command_id = <int64_t>field.value
        elif field.tag == LEN_3:
            check_utf8(reader, &field, b"Command.name")
            found.name = interned(&field)
        elif field.tag == LEN_4:
            scan_command_payload(reader, &field, found)
        elif field.tag == INT_5:
            found.streamed = field.value != 0
        elif field.tag == LEN_6:
            found.metadata = merged(found.metadata, &field)
    return 0


ctypedef fused Incoming:
    StreamIn
    CrdtIn
    ActionIn
    ServiceCall


cdef int scan_command_payload(Reader* reader, Field* payload, Incoming found) except -1:
    cdef Field type_url
    cdef Field value
    type_url.data = NULL
    value.data = NULL
    scan_any_parts(reader, payload, &type_url, &value)
    if type_url.data != NULL:
        found.type_url = interned(&type_url)
    if value.data != NULL:
        found.payload = content(&value)
    elif found.payload is None:
        found.payload = b""
    return 0


# --- user function to proxy, written ---------------------------------------------------------------------------------

cdef struct Shape:
    # Sizes from the inside out of a stream-out message {reply{client_action{<member>}}}.
    Py_ssize_t member
    Py_ssize_t action
    Py_ssize_t reply


def write_reply(
    int64_t command_id,
    str type_url not None,
    bytes payload not None,
    *,
    bytes metadata=None,
    events=(),
    bytes snapshot=None,
    side_effects=(),
):
    cdef Text url = utf8(type_url)
    cdef Shape shape
    shape.member = reply_size(&url, payload, metadata)
    events = sequence_of_bytes(events, b"events must be a sequence of bytes")
    side_effects = sequence_of_bytes(side_effects, b"side_effects must be a sequence of bytes")
    cdef bytes out = new_reply(&shape, command_id, reply_tail_size(events, snapshot, side_effects))
    cdef uint8_t* p = put_reply_head(start_of(out), &shape, command_id, C_REPLY)
    p = put_reply(p, &url, payload, metadata)
    return finished(out, put_reply_tail(p, events, snapshot, side_effects))


def write_forward(
    int64_t command_id, bytes forward not None, *, events=(), bytes snapshot=None, side_effects=()
):
    cdef Shape shape
    shape.member = len(forward)
    events = sequence_of_bytes(events, b"events must be a sequence of bytes")
    side_effects = sequence_of_bytes(side_effects, b"side_effects must be a sequence of bytes")
    cdef bytes out = new_reply(&shape, command_id, reply_tail_size(events, snapshot, side_effects))
    cdef uint8_t* p = put_reply_head(start_of(out), &shape, command_id, C_FORWARD)
    p = put_raw(p, start_of(forward), len(forward))
    return finished(out, put_reply_tail(p, events, snapshot, side_effects))


cpdef bytes write_action_failure(int64_t command_id, str description, bint restart=False):
    cdef Text text = utf8(description)
    cdef Shape shape
    shape.member = int64_size(command_id) + text_size(text.size) + int64_size(restart)
    cdef bytes out = new_reply(&shape, command_id, 0)
    cdef uint8_t* p = put_reply_head(start_of(out), &shape, command_id, C_FAILURE)
    p = put_int64(p, 1, command_id)
    p = put_text(p, 2, text.data, text.size)
    p = put_int64(p, 3, restart)
    return finished(out, p)


cpdef bytes write_stream_failure(int64_t command_id, str description):
    cdef Text text = utf8(description)
    cdef Py_ssize_t size = int64_size(command_id) + text_size(text.size)
    cdef bytes out = new_message(field_size(size))
    cdef uint8_t* p = put_length(start_of(out), 2, size)
    p = put_int64(p, 1, command_id)
    p = put_text(p, 2, text.data, text.size)
    return finished(out, p)


cdef inline bytes new_reply(Shape* shape, int64_t command_id, Py_ssize_t tail):
    """Room for the whole message: the client action's member and `tail` bytes behind the client action."""
    shape.action = field_size(shape.member)
    shape.reply = int64_size(command_id) + field_size(shape.action) + tail
    return new_message(field_size(shape.reply))


cdef inline uint8_t* put_reply_head(uint8_t* p, Shape* shape, int64_t command_id, uint8_t member) noexcept nogil:
    """Everything before the content of the client action's member."""
    p = put_length(p, 1, shape.reply)
    p = put_int64(p, 1, command_id)
    p = put_length(p, 2, shape.action)
    return put_length(p, member, shape.member)


cdef inline Py_ssize_t any_size(Text* type_url, bytes value) noexcept:
    return text_size(type_url.size) + text_size(PyBytes_GET_SIZE(value))


cdef inline Py_ssize_t reply_size(Text* type_url, bytes payload, bytes metadata) noexcept:
    return field_size(any_size(type_url, payload)) + optional_size(metadata)


cdef inline uint8_t* put_reply(uint8_t* p, Text* type_url, bytes payload, bytes metadata) noexcept:
    p = put_length(p, 1, any_size(type_url, payload))
    p = put_any(p, type_url, payload)
    return put_optional(p, 2, metadata)


cdef inline uint8_t* put_any(uint8_t* p, Text* type_url, bytes value) noexcept:
    p = put_text(p, 1, type_url.data, type_url.size)
    return put_text(p, 2, start_of(value), PyBytes_GET_SIZE(value))


cdef inline Py_ssize_t reply_tail_size(object events, bytes snapshot, object side_effects) noexcept:
    return items_size(side_effects) + items_size(events) + optional_size(snapshot)


cdef uint8_t* put_reply_tail(uint8_t* p, object events, bytes snapshot, object side_effects) noexcept:
    p = put_items(p, 3, side_effects)
    p = put_items(p, 4, events)
    return put_optional(p, 5, snapshot)


include "wire_value.pxi"
include "wire_crdt.pxi"
include "wire_action.pxi"
include "wire_call.pxi"
include "wire_metadata.pxi"

# --- google.protobuf.Any ---------------------------------------------------------------------------------------------

cpdef bytes write_any(str type_url, bytes value):
    cdef Text url = utf8(type_url)
    if value is None:
        raise TypeError("the value of an Any must be bytes, not None")
    cdef bytes out = new_message(any_size(&url, value))
    return finished(out, put_any(start_of(out), &url, value))


cpdef tuple scan_any(bytes data):
    cdef Reader reader
    cdef Field whole
    cdef Field type_url
    cdef Field value
    whole.data = begin(&reader, data)
    whole.size = len(data)
    type_url.data = NULL
    value.data = NULL
    scan_any_parts(&reader, &whole, &type_url, &value)
    return (
        interned(&type_url) if type_url.data != NULL else "",
        content(&value) if value.data != NULL else b"",
    )


# What is to be stored has to be readable: an entity with one malformed event could never be replayed again.
cdef int check_any(Reader* reader, Field* whole) except -1:
    cdef Field type_url
    cdef Field value
    return scan_any_parts(reader, whole, &type_url, &value)


cdef int scan_any_parts(Reader* reader, Field* whole, Field* type_url, Field* value) except -1:
    cdef Field field
    cdef const uint8_t* p = whole.data
    cdef const uint8_t* end = p + whole.size
    while p < end:
        p = next_field(reader, p, end, &field, b"Any")
        if field.tag == LEN_1:
            check_utf8(reader, &field, b"Any.type_url")
            type_url[0] = field
        elif field.tag == LEN_2:
            value[0] = field
    return 0


# --- from memory to Python -------------------------------------------------------------------------------------------

cdef inline const uint8_t* begin(Reader* reader, bytes message) except NULL:
    if message is None:
        raise TypeError("a message must be bytes, not None")
    reader.start = <const uint8_t*>PyBytes_AS_STRING(message)
    reader.groups = False
    return reader.start


cdef inline const uint8_t* next_field(
    Reader* reader, const uint8_t* p, const uint8_t* end, Field* field, const char* message
) except NULL:
    p = read_field(reader, p, end, field)
    if p == NULL:
        raise_refusal(reader, message)
    return p


cdef inline int check_utf8(Reader* reader, Field* field, const char* name) except -1:
    if not is_ascii(field.data, field.size):
        decode(reader, field, name)
    return 0


cdef int decode(Reader* reader, Field* field, const char* name) except -1:
    try:
        PyUnicode_DecodeUTF8(<const char*>field.data, field.size, NULL)
    except UnicodeDecodeError as error:
        reader.error = b"invalid UTF-8"
        reader.where = field.data + <Py_ssize_t>error.start
        raise_refusal(reader, name)
    return 0


cdef int raise_refusal(Reader* reader, const char* message) except -1:
    raise WireError(f"{message.decode()}: {reader.error.decode()} at offset {reader.where - reader.start}")


# Texts that come again and again (type URLs, names of services and methods) are decoded once. A slot holds the last
# text of its hash, so the table is bounded whatever a peer sends.
cdef enum:
    SLOT_BITS = 7
    SLOTS = 1 << SLOT_BITS
    LONGEST_INTERNED = 256

cdef PyObject* slots[SLOTS]


cdef str interned(Field* field):
    cdef Py_ssize_t size = 0
    cdef const char* known
    cdef PyObject** slot
    if field.size > LONGEST_INTERNED:
        return decoded(field)
    slot = &slots[text_hash(field.data, field.size)]
    if slot[0] != NULL:
        known = PyUnicode_AsUTF8AndSize(<object>slot[0], &size)
        if size == field.size and memcmp(known, field.data, <size_t>size) == 0:
            return <str>slot[0]
    cdef str text = decoded(field)
    Py_INCREF(text)
    Py_XDECREF(slot[0])
    slot[0] = <PyObject*>text
    return text


cdef inline uint64_t text_hash(const uint8_t* p, Py_ssize_t size) noexcept nogil:
    """From the length and the last 16 bytes, where type URLs differ."""
    cdef uint64_t low = 0
    cdef uint64_t high = 0
    if size >= 16:
        memcpy(&low, p + size - 16, 8)
        memcpy(&high, p + size - 8, 8)
    elif size >= 8:
        memcpy(&low, p, 8)
        memcpy(&high, p + size - 8, 8)
    else:
        memcpy(&low, p, <size_t>size)
    low = (low ^ <uint64_t>size) * 0x9E3779B97F4A7C15u
    high = (high ^ low >> 32) * 0xC2B2AE3D27D4EB4Fu
    return (low ^ high) >> (64 - SLOT_BITS)
