from cloudstate import entity_key_pb2 as _entity_key_pb2
from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import empty_pb2 as _empty_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Payment(_message.Message):
    __slots__ = ("payment_id", "customer", "country", "amount_cents")
    PAYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    CUSTOMER_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_CENTS_FIELD_NUMBER: _ClassVar[int]
    payment_id: str
    customer: str
    country: str
    amount_cents: int
    def __init__(self, payment_id: _Optional[str] = ..., customer: _Optional[str] = ..., country: _Optional[str] = ..., amount_cents: _Optional[int] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("payment_id", "points", "reasons")
    PAYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    payment_id: str
    points: int
    reasons: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, payment_id: _Optional[str] = ..., points: _Optional[int] = ..., reasons: _Optional[_Iterable[str]] = ...) -> None: ...

class Summary(_message.Message):
    __slots__ = ("payments", "suspicious")
    PAYMENTS_FIELD_NUMBER: _ClassVar[int]
    SUSPICIOUS_FIELD_NUMBER: _ClassVar[int]
    payments: int
    suspicious: int
    def __init__(self, payments: _Optional[int] = ..., suspicious: _Optional[int] = ...) -> None: ...

class Suspicion(_message.Message):
    __slots__ = ("customer", "payment_id", "points")
    CUSTOMER_FIELD_NUMBER: _ClassVar[int]
    PAYMENT_ID_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    customer: str
    payment_id: str
    points: int
    def __init__(self, customer: _Optional[str] = ..., payment_id: _Optional[str] = ..., points: _Optional[int] = ...) -> None: ...

class GetCase(_message.Message):
    __slots__ = ("customer",)
    CUSTOMER_FIELD_NUMBER: _ClassVar[int]
    customer: str
    def __init__(self, customer: _Optional[str] = ...) -> None: ...

class Case(_message.Message):
    __slots__ = ("payment_ids", "points")
    PAYMENT_IDS_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    payment_ids: _containers.RepeatedScalarFieldContainer[str]
    points: int
    def __init__(self, payment_ids: _Optional[_Iterable[str]] = ..., points: _Optional[int] = ...) -> None: ...
