# Part of wire.pyx: the messages of cloudstate.crdt. A stream carries any number of commands at once, so besides replies
# there are messages and cancellations of streamed commands. Deltas stay the bytes they are: `crdt` reads and writes
# them.

cdef enum:
    C_DELTA = 4  # as kind of what goes in
    C_DELETE = 5
    C_STREAM_CANCELLED = 6
    C_MAX_CONSISTENCY = 2

IN_DELTA = C_DELTA
IN_DELETE = C_DELETE
IN_STREAM_CANCELLED = C_STREAM_CANCELLED


# --- user function to proxy, scanned ---------------------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class CrdtOut(Outgoing):
    pass


cpdef CrdtOut scan_crdt_out(bytes message):
    cdef Reader reader
    cdef Field field
    cdef Parts parts
    cdef const uint8_t* p = begin(&reader, message)
    cdef const uint8_t* end = p + len(message)
    cdef CrdtOut out = CrdtOut.__new__(CrdtOut)
    forget(&parts)
    while p < end:
        p = next_field(&reader, p, end, &field, b"CrdtStreamOut")
        if field.tag == LEN_1:
            enter_crdt_kind(out, &parts, C_REPLY)
            scan_crdt_reply(&reader, &field, out, &parts)
        elif field.tag == LEN_2:
            enter_crdt_kind(out, &parts, KIND_STREAMED_MESSAGE)
            scan_streamed_message(&reader, &field, out, &parts)
        elif field.tag == LEN_3:
            enter_crdt_kind(out, &parts, KIND_CANCELLED_RESPONSE)
            scan_cancelled_response(&reader, &field, out)
        elif field.tag == LEN_4:
            enter_crdt_kind(out, &parts, KIND_FAILURE)
            out.command_id = scan_failure(&reader, &field, &parts, out.command_id)
    hand_on(out, &parts)
    return out


cdef inline void enter_crdt_kind(CrdtOut out, Parts* parts, int kind) noexcept:
    """Of a oneof the last member wins; the same one again is merged into what is there."""
    if out.kind == kind:
        return
    if out.kind != C_NONE:
        enter_action(out, parts, C_NONE)
        out.command_id = 0
        out.side_effects = ()
        out.streamed = False
        out.end_stream = False
        out.state_action = STATE_NONE
        out.update = None
        out.write_consistency = 0
    out.kind = kind


cdef int scan_crdt_reply(Reader* reader, Field* reply, CrdtOut out, Parts* parts) except -1:
    cdef Field field
    cdef const uint8_t* p = reply.data
    cdef const uint8_t* end = p + reply.size
    while p < end:
        p = next_field(reader, p, end, &field, b"CrdtReply")
        if field.tag == INT_1:
            out.command_id = <int64_t>field.value
        elif field.tag == LEN_2:
            scan_client_action(reader, &field, out, parts)
        elif field.tag == LEN_4:
            out.side_effects = appended(out.side_effects, &field)
        elif field.tag == LEN_5:
            scan_crdt_state_action(reader, &field, out)
        elif field.tag == INT_6:
            out.streamed = field.value != 0
    return 0


cdef int scan_streamed_message(Reader* reader, Field* message, CrdtOut out, Parts* parts) except -1:
    cdef Field field
    cdef const uint8_t* p = message.data
    cdef const uint8_t* end = p + message.size
    while p < end:
        p = next_field(reader, p, end, &field, b"CrdtStreamedMessage")
        if field.tag == INT_1:
            out.command_id = <int64_t>field.value
        elif field.tag == LEN_2:
            scan_client_action(reader, &field, out, parts)
        elif field.tag == LEN_3:
            out.side_effects = appended(out.side_effects, &field)
        elif field.tag == INT_4:
            out.end_stream = field.value != 0
    return 0


cdef int scan_cancelled_response(Reader* reader, Field* response, CrdtOut out) except -1:
    cdef Field field
    cdef const uint8_t* p = response.data
    cdef const uint8_t* end = p + response.size
    while p < end:
        p = next_field(reader, p, end, &field, b"CrdtStreamCancelledResponse")
        if field.tag == INT_1:
            out.command_id = <int64_t>field.value
        elif field.tag == LEN_2:
            out.side_effects = appended(out.side_effects, &field)
        elif field.tag == LEN_3:
            scan_crdt_state_action(reader, &field, out)
    return 0


