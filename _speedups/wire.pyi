"""Protobuf on the way of a command, without the protobuf runtime: keys scanned out, envelopes written and scanned.

Messages of spec: package `cloudstate` and `cloudstate.eventsourced`, protocol 0.2. All scanners accept fields in any
order, unknown fields, repeated singular fields (last one wins; sub-messages merge), non-minimal varints; they raise
`WireError` on anything that the protobuf runtime would refuse to parse at the scanned level, and in the events,
snapshots and values of replies, which are stored. Unknown groups, which this protocol never has, are refused in the
messages of the protocol and walked over in those of users.
"""

from collections.abc import Mapping, Sequence

class WireError(ValueError):
    """The bytes are not a well-formed message; the text says what and at which offset."""

ENUM_NAME: int
"""Reserved number among the names of an enum's values: the enum's own simple name, for the text of unknown numbers."""

class KeyScanner:
    """Entity key of a serialized command message (spec core 3).

    fields: (field number, protobuf type name such as "string", "int64", "sfixed32", "bool", "double", "enum") in order
    of declaration; enums: names of enum values by field number, needed for every field of type "enum". One key: its
    text; several: joined with "-". Unset fields have their default. The whole message is walked, so a malformed one
    raises WireError whatever its keys. ValueError: types that cannot be keys, no field, more than 64.
    """
    def __init__(
        self, fields: Sequence[tuple[int, str]], enums: Mapping[int, Mapping[int, str]] | None = None
    ) -> None: ...
    def scan(self, message: bytes) -> str: ...

def check(message: bytes) -> None:
    """Walk the top level of a message; WireError if malformed."""

class CommandWriter:
    """Writes a `Command` of one method inside the oneof member `member` of a stream-in message.

    member: 3 event sourced, 2 value entity, 4 CRDT.
    """
    def __init__(self, member: int, name: str, type_url: str) -> None: ...
    def write(
        self, entity_id: bytes, command_id: int, payload: bytes, metadata: bytes | None = None, streamed: bool = False
    ) -> bytes:
        """Serialized stream-in message. entity_id: UTF-8; payload: the request message, becomes `payload.value`;
        metadata: a serialized `Metadata`, unset when None."""

# --- proxy side of cloudstate.eventsourced ---------------------------------------------------------------------------

def write_init(service_name: str, entity_id: str, snapshot_sequence: int = 0, snapshot: bytes | None = None) -> bytes:
    """EventSourcedStreamIn{init}; snapshot: a serialized Any."""

def frame_events(first_sequence: int, events: Sequence[bytes]) -> bytes:
    """EventSourcedStreamIn{event} for each of `events` (serialized Any), numbered from first_sequence, as
    length-prefixed gRPC messages ready for `Call.send_framed`."""

KIND_NONE: int  # 0: no known member set
KIND_REPLY: int  # 1
KIND_FAILURE: int  # 2: stream-level Failure

ACTION_NONE: int  # 0
ACTION_REPLY: int  # 1
ACTION_FORWARD: int  # 2
ACTION_FAILURE: int  # 3

class StreamOut:
    """A scanned EventSourcedStreamOut, read-only. Fields not set in the message have their empty default."""

    kind: int
    command_id: int
    """Of the reply, or of the stream-level Failure."""
    action: int
    type_url: str
    """Of the reply's payload."""
    payload: bytes
    """`value` of the reply's payload."""
    metadata: bytes | None
    """Serialized Metadata of the reply."""
    forward: bytes | None
    """Serialized Forward."""
    description: str
    """Of the Failure (either kind)."""
    restart: bool
    events: Sequence[bytes]
    """Serialized Any each."""
    snapshot: bytes | None
    """Serialized Any."""
    side_effects: Sequence[bytes]
    """Serialized SideEffect each."""

def scan_event_sourced_out(message: bytes) -> StreamOut: ...

# --- user function side of cloudstate.eventsourced -------------------------------------------------------------------

IN_NONE: int  # 0
IN_INIT: int  # 1
IN_EVENT: int  # 2
IN_COMMAND: int  # 3

class StreamIn:
    """A scanned EventSourcedStreamIn, read-only."""

    kind: int
    service_name: str
    entity_id: str
    """Of init or command."""
    snapshot_sequence: int
    snapshot: bytes | None
    """Serialized Any."""
    sequence: int
    event: bytes | None
    """Serialized Any."""
    command_id: int
    name: str
    type_url: str
    payload: bytes | None
    """`value` of the command's payload; None when the command has no payload."""
    streamed: bool
    metadata: bytes | None

def scan_event_sourced_in(message: bytes) -> StreamIn: ...
def write_reply(
    command_id: int,
    type_url: str,
    payload: bytes,
    *,
    metadata: bytes | None = None,
    events: Sequence[bytes] = (),
    snapshot: bytes | None = None,
    side_effects: Sequence[bytes] = (),
) -> bytes:
    """EventSourcedStreamOut{reply{client_action{reply}}}; events, snapshot: serialized Any; effects: SideEffect."""

