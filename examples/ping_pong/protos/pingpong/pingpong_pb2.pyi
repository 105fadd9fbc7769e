from cloudstate import entity_key_pb2 as _entity_key_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class PingSent(_message.Message):
    __slots__ = ("id", "sequence_number")
    ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    id: str
    sequence_number: int
    def __init__(self, id: _Optional[str] = ..., sequence_number: _Optional[int] = ...) -> None: ...

class PongSent(_message.Message):
    __slots__ = ("id", "sequence_number")
    ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    id: str
    sequence_number: int
    def __init__(self, id: _Optional[str] = ..., sequence_number: _Optional[int] = ...) -> None: ...

class PongSeen(_message.Message):
    __slots__ = ("id", "sequence_number")
    ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    id: str
    sequence_number: int
    def __init__(self, id: _Optional[str] = ..., sequence_number: _Optional[int] = ...) -> None: ...

class GetReport(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class Stats(_message.Message):
    __slots__ = ("sent", "seen")
    SENT_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    sent: int
    seen: int
    def __init__(self, sent: _Optional[int] = ..., seen: _Optional[int] = ...) -> None: ...