cdef int scan_crdt_state_action(Reader* reader, Field* action, CrdtOut out) except -1:
    cdef Field field
    cdef const uint8_t* p = action.data
    cdef const uint8_t* end = p + action.size
    cdef int32_t level
    if out.state_action == STATE_NONE:
        out.state_action = STATE_INVALID
    while p < end:
        p = next_field(reader, p, end, &field, b"CrdtStateAction")
        if field.tag == LEN_1:
            out.update = merged(out.update, &field)
            out.state_action = STATE_UPDATE
        elif field.tag == LEN_2:
            scan_crdt_delete(reader, &field)
            out.state_action = STATE_DELETE
            out.update = None
        elif field.tag == INT_3:
            level = <int32_t>field.value
            out.write_consistency = level if 0 <= level <= C_MAX_CONSISTENCY else 0
    return 0


cdef int scan_crdt_delete(Reader* reader, Field* delete) except -1:
    """It has no fields, which is no reason to let malformed ones pass."""
    cdef Field field
    cdef const uint8_t* p = delete.data
    cdef const uint8_t* end = p + delete.size
    while p < end:
        p = next_field(reader, p, end, &field, b"CrdtDelete")
    return 0


# --- proxy to user function, written ---------------------------------------------------------------------------------

cpdef bytes write_crdt_init(str service_name, str entity_id, bytes delta=None):
    cdef Text service = utf8(service_name)
    cdef Text entity = utf8(entity_id)
    cdef Py_ssize_t size = text_size(service.size) + text_size(entity.size) + optional_size(delta)
    cdef bytes out = new_message(field_size(size))
    cdef uint8_t* p = put_length(start_of(out), 1, size)
    p = put_text(p, 1, service.data, service.size)
    p = put_text(p, 2, entity.data, entity.size)
    return finished(out, put_optional(p, 3, delta))


cpdef bytes write_crdt_delta(bytes delta):
    if delta is None:
        raise TypeError("a delta must be bytes, not None")
    cdef bytes out = new_message(optional_size(delta))
    return finished(out, put_optional(start_of(out), 2, delta))


cpdef bytes write_crdt_delete():
    cdef bytes out = new_message(optional_size(b""))
    return finished(out, put_optional(start_of(out), 3, b""))


cpdef bytes write_stream_cancelled(bytes entity_id, int64_t command_id):
    if entity_id is None:
        raise TypeError("entity_id must be bytes, not None")
    cdef Py_ssize_t size = text_size(len(entity_id)) + int64_size(command_id)
    cdef bytes out = new_message(field_size(size))
    cdef uint8_t* p = put_length(start_of(out), 5, size)
    p = put_text(p, 1, start_of(entity_id), len(entity_id))
    return finished(out, put_int64(p, 2, command_id))


# --- proxy to user function, scanned ---------------------------------------------------------------------------------

@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class CrdtIn:
    def __cinit__(self):
        clear_crdt_in(self)


cdef inline void clear_crdt_in(CrdtIn message) noexcept:
    message.service_name = ""
    message.entity_id = ""
    message.delta = None
    message.command_id = 0
    message.name = ""
    message.type_url = ""
    message.payload = None
    message.streamed = False
    message.metadata = None


cpdef CrdtIn scan_crdt_in(bytes message):
    cdef Reader reader
    cdef Field field
    cdef const uint8_t* p = begin(&reader, message)
    cdef const uint8_t* end = p + len(message)
    cdef CrdtIn found = CrdtIn.__new__(CrdtIn)
    while p < end:
        p = next_field(&reader, p, end, &field, b"CrdtStreamIn")
        if field.tag == LEN_4:
            enter_crdt_in(found, C_COMMAND)
            scan_command(&reader, &field, found)
        elif field.tag == LEN_2:
            enter_crdt_in(found, C_DELTA)
            found.delta = merged(found.delta, &field)
        elif field.tag == LEN_1:
            enter_crdt_in(found, C_INIT)
            scan_crdt_init(&reader, &field, found)
        elif field.tag == LEN_3:
            enter_crdt_in(found, C_DELETE)
            scan_crdt_delete(&reader, &field)
        elif field.tag == LEN_5:
            enter_crdt_in(found, C_STREAM_CANCELLED)
            scan_stream_cancelled(&reader, &field, found)
    return found


