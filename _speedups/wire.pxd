"""Shape of `wire` for other Cython modules; wire.pyi documents it."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef enum:
    MAX_KEYS = 64

cdef struct Key:
    uint32_t tag
    int type

cdef struct KeyValue:
    uint64_t number
    const uint8_t* data
    Py_ssize_t size

cdef class KeyScanner:
    cdef Key[MAX_KEYS] keys
    cdef int count
    cdef list enums  # by position: names of enum values by number, None for other types

    cdef int add(self, object number, object type_name, object enum) except -1
    cpdef str scan(self, bytes message)
    cdef str text(self, int index, KeyValue* value)
    cdef str enum_text(self, int index, int32_t number)

cdef class CommandWriter:
    cdef uint8_t member
    cdef bytes name  # as field of Command
    cdef bytes type_url  # as field of Any

    cpdef bytes write(
        self, bytes entity_id, int64_t command_id, bytes payload, bytes metadata=*, bint streamed=*
    )

cpdef enum:
    KIND_NONE = 0
    KIND_REPLY = 1
    KIND_FAILURE = 2
    KIND_STREAMED_MESSAGE = 3
    KIND_CANCELLED_RESPONSE = 4

cpdef enum:
    ACTION_NONE = 0
    ACTION_REPLY = 1
    ACTION_FORWARD = 2
    ACTION_FAILURE = 3

cpdef enum:
    STATE_NONE = 0
    STATE_UPDATE = 1
    STATE_DELETE = 2
    STATE_INVALID = 3

cdef class Outgoing:
    # What the user function says on the stream of an entity, scanned. The fields of all entity types are here, and the
    # subclasses have none of their own, so that they share one free list.
    cdef readonly int kind
    cdef readonly int64_t command_id
    cdef readonly int action
    cdef readonly str type_url
    cdef readonly bytes payload
    cdef readonly bytes metadata
    cdef readonly bytes forward
    cdef readonly str description
    cdef readonly bint restart
    cdef readonly object side_effects
    # event sourced
    cdef readonly object events
    cdef readonly bytes snapshot
    # values and CRDTs
    cdef readonly int state_action
    cdef readonly bytes value
    cdef readonly bytes update
    cdef readonly int write_consistency
    cdef readonly bint streamed
    cdef readonly bint end_stream

cdef class StreamOut(Outgoing):
    pass

cdef class StreamIn:
    cdef readonly int kind
    cdef readonly str service_name
    cdef readonly str entity_id
    cdef readonly int64_t snapshot_sequence
    cdef readonly bytes snapshot
    cdef readonly int64_t sequence
    cdef readonly bytes event
    cdef readonly int64_t command_id
    cdef readonly str name
    cdef readonly str type_url
    cdef readonly bytes payload
    cdef readonly bint streamed
    cdef readonly bytes metadata

cdef class ValueOut(Outgoing):
    pass

cdef class CrdtOut(Outgoing):
    pass

cdef class CrdtIn:
    cdef readonly int kind
    cdef readonly str service_name
    cdef readonly str entity_id
    cdef readonly bytes delta
    cdef readonly int64_t command_id
    cdef readonly str name
    cdef readonly str type_url
    cdef readonly bytes payload
    cdef readonly bint streamed
    cdef readonly bytes metadata

cdef class ActionWriter:
    cdef bytes head  # service_name and name as fields of ActionCommand
    cdef bytes type_url  # as field of Any

    cpdef bytes command(self, bytes payload, bytes metadata=*)
    cpdef bytes opening(self, bytes metadata=*)
    cpdef bytes message(self, bytes payload)
    cdef bytes written(self, bytes head, bytes payload, bytes metadata)

cdef class ActionOut:
    cdef readonly int action
    cdef readonly str type_url
    cdef readonly bytes payload
    cdef readonly bytes metadata
    cdef readonly bytes forward
    cdef readonly str description
    cdef readonly object side_effects

cdef class ActionIn:
    cdef readonly str service_name
    cdef readonly str name
    cdef readonly str type_url
    cdef readonly bytes payload
    cdef readonly bytes metadata

cdef class ServiceCall:
    cdef readonly str service_name
    cdef readonly str command_name
    cdef readonly str type_url
    cdef readonly bytes payload
    cdef readonly bytes metadata
    cdef readonly bint synchronous

cpdef ServiceCall scan_forward(bytes message)
cpdef ServiceCall scan_side_effect(bytes message)
cpdef bytes write_init(str service_name, str entity_id, int64_t snapshot_sequence=*, bytes snapshot=*)
cpdef bytes frame_events(int64_t first_sequence, object events)
cpdef StreamOut scan_event_sourced_out(bytes message)
cpdef StreamIn scan_event_sourced_in(bytes message)
cpdef bytes write_action_failure(int64_t command_id, str description, bint restart=*)
cpdef bytes write_stream_failure(int64_t command_id, str description)
cpdef bytes write_any(str type_url, bytes value)
cpdef tuple scan_any(bytes data)
cpdef ValueOut scan_value_out(bytes message)
cpdef bytes write_value_init(str service_name, str entity_id, bytes value)
cpdef StreamIn scan_value_in(bytes message)
cpdef CrdtOut scan_crdt_out(bytes message)
cpdef CrdtIn scan_crdt_in(bytes message)
cpdef bytes write_crdt_init(str service_name, str entity_id, bytes delta=*)
cpdef bytes write_crdt_delta(bytes delta)
cpdef bytes write_crdt_delete()
cpdef bytes write_stream_cancelled(bytes entity_id, int64_t command_id)
cpdef bytes write_crdt_failure(int64_t command_id, str description)
cpdef ActionOut scan_action_out(bytes message)
cpdef ActionIn scan_action_in(bytes message)
cpdef bytes metadata_of_headers(object headers)
cpdef list headers_of_metadata(bytes metadata)
