# Part of wire.pyx: what a forward or a side effect calls. Forward and SideEffect agree in their first three fields.

@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class ServiceCall:
    def __cinit__(self):
        self.service_name = ""
        self.command_name = ""
        self.type_url = ""


cpdef ServiceCall scan_forward(bytes message):
    return scan_service_call(message, LEN_4, b"Forward")


cpdef ServiceCall scan_side_effect(bytes message):
    return scan_service_call(message, LEN_5, b"SideEffect")


cdef ServiceCall scan_service_call(bytes message, uint32_t metadata_tag, const char* name):
    cdef Reader reader
    cdef Field field
    cdef const uint8_t* p = begin(&reader, message)
    cdef const uint8_t* end = p + len(message)
    cdef ServiceCall call = ServiceCall.__new__(ServiceCall)
    while p < end:
        p = next_field(&reader, p, end, &field, name)
        if field.tag == LEN_1:
            check_utf8(&reader, &field, b"service_name")
            call.service_name = interned(&field)
        elif field.tag == LEN_2:
            check_utf8(&reader, &field, b"command_name")
            call.command_name = interned(&field)
        elif field.tag == LEN_3:
            scan_command_payload(&reader, &field, call)
        elif field.tag == metadata_tag:
            call.metadata = merged(call.metadata, &field)
        elif field.tag == INT_4 and metadata_tag == LEN_5:
            call.synchronous = field.value != 0
    if call.payload is None:
        call.payload = b""
    return call
