"""Protobuf on the way of a command, without the protobuf runtime: keys scanned out, envelopes written and scanned.

Messages of spec: package `cloudstate` and `cloudstate.eventsourced`, protocol 0.2. All scanners accept fields in any
order, unknown fields, repeated singular fields (last one wins; sub-messages merge), non-minimal varints; they raise
`WireError` on anything that the protobuf runtime would refuse to parse at the scanned level. Unknown groups, which this
protocol never has, are refused in the messages of the protocol and walked over in those of users.
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