def write_forward(
    command_id: int,
    forward: bytes,
    *,
    events: Sequence[bytes] = (),
    snapshot: bytes | None = None,
    side_effects: Sequence[bytes] = (),
) -> bytes:
    """EventSourcedStreamOut{reply{client_action{forward}}}."""

def write_action_failure(command_id: int, description: str, restart: bool = False) -> bytes:
    """EventSourcedStreamOut{reply{client_action{failure}}}; the failure carries the command id too."""

def write_stream_failure(command_id: int, description: str) -> bytes:
    """EventSourcedStreamOut{failure}."""

def write_any(type_url: str, value: bytes) -> bytes: ...
def scan_any(data: bytes) -> tuple[str, bytes]:
    """(type_url, value)."""

# --- value entities: cloudstate.valueentity --------------------------------------------------------------------------

STATE_NONE: int  # 0: no state_action
STATE_UPDATE: int  # 1
STATE_DELETE: int  # 2
STATE_INVALID: int  # 3: state_action without a member, or an update without a value

class ValueOut:
    """A scanned ValueEntityStreamOut. Fields as of `StreamOut`, without events and snapshot."""

    kind: int
    command_id: int
    action: int
    type_url: str
    payload: bytes
    metadata: bytes | None
    forward: bytes | None
    description: str
    restart: bool
    side_effects: Sequence[bytes]
    state_action: int
    value: bytes | None
    """Serialized Any of an update."""

def scan_value_out(message: bytes) -> ValueOut: ...
def write_value_init(service_name: str, entity_id: str, value: bytes | None) -> bytes:
    """ValueEntityStreamIn{init}; `state` is always present (spec core 5.1), its value only when there is one."""

def scan_value_in(message: bytes) -> StreamIn:
    """A ValueEntityStreamIn as a StreamIn: kind IN_INIT (snapshot = the stored value, a serialized Any) or
    IN_COMMAND."""

def write_value_reply(
    command_id: int,
    type_url: str,
    payload: bytes,
    *,
    metadata: bytes | None = None,
    side_effects: Sequence[bytes] = (),
    state_action: int = 0,
    value: bytes | None = None,
) -> bytes:
    """ValueEntityStreamOut{reply{client_action{reply}}}; value: serialized Any, with STATE_UPDATE and only then.

    ValueError: another combination, or STATE_INVALID. Failures are written by `write_action_failure` and
    `write_stream_failure`: the field numbers are the same."""

def write_value_forward(
    command_id: int,
    forward: bytes,
    *,
    side_effects: Sequence[bytes] = (),
    state_action: int = 0,
    value: bytes | None = None,
) -> bytes:
    """ValueEntityStreamOut{reply{client_action{forward}}}; state_action, value: as of `write_value_reply`."""

# --- CRDTs: cloudstate.crdt ------------------------------------------------------------------------------------------

KIND_STREAMED_MESSAGE: int  # 3
KIND_CANCELLED_RESPONSE: int  # 4

class CrdtOut:
    """A scanned CrdtStreamOut. Fields as of `ValueOut`, but for those of its own; a message of one kind has the
    defaults in what belongs to others."""

    kind: int
    """KIND_NONE, KIND_REPLY, KIND_FAILURE, KIND_STREAMED_MESSAGE, KIND_CANCELLED_RESPONSE."""
    command_id: int
    action: int
    type_url: str
    payload: bytes
    metadata: bytes | None
    forward: bytes | None
    description: str
    restart: bool
    side_effects: Sequence[bytes]
    streamed: bool
    """Of a reply."""
    end_stream: bool
    """Of a streamed message."""
    state_action: int
    """STATE_NONE, STATE_UPDATE, STATE_DELETE; STATE_INVALID: present, but without a member."""
    update: bytes | None
    """Serialized CrdtDelta of an update, not looked into."""
    write_consistency: int
    """0 LOCAL, also for unknown values; 1 MAJORITY; 2 ALL."""

def scan_crdt_out(message: bytes) -> CrdtOut: ...
def write_crdt_init(service_name: str, entity_id: str, delta: bytes | None = None) -> bytes:
    """CrdtStreamIn{init}; delta: a serialized CrdtDelta, unset when None."""

def write_crdt_delta(delta: bytes) -> bytes:
    """CrdtStreamIn{delta}."""

def write_crdt_delete() -> bytes:
    """CrdtStreamIn{delete}."""

def write_stream_cancelled(entity_id: bytes, command_id: int) -> bytes:
    """CrdtStreamIn{stream_cancelled}. entity_id: UTF-8."""

IN_DELTA: int  # 4
IN_DELETE: int  # 5
IN_STREAM_CANCELLED: int  # 6

class CrdtIn:
    """A scanned CrdtStreamIn."""

    kind: int
    """IN_NONE, IN_INIT, IN_COMMAND, IN_DELTA, IN_DELETE, IN_STREAM_CANCELLED."""
    service_name: str
    entity_id: str
    """Of init, command or cancellation."""
    delta: bytes | None
    """Serialized CrdtDelta, of init or as such; None: an init without."""
    command_id: int
    """Of the command, or of the one that was cancelled."""
    name: str
    type_url: str
    payload: bytes | None
    streamed: bool
    metadata: bytes | None