cdef inline void enter_crdt_in(CrdtIn found, int kind) noexcept:
    """Of a oneof the last member wins; the same one again is merged into what is there."""
    if found.kind != kind and found.kind != C_NONE:
        clear_crdt_in(found)
    found.kind = kind


cdef int scan_crdt_init(Reader* reader, Field* init, CrdtIn found) except -1:
    cdef Field field
    cdef const uint8_t* p = init.data
    cdef const uint8_t* end = p + init.size
    while p < end:
        p = next_field(reader, p, end, &field, b"CrdtInit")
        if field.tag == LEN_1:
            check_utf8(reader, &field, b"init.service_name")
            found.service_name = interned(&field)
        elif field.tag == LEN_2:
            check_utf8(reader, &field, b"init.entity_id")
            found.entity_id = decoded(&field)
        elif field.tag == LEN_3:
            found.delta = merged(found.delta, &field)
    return 0


cdef int scan_stream_cancelled(Reader* reader, Field* cancelled, CrdtIn found) except -1:
    cdef Field field
    cdef const uint8_t* p = cancelled.data
    cdef const uint8_t* end = p + cancelled.size
    while p < end:
        p = next_field(reader, p, end, &field, b"StreamCancelled")
        if field.tag == LEN_1:
            check_utf8(reader, &field, b"StreamCancelled.entity_id")
            found.entity_id = decoded(&field)
        elif field.tag == INT_2:
            found.command_id = <int64_t>field.value
    return 0


# --- user function to proxy, written ---------------------------------------------------------------------------------

cdef struct Answer:
    # A ClientAction to be written: its member, and the size of what is in that.
    int action
    Py_ssize_t size
    Text type_url
    Text description
    int64_t command_id


cdef int shape_answer(
    Answer* answer, int action, int64_t command_id, str type_url, bytes payload, bytes metadata, bytes forward,
    str description,
) except -1:
    """ValueError for what is no action, TypeError for what its member lacks."""
    answer.action = action
    answer.command_id = command_id
    answer.type_url = utf8(type_url)
    answer.description = utf8(description)
    answer.size = 0
    if action == C_REPLY:
        answer.size = reply_size(&answer.type_url, payload, metadata)
    elif action == C_FORWARD:
        if forward is None:
            raise TypeError("forward must be bytes, not None")
        answer.size = len(forward)
    elif action == C_FAILURE:
        answer.size = int64_size(command_id) + text_size(answer.description.size)
    elif action != C_NONE:
        raise ValueError(f"{action} is not an action")
    return 0


cdef inline Py_ssize_t answer_size(Answer* answer) noexcept nogil:
    return field_size(field_size(answer.size)) if answer.action != C_NONE else 0


cdef inline uint8_t* put_answer(uint8_t* p, Answer* answer, bytes payload, bytes metadata, bytes forward) noexcept:
    if answer.action == C_NONE:
        return p
    p = put_length(p, 2, field_size(answer.size))
    p = put_length(p, <uint8_t>answer.action, answer.size)  # the members have the numbers of the actions
    if answer.action == C_REPLY:
        return put_reply(p, &answer.type_url, payload, metadata)
    if answer.action == C_FORWARD:
        return put_raw(p, start_of(forward), answer.size)
    p = put_int64(p, 1, answer.command_id)
    return put_text(p, 2, answer.description.data, answer.description.size)


