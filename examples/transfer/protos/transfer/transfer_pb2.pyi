from cloudstate import entity_key_pb2 as _entity_key_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Step(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STARTED: _ClassVar[Step]
    WITHDRAWN: _ClassVar[Step]
    DEPOSITED: _ClassVar[Step]
    REFUSED: _ClassVar[Step]
    DONE: _ClassVar[Step]
    REFUNDED: _ClassVar[Step]
STARTED: Step
WITHDRAWN: Step
DEPOSITED: Step
REFUSED: Step
DONE: Step
REFUNDED: Step

class Transfer(_message.Message):
    __slots__ = ("transfer_id", "sender", "receiver", "amount")
    TRANSFER_ID_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    transfer_id: str
    sender: str
    receiver: str
    amount: int
    def __init__(self, transfer_id: _Optional[str] = ..., sender: _Optional[str] = ..., receiver: _Optional[str] = ..., amount: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("transfer", "step")
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    transfer: Transfer
    step: Step
    def __init__(self, transfer: _Optional[_Union[Transfer, _Mapping]] = ..., step: _Optional[_Union[Step, str]] = ...) -> None: ...

class AccountStep(_message.Message):
    __slots__ = ("account", "transfer")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    account: str
    transfer: Transfer
    def __init__(self, account: _Optional[str] = ..., transfer: _Optional[_Union[Transfer, _Mapping]] = ...) -> None: ...

class Amount(_message.Message):
    __slots__ = ("account", "amount")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    account: str
    amount: int
    def __init__(self, account: _Optional[str] = ..., amount: _Optional[int] = ...) -> None: ...

class AccountKey(_message.Message):
    __slots__ = ("account",)
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    account: str
    def __init__(self, account: _Optional[str] = ...) -> None: ...

class Balance(_message.Message):
    __slots__ = ("amount", "closed", "outgoing")
    class OutgoingEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Step
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Step, str]] = ...) -> None: ...
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    OUTGOING_FIELD_NUMBER: _ClassVar[int]
    amount: int
    closed: bool
    outgoing: _containers.ScalarMap[str, Step]
    def __init__(self, amount: _Optional[int] = ..., closed: _Optional[bool] = ..., outgoing: _Optional[_Mapping[str, Step]] = ...) -> None: ...

class PaidIn(_message.Message):
    __slots__ = ("amount",)
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    amount: int
    def __init__(self, amount: _Optional[int] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Stepped(_message.Message):
    __slots__ = ("transfer", "step")
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    transfer: Transfer
    step: Step
    def __init__(self, transfer: _Optional[_Union[Transfer, _Mapping]] = ..., step: _Optional[_Union[Step, str]] = ...) -> None: ...