def scan_crdt_in(message: bytes) -> CrdtIn: ...
def write_crdt_reply(
    command_id: int,
    action: int = 0,
    *,
    type_url: str = "",
    payload: bytes = b"",
    metadata: bytes | None = None,
    forward: bytes | None = None,
    description: str = "",
    side_effects: Sequence[bytes] = (),
    state_action: int = 0,
    update: bytes | None = None,
    write_consistency: int = 0,
    streamed: bool = False,
) -> bytes:
    """CrdtStreamOut{reply}. Its client action is the member that `action` names, from the arguments of that member
    (ACTION_REPLY: type_url, payload, metadata; ACTION_FORWARD: forward, a serialized Forward; ACTION_FAILURE:
    description, with the command id), and absent for ACTION_NONE.

    state_action: STATE_NONE, STATE_UPDATE with `update`, a serialized CrdtDelta, or STATE_DELETE; ValueError for
    another combination. write_consistency counts with a state action only.
    """

def write_crdt_streamed_message(
    command_id: int,
    action: int = 0,
    *,
    type_url: str = "",
    payload: bytes = b"",
    metadata: bytes | None = None,
    forward: bytes | None = None,
    description: str = "",
    side_effects: Sequence[bytes] = (),
    end_stream: bool = False,
) -> bytes:
    """CrdtStreamOut{streamed_message}; the client action as of `write_crdt_reply`."""

def write_crdt_cancelled_response(
    command_id: int,
    *,
    side_effects: Sequence[bytes] = (),
    state_action: int = 0,
    update: bytes | None = None,
    write_consistency: int = 0,
) -> bytes:
    """CrdtStreamOut{stream_cancelled_response}; the state action as of `write_crdt_reply`."""

def write_crdt_failure(command_id: int, description: str) -> bytes:
    """CrdtStreamOut{failure}: of a command, or of the whole stream with id 0."""

# --- actions: cloudstate.action --------------------------------------------------------------------------------------

class ActionWriter:
    """Writes the ActionCommands of one method."""

    def __init__(self, service_name: str, name: str, type_url: str) -> None: ...
    def command(self, payload: bytes, metadata: bytes | None = None) -> bytes:
        """The one message of a unary or streamed-out call: service, name, payload, metadata."""
    def opening(self, metadata: bytes | None = None) -> bytes:
        """The first message of a streamed-in or duplex call: service, name, metadata, no payload."""
    def message(self, payload: bytes) -> bytes:
        """A later message of such a call: payload and empty metadata."""

class ActionOut:
    """A scanned ActionResponse. `action` is ACTION_NONE, ACTION_REPLY, ACTION_FORWARD or ACTION_FAILURE."""

    action: int
    type_url: str
    payload: bytes
    metadata: bytes | None
    forward: bytes | None
    description: str
    side_effects: Sequence[bytes]

def scan_action_out(message: bytes) -> ActionOut: ...

class ActionIn:
    """A scanned ActionCommand."""

    service_name: str
    name: str
    type_url: str
    payload: bytes | None
    metadata: bytes | None

def scan_action_in(message: bytes) -> ActionIn: ...
def write_action_response(
    action: int,
    *,
    type_url: str = "",
    payload: bytes = b"",
    metadata: bytes | None = None,
    forward: bytes | None = None,
    description: str = "",
    side_effects: Sequence[bytes] = (),
) -> bytes:
    """ActionResponse with the member that `action` names (none for ACTION_NONE), from the arguments of that member."""

# --- forwards and side effects ---------------------------------------------------------------------------------------

class ServiceCall:
    """A scanned Forward or SideEffect: which method is called, with what."""

    service_name: str
    command_name: str
    type_url: str
    payload: bytes
    """`value` of the payload; empty when it has none."""
    metadata: bytes | None
    """Serialized Metadata, not looked into."""
    synchronous: bool
    """Of a side effect."""

def scan_forward(message: bytes) -> ServiceCall: ...
def scan_side_effect(message: bytes) -> ServiceCall: ...

# --- metadata --------------------------------------------------------------------------------------------------------

def metadata_of_headers(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """Serialized Metadata of gRPC request headers, in order, duplicates kept (spec core 8.1, D26); None when nothing is
    left.

    Without pseudo headers, content-type, content-length, te, grpc-timeout, grpc-encoding, grpc-accept-encoding,
    grpc-status, grpc-message. Values of names that end in -bin are base64-decoded (padded or not, several separated by
    commas become several entries) into bytes_value; a value that is no base64 as a whole stays one string. Text that is
    not UTF-8 is read as Latin-1.
    """

def headers_of_metadata(metadata: bytes) -> list[tuple[bytes, bytes]]:
    """The other way, for response headers (spec core 8.2).

    Lower-case names; bytes_value base64-encoded without padding, the name getting -bin if it lacks it. Left out:
    reserved names (those above, and transfer-encoding, date, server, connection), names or values that HTTP/2 forbids,
    entries without a value.
    """