def write_crdt_reply(
    int64_t command_id,
    int action=C_NONE,
    *,
    str type_url not None="",
    bytes payload not None=b"",
    bytes metadata=None,
    bytes forward=None,
    str description not None="",
    side_effects=(),
    int state_action=STATE_NONE,
    bytes update=None,
    int write_consistency=0,
    bint streamed=False,
):
    cdef Answer answer
    shape_answer(&answer, action, command_id, type_url, payload, metadata, forward, description)
    side_effects = sequence_of_bytes(side_effects, b"side_effects must be a sequence of bytes")
    cdef Py_ssize_t size = int64_size(command_id) + answer_size(&answer) + items_size(side_effects)
    size += crdt_state_action_size(state_action, update, write_consistency) + int64_size(streamed)
    cdef bytes out = new_message(field_size(size))
    cdef uint8_t* p = put_length(start_of(out), 1, size)
    p = put_int64(p, 1, command_id)
    p = put_answer(p, &answer, payload, metadata, forward)
    p = put_items(p, 4, side_effects)
    p = put_crdt_state_action(p, 5, state_action, update, write_consistency)
    return finished(out, put_int64(p, 6, streamed))


def write_crdt_streamed_message(
    int64_t command_id,
    int action=C_NONE,
    *,
    str type_url not None="",
    bytes payload not None=b"",
    bytes metadata=None,
    bytes forward=None,
    str description not None="",
    side_effects=(),
    bint end_stream=False,
):
    cdef Answer answer
    shape_answer(&answer, action, command_id, type_url, payload, metadata, forward, description)
    side_effects = sequence_of_bytes(side_effects, b"side_effects must be a sequence of bytes")
    cdef Py_ssize_t size = int64_size(command_id) + answer_size(&answer) + items_size(side_effects)
    size += int64_size(end_stream)
    cdef bytes out = new_message(field_size(size))
    cdef uint8_t* p = put_length(start_of(out), 2, size)
    p = put_int64(p, 1, command_id)
    p = put_answer(p, &answer, payload, metadata, forward)
    p = put_items(p, 3, side_effects)
    return finished(out, put_int64(p, 4, end_stream))


def write_crdt_cancelled_response(
    int64_t command_id,
    *,
    side_effects=(),
    int state_action=STATE_NONE,
    bytes update=None,
    int write_consistency=0,
):
    side_effects = sequence_of_bytes(side_effects, b"side_effects must be a sequence of bytes")
    cdef Py_ssize_t size = int64_size(command_id) + items_size(side_effects)
    size += crdt_state_action_size(state_action, update, write_consistency)
    cdef bytes out = new_message(field_size(size))
    cdef uint8_t* p = put_length(start_of(out), 3, size)
    p = put_int64(p, 1, command_id)
    p = put_items(p, 2, side_effects)
    return finished(out, put_crdt_state_action(p, 3, state_action, update, write_consistency))


cpdef bytes write_crdt_failure(int64_t command_id, str description):
    cdef Text text = utf8(description)
    cdef Py_ssize_t size = int64_size(command_id) + text_size(text.size)
    cdef bytes out = new_message(field_size(size))
    cdef uint8_t* p = put_length(start_of(out), 4, size)
    p = put_int64(p, 1, command_id)
    return finished(out, put_text(p, 2, text.data, text.size))


cdef Py_ssize_t crdt_state_action_size(int state_action, bytes update, int write_consistency) except -1:
    """Of the field; ValueError for what would not be a state action."""
    if not 0 <= write_consistency <= C_MAX_CONSISTENCY:
        raise ValueError(f"{write_consistency} is not a write consistency")
    if not STATE_NONE <= state_action <= STATE_DELETE:
        raise ValueError(f"{state_action} is not a state action that can be written")
    if (update is not None) != (state_action == STATE_UPDATE):
        raise ValueError("an update goes with STATE_UPDATE, and only with it")
    if state_action == STATE_NONE:
        return 0
    return field_size(field_size(PyBytes_GET_SIZE(update) if update is not None else 0) + int64_size(write_consistency))


cdef inline uint8_t* put_crdt_state_action(
    uint8_t* p, uint8_t number, int state_action, bytes update, int write_consistency
) noexcept:
    """Update and delete have the numbers of STATE_UPDATE and STATE_DELETE; the latter is empty."""
    if state_action == STATE_NONE:
        return p
    cdef bytes member = update if update is not None else b""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(member)
    p = put_length(p, number, field_size(size) + int64_size(write_consistency))
    p = put_length(p, <uint8_t>state_action, size)
    p = put_raw(p, PyBytes_AS_STRING(member), size)
    return put_int64(p, 3, write_consistency)
