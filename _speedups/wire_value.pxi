# Part of wire.pyx: the messages of cloudstate.valueentity. They differ from those of event sourced entities in the state
# that Init carries and in the state action of a reply; commands, client actions and failures are the same.


# --- user function to proxy, scanned ---------------------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class ValueOut(Outgoing):
    pass


cpdef ValueOut scan_value_out(bytes message):
    cdef Reader reader
    cdef Field field
    cdef Parts parts
    cdef const uint8_t* p = begin(&reader, message)
    cdef const uint8_t* end = p + len(message)
    cdef ValueOut out = ValueOut.__new__(ValueOut)
    forget(&parts)
    while p < end:
        p = next_field(&reader, p, end, &field, b"ValueEntityStreamOut")
        if field.tag == LEN_1:
            enter_value_kind(out, &parts, C_REPLY)
            scan_value_reply(&reader, &field, out, &parts)
        elif field.tag == LEN_2:
            enter_value_kind(out, &parts, KIND_FAILURE)
            out.command_id = scan_failure(&reader, &field, &parts, out.command_id)
    hand_on(out, &parts)
    return out


cdef inline void enter_value_kind(ValueOut out, Parts* parts, int kind) noexcept:
    """Of a oneof the last member wins; the same one again is merged into what is there."""
    if out.kind == kind:
        return
    if out.kind != C_NONE:
        enter_action(out, parts, C_NONE)
        out.command_id = 0
        out.side_effects = ()
        out.state_action = STATE_NONE
        out.value = None
    out.kind = kind


cdef int scan_value_reply(Reader* reader, Field* reply, ValueOut out, Parts* parts) except -1:
    cdef Field field
    cdef const uint8_t* p = reply.data
    cdef const uint8_t* end = p + reply.size
    while p < end:
        p = next_field(reader, p, end, &field, b"ValueEntityReply")
        if field.tag == INT_1:
            out.command_id = <int64_t>field.value
        elif field.tag == LEN_2:
            scan_client_action(reader, &field, out, parts)
        elif field.tag == LEN_3:
            out.side_effects = appended(out.side_effects, &field)
        elif field.tag == LEN_4:
            scan_state_action(reader, &field, out)
    return 0


cdef int scan_state_action(Reader* reader, Field* action, ValueOut out) except -1:
    cdef Field field
    cdef const uint8_t* p = action.data
    cdef const uint8_t* end = p + action.size
    if out.state_action == STATE_NONE:
        out.state_action = STATE_INVALID
    while p < end:
        p = next_field(reader, p, end, &field, b"ValueEntityAction")
        if field.tag == LEN_1:
            scan_update(reader, &field, out)
            out.state_action = STATE_UPDATE if out.value is not None else STATE_INVALID
        elif field.tag == LEN_2:
            scan_delete(reader, &field)
            out.state_action = STATE_DELETE
            out.value = None
    return 0


cdef int scan_update(Reader* reader, Field* update, ValueOut out) except -1:
    cdef Field field
    cdef const uint8_t* p = update.data
    cdef const uint8_t* end = p + update.size
    while p < end:
        p = next_field(reader, p, end, &field, b"ValueEntityUpdate")
        if field.tag == LEN_1:
            check_any(reader, &field)
            out.value = merged(out.value, &field)
    return 0


cdef int scan_delete(Reader* reader, Field* delete) except -1:
    """It has no fields, which is no reason to let malformed ones pass."""
    cdef Field field
    cdef const uint8_t* p = delete.data
    cdef const uint8_t* end = p + delete.size
    while p < end:
        p = next_field(reader, p, end, &field, b"ValueEntityDelete")
    return 0


# --- proxy to user function, written and scanned ---------------------------------------------------------------------

cpdef bytes write_value_init(str service_name, str entity_id, bytes value):
    return init_message(service_name, entity_id, True, 0, 1, value)


cpdef StreamIn scan_value_in(bytes message):
    cdef Reader reader
    cdef Field field
    cdef const uint8_t* p = begin(&reader, message)
    cdef const uint8_t* end = p + len(message)
    cdef StreamIn found = StreamIn.__new__(StreamIn)
    while p < end:
        p = next_field(&reader, p, end, &field, b"ValueEntityStreamIn")
        if field.tag == LEN_2:
            enter_in(found, C_COMMAND)
            scan_command(&reader, &field, found)
        elif field.tag == LEN_1:
            enter_in(found, C_INIT)
            scan_init(&reader, &field, found, b"ValueEntityInit", scan_init_state)
    return found


cdef int scan_init_state(Reader* reader, Field* state, StreamIn found) except -1:
    cdef Field field
    cdef const uint8_t* p = state.data
    cdef const uint8_t* end = p + state.size
    while p < end:
        p = next_field(reader, p, end, &field, b"ValueEntityInitState")
        if field.tag == LEN_1:
            found.snapshot = merged(found.snapshot, &field)
    return 0


# --- user function to proxy, written ---------------------------------------------------------------------------------

def write_value_reply(
    int64_t command_id,
    str type_url not None,
    bytes payload not None,
    *,
    bytes metadata=None,
    side_effects=(),
    int state_action=STATE_NONE,
    bytes value=None,
):
    cdef Text url = utf8(type_url)
    cdef Shape shape
    shape.member = reply_size(&url, payload, metadata)
    side_effects = sequence_of_bytes(side_effects, b"side_effects must be a sequence of bytes")
    cdef Py_ssize_t tail = items_size(side_effects) + state_action_size(state_action, value)
    cdef bytes out = new_reply(&shape, command_id, tail)
    cdef uint8_t* p = put_reply_head(start_of(out), &shape, command_id, C_REPLY)
    p = put_reply(p, &url, payload, metadata)
    p = put_items(p, 3, side_effects)
    return finished(out, put_state_action(p, state_action, value))


def write_value_forward(
    int64_t command_id,
    bytes forward not None,
    *,
    side_effects=(),
    int state_action=STATE_NONE,
    bytes value=None,
):
    cdef Shape shape
    shape.member = len(forward)
    side_effects = sequence_of_bytes(side_effects, b"side_effects must be a sequence of bytes")
    cdef Py_ssize_t tail = items_size(side_effects) + state_action_size(state_action, value)
    cdef bytes out = new_reply(&shape, command_id, tail)
    cdef uint8_t* p = put_reply_head(start_of(out), &shape, command_id, C_FORWARD)
    p = put_raw(p, start_of(forward), len(forward))
    p = put_items(p, 3, side_effects)
    return finished(out, put_state_action(p, state_action, value))


cdef Py_ssize_t state_action_size(int state_action, bytes value) except -1:
    """Of the field; ValueError for what would not be a state action."""
    if not STATE_NONE <= state_action <= STATE_DELETE:
        raise ValueError(f"{state_action} is not a state action that can be written")
    if (value is not None) != (state_action == STATE_UPDATE):
        raise ValueError("a value goes with STATE_UPDATE, and only with it")
    if state_action == STATE_NONE:
        return 0
    return field_size(field_size(optional_size(value)))


cdef inline uint8_t* put_state_action(uint8_t* p, int state_action, bytes value) noexcept:
    """Update and delete have the numbers of STATE_UPDATE and STATE_DELETE; the latter is empty."""
    if state_action == STATE_NONE:
        return p
    cdef Py_ssize_t size = optional_size(value)
    p = put_length(p, 4, field_size(size))
    p = put_length(p, <uint8_t>state_action, size)
    return put_optional(p, 1, value)
