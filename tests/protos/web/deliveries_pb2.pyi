from google.api import annotations_pb2 as _annotations_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Order(_message.Message):
    __slots__ = ("order_id", "places")
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    order_id: str
    places: int
    def __init__(self, order_id: _Optional[str] = ..., places: _Optional[int] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("place", "number")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    place: str
    number: int
    def __init__(self, place: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class Parcel(_message.Message):
    __slots__ = ("grams",)
    GRAMS_FIELD_NUMBER: _ClassVar[int]
    grams: int
    def __init__(self, grams: _Optional[int] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("parcels", "grams")
    PARCELS_FIELD_NUMBER: _ClassVar[int]
    GRAMS_FIELD_NUMBER: _ClassVar[int]
    parcels: int
    grams: int
    def __init__(self, parcels: _Optional[int] = ..., grams: _Optional[int] = ...) -> None: ...
