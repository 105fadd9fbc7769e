# Part of wire.pyx: the messages of cloudstate.action. The members of ActionResponse are those of ClientAction under
# other numbers.

cdef enum:
    FAILURE_MEMBER = 1
    REPLY_MEMBER = 2
    FORWARD_MEMBER = 3


# --- proxy to user function ------------------------------------------------------------------------------------------

@cython.final
cdef class ActionWriter:
    def __init__(self, str service_name not None, str name not None, str type_url not None):
        self.head = text_field(2, service_name) + text_field(3, name)
        self.type_url = text_field(1, type_url)

    cpdef bytes command(self, bytes payload, bytes metadata=None):
        return self.written(self.head, payload, metadata)

    cpdef bytes opening(self, bytes metadata=None):
        cdef bytes out = new_message(len(self.head) + optional_size(metadata))
        cdef uint8_t* p = put_raw(start_of(out), start_of(self.head), len(self.head))
        return finished(out, put_optional(p, 5, metadata))

    cpdef bytes message(self, bytes payload):
        return self.written(b"", payload, b"")

    cdef bytes written(self, bytes head, bytes payload, bytes metadata):
        if payload is None:
            raise TypeError("payload must be bytes, not None")
        cdef Py_ssize_t size = len(self.type_url) + text_size(len(payload))
        cdef bytes out = new_message(len(head) + field_size(size) + optional_size(metadata))
        cdef uint8_t* p = put_raw(start_of(out), start_of(head), len(head))
        p = put_length(p, 4, size)
        p = put_raw(p, start_of(self.type_url), len(self.type_url))
        p = put_text(p, 2, start_of(payload), len(payload))
        return finished(out, put_optional(p, 5, metadata))


@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class ActionIn:
    def __cinit__(self):
        self.service_name = ""
        self.name = ""
        self.type_url = ""


cpdef ActionIn scan_action_in(bytes message):
    cdef Reader reader
    cdef Field field
    cdef const uint8_t* p = begin(&reader, message)
    cdef const uint8_t* end = p + len(message)
    cdef ActionIn found = ActionIn.__new__(ActionIn)
    while p < end:
        p = next_field(&reader, p, end, &field, b"ActionCommand")
        if field.tag == LEN_2:
            check_utf8(&reader, &field, b"ActionCommand.service_name")
            found.service_name = interned(&field)
        elif field.tag == LEN_3:
            check_utf8(&reader, &field, b"ActionCommand.name")
            found.name = interned(&field)
        elif field.tag == LEN_4:
            scan_command_payload(&reader, &field, found)
        elif field.tag == LEN_5:
            found.metadata = merged(found.metadata, &field)
    return found


# --- user function to proxy ------------------------------------------------------------------------------------------

@cython.final
@cython.no_gc
@cython.freelist(256)
cdef class ActionOut:
    def __cinit__(self):
        self.type_url = ""
        self.payload = b""
        self.description = ""
        self.side_effects = ()


cpdef ActionOut scan_action_out(bytes message):
    cdef Reader reader
    cdef Field field
    cdef Parts parts
    cdef const uint8_t* p = begin(&reader, message)
    cdef const uint8_t* end = p + len(message)
    cdef ActionOut out = ActionOut.__new__(ActionOut)
    forget(&parts)
    while p < end:
        p = next_field(&reader, p, end, &field, b"ActionResponse")
        if field.tag == LEN_1:
            enter_action(out, &parts, C_FAILURE)
            scan_failure(&reader, &field, &parts, 0)
        elif field.tag == LEN_2:
            enter_action(out, &parts, C_REPLY)
            scan_client_reply(&reader, &field, out, &parts)
        elif field.tag == LEN_3:
            enter_action(out, &parts, C_FORWARD)
            out.forward = merged(out.forward, &field)
        elif field.tag == LEN_4:
            out.side_effects = appended(out.side_effects, &field)
    hand_on(out, &parts)
    return out


def write_action_response(
    int action,
    *,
    str type_url not None="",
    bytes payload not None=b"",
    bytes metadata=None,
    bytes forward=None,
    str description not None="",
    side_effects=(),
):
    cdef Text url = utf8(type_url)
    cdef Text text = utf8(description)
    cdef Py_ssize_t size = 0
    side_effects = sequence_of_bytes(side_effects, b"side_effects must be a sequence of bytes")
    if action == C_REPLY:
        size = reply_size(&url, payload, metadata)
    elif action == C_FORWARD:
        if forward is None:
            raise TypeError("forward must be bytes, not None")
        size = len(forward)
    elif action == C_FAILURE:
        size = text_size(text.size)
    elif action != C_NONE:
        raise ValueError(f"{action} is not an action")
    cdef bytes out = new_message((field_size(size) if action != C_NONE else 0) + items_size(side_effects))
    cdef uint8_t* p = start_of(out)
    if action == C_REPLY:
        p = put_reply(put_length(p, REPLY_MEMBER, size), &url, payload, metadata)
    elif action == C_FORWARD:
        p = put_raw(put_length(p, FORWARD_MEMBER, size), start_of(forward), size)
    elif action == C_FAILURE:
        p = put_text(put_length(p, FAILURE_MEMBER, size), 2, text.data, text.size)
    return finished(out, put_items(p, 4, side_effects))
