from cloudstate import entity_key_pb2 as _entity_key_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Ballot(_message.Message):
    __slots__ = ("poll", "voter", "choice")
    POLL_FIELD_NUMBER: _ClassVar[int]
    VOTER_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    poll: str
    voter: str
    choice: str
    def __init__(self, poll: _Optional[str] = ..., voter: _Optional[str] = ..., choice: _Optional[str] = ...) -> None: ...

class PollKey(_message.Message):
    __slots__ = ("poll",)
    POLL_FIELD_NUMBER: _ClassVar[int]
    poll: str
    def __init__(self, poll: _Optional[str] = ...) -> None: ...

class Tally(_message.Message):
    __slots__ = ("votes", "closed")
    class VotesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VOTES_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    votes: _containers.ScalarMap[str, int]
    closed: bool
    def __init__(self, votes: _Optional[_Mapping[str, int]] = ..., closed: _Optional[bool] = ...) -> None: ...
