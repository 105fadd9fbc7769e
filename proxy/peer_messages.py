"""The messages between proxies, as bytes. docs/replication.md has the table.

A stream goes from the node that pushes to the node that acknowledges. Numbers are big-endian. Whatever is not exactly a
message, or is beyond a bound, raises `PeerError`, whose text names what was wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple, TypeVar

from stateside.proxy.replica_index import BUCKETS, DIGEST_BYTES, SUM_BYTES

PATH = b"/stateside.peers.Replication/Push"
FORMAT = 2
"""Version of the messages: only equal ones speak with each other."""
MAGIC = b"SSPR"

MAX_KEY_BYTES = 480
MAX_NAME_BYTES = 255
MAX_LEFT = 4096  # departed members that are remembered
MAX_ITEMS = 65_536  # of one message

T = TypeVar("T")

_HELLO = struct.Struct("!4sHBQQHHI")
_ITEM = struct.Struct("!BHI")
_BATCH = struct.Struct("!QI")
_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")
_U64 = struct.Struct("!Q")


class PeerError(Exception):
    """A peer sent something that is no message, or one that does not fit. The connection is closed."""


class Kind(IntEnum):
    """First byte of a message. In brackets who sends it."""

    HELLO = 1  # both, first
    BATCH = 2  # [pusher] changes of keys
    ACK = 3  # [receiver] everything up to a position is merged and durable
    BUCKETS = 4  # [pusher] an exchange begins: sums of all buckets
    DIFFER = 5  # [receiver] numbers of the buckets that differ
    DIGESTS = 6  # [pusher] a page of keys of those buckets, with digests
    WANTED = 7  # [receiver] keys of that page whose state is wanted
    LEAVE = 8  # [pusher] a member has left for good


class ItemKind(IntEnum):
    DELTA = 1  # or a whole state: the same to whoever joins it
    TOMBSTONE = 2
    END = 3  # of an exchange; its data are the replicas whose leaving was known when it began


class Item(NamedTuple):
    kind: int
    key: str
    data: bytes


class Left(NamedTuple):
    """A member that left for good. replica: 0 if it was never heard of."""

    replica: int
    name: str


class Hello(NamedTuple):
    crdt_format: int
    replica: int
    incarnation: int
    cluster: str
    name: str
    left: tuple[Left, ...]
    workers: int = 1  # of the node
    worker: int = 0  # index of the one that speaks
    shards: int = 1024  # all keys of the node, which its workers have parts of


class Batch(NamedTuple):
    position: int  # of the last change in it; what is acknowledged
    items: list[Item]


class Buckets(NamedTuple):
    exchange: int
    everything: bool  # also keys that changed a moment ago
    sums: bytes


class Differ(NamedTuple):
    exchange: int
    buckets: list[int]


class Digests(NamedTuple):
    exchange: int
    items: list[tuple[str, bytes]]


class Wanted(NamedTuple):
    exchange: int
    keys: list[str]


# --- writing ---------------------------------------------------------------------------------------------------------


def hello(message: Hello) -> bytes:
    place = (message.workers, message.worker, message.shards)
    head = _HELLO.pack(MAGIC, FORMAT, message.crdt_format, message.replica, message.incarnation, *place)
    left = b"".join(_U64.pack(one.replica) + _text(one.name) for one in message.left)
    texts = _text(message.cluster) + _text(message.name)
    return bytes((Kind.HELLO,)) + head + texts + _U16.pack(len(message.left)) + left


def batch(position: int, items: Sequence[tuple[int, bytes, bytes]]) -> bytes:
    """items: kind, key in UTF-8, data."""
    parts = [bytes((Kind.BATCH,)), _BATCH.pack(position, len(items))]
    for kind, key, data in items:
        parts += (_ITEM.pack(kind, len(key), len(data)), key, data)
    return b"".join(parts)


def ack(position: int) -> bytes:
    return bytes((Kind.ACK,)) + _U64.pack(position)


def buckets(message: Buckets) -> bytes:
    return bytes((Kind.BUCKETS,)) + _U32.pack(message.exchange) + bytes((message.everything,)) + message.sums


def differ(exchange: int, numbers: Iterable[int]) -> bytes:
    return bytes((Kind.DIFFER,)) + _U32.pack(exchange) + bytes(numbers)


def digests(exchange: int, items: Sequence[tuple[str, bytes]]) -> bytes:
    parts = [bytes((Kind.DIGESTS,)), _U32.pack(exchange), _U32.pack(len(items))]
    for key, digest in items:
        parts += (_text(key), digest)
    return b"".join(parts)


def wanted(exchange: int, keys: Sequence[str]) -> bytes:
    parts = [bytes((Kind.WANTED,)), _U32.pack(exchange), _U32.pack(len(keys))]
    return b"".join(parts + [_text(key) for key in keys])


def leave(left: Left) -> bytes:
    return bytes((Kind.LEAVE,)) + _U64.pack(left.replica) + _text(left.name)


def replicas(identities: Iterable[int]) -> bytes:
    """Data of an END."""
    return b"".join(map(_U64.pack, identities))


def _text(text: str) -> bytes:
    data = text.encode()
    return _U16.pack(len(data)) + data


# --- reading ---------------------------------------------------------------------------------------------------------


class Reader:
    """Takes a message apart, from the front."""

    __slots__ = ("_at", "_data", "kind")

    def __init__(self, data: bytes) -> None:
        if not data:
            raise PeerError("a message is empty")
        try:
            self.kind = Kind(data[0])
        except ValueError:
            raise PeerError(f"message of unknown kind {data[0]}") from None
        self._data = data
        self._at = 1

    def hello(self) -> Hello:
        if len(self._data) < 7 or self._data[1:5] != MAGIC:
            raise PeerError("the first message is not of a Stateside proxy")
        version = _U16.unpack_from(self._data, 5)[0]
        if version != FORMAT:
            raise PeerError(f"messages have format version {version}, this node speaks version {FORMAT}")
        _, _, crdt_format, replica, incarnation, *place = self._unpack(_HELLO)
        if replica == 0:
            raise PeerError("a replica cannot have the identity 0")
        cluster, name = self._text(MAX_NAME_BYTES), self._text(MAX_NAME_BYTES)
        count = self._unpack(_U16)[0]
        if count > MAX_LEFT:
            raise PeerError(f"{count} departed members, at most {MAX_LEFT} are possible")
        left = tuple(self._left() for _ in range(count))
        return self._whole(Hello(crdt_format, replica, incarnation, cluster, name, left, *place))

    def batch(self) -> Batch:
        position, count = self._unpack(_BATCH)
        self._check_count(count)
        return self._whole(Batch(position, [self._item() for _ in range(count)]))

    def ack(self) -> int:
        return self._whole(int(self._unpack(_U64)[0]))

    def buckets(self) -> Buckets:
        exchange, flag = self._unpack(_U32)[0], self._take(1)[0]
        return self._whole(Buckets(exchange, bool(flag), self._take(BUCKETS * SUM_BYTES)))

    def differ(self) -> Differ:
        exchange = self._unpack(_U32)[0]
        numbers = sorted(set(self._take(len(self._data) - self._at)))
        return Differ(exchange, numbers)

    def digests(self) -> Digests:
        exchange, count = self._unpack(_U32)[0], self._unpack(_U32)[0]
        self._check_count(count)
        items = [(self._text(MAX_KEY_BYTES), self._take(DIGEST_BYTES)) for _ in range(count)]
        return self._whole(Digests(exchange, items))

    def wanted(self) -> Wanted:
        exchange, count = self._unpack(_U32)[0], self._unpack(_U32)[0]
        self._check_count(count)
        return self._whole(Wanted(exchange, [self._text(MAX_KEY_BYTES) for _ in range(count)]))

    def leave(self) -> Left:
        return self._whole(self._left())

    def _left(self) -> Left:
        return Left(self._unpack(_U64)[0], self._text(MAX_NAME_BYTES))

    def _item(self) -> Item:
        kind, key_size, data_size = self._unpack(_ITEM)
        if not ItemKind.DELTA <= kind <= ItemKind.END:
            raise PeerError(f"a change of unknown kind {kind}")
        if key_size > MAX_KEY_BYTES or (key_size == 0) != (kind == ItemKind.END):
            raise PeerError(f"the key of a change has {key_size} bytes, from 1 to {MAX_KEY_BYTES} are possible")
        return Item(kind, self._decode(key_size), self._take(data_size))

    def _check_count(self, count: int) -> None:
        if count > MAX_ITEMS:
            raise PeerError(f"a message has {count} parts, at most {MAX_ITEMS} are possible")

    def _unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self._take(layout.size))

    def _text(self, most: int) -> str:
        size = self._unpack(_U16)[0]
        if size > most:
            raise PeerError(f"a name has {size} bytes, at most {most} are possible")
        return self._decode(size)

    def _decode(self, size: int) -> str:
        try:
            return self._take(size).decode()
        except UnicodeDecodeError:
            raise PeerError("a name is not UTF-8") from None

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise PeerError(f"a message ({self.kind.name}) is cut short")
        data = self._data[self._at : end]
        self._at = end
        return data

    def _whole(self, message: T) -> T:
        if self._at != len(self._data):
            raise PeerError(f"a message ({self.kind.name}) has {len(self._data) - self._at} bytes too many")
        return message


def replicas_of(data: bytes) -> frozenset[int]:
    """The replicas of an END."""
    if len(data) % _U64.size or len(data) > MAX_LEFT * _U64.size:
        raise PeerError(f"the list of departed members has {len(data)} bytes")
    return frozenset(value for (value,) in _U64.iter_unpack(data))
