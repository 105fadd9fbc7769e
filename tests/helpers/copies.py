"""Journals to copy, and what a copy must have in common with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from stateside.journal.contract import Durability, Head, Journal
from stateside.journal.lmdb import LmdbJournal, LmdbSettings
from stateside.journal.offsets import Position
from tests.helpers.journal import append, list_all, load, put, read_all, read_whole_log

NODE = b"\x01" + bytes(7) + b"\x2a" + b"\0\0"


@dataclass
class Nothing:
    """Watches a copy, and keeps what it was told."""

    begun: list[str] = field(default_factory=list)
    steps: int = 0

    def begin(self, what: str, total: int, done: int) -> None:
        self.begun.append(what)

    def advance(self, steps: int) -> None:
        self.steps += steps


async def fill(journal: Journal, prefix: str = "") -> None:
    """Of everything some: events with and without snapshots, values, a deletion, CRDTs, a consumer, a node."""
    for round_ in range(3):
        for number in range(20):
            first = 1 + 2 * round_
            events = (f"{number}.{first}".encode(), f"{number}.{first + 1}".encode())
            snapshot = f"state {number}".encode() if number % 5 == round_ else None
            await append(journal, f"{prefix}u.cart|{number}", first, *events, snapshot=snapshot)
        await put(journal, f"{prefix}u.account|a", round_ + 1, f"balance {round_}".encode())
    await append(journal, f"{prefix}u.other|x", 1, b"", b"\x00\xff")
    await put(journal, f"{prefix}u.account|gone", 1, b"soon")
    await put(journal, f"{prefix}u.account|gone", 2, None)
    await append(journal, f"|crdt|{prefix}set", 1, b"\x01one", b"\x01two")
    await append(journal, f"|crdt|{prefix}set", 3, b"\x04", snapshot=b"\x01all")
    await append(journal, f"|crdt|{prefix}set", 4, b"\x01three")
    await append(journal, f"|crdt|{prefix}new", 1, b"\x01first")
    await put(journal, "|node|", 1, NODE)


async def content(journal: Journal) -> dict[str, object]:
    """All entities of a user function, whole."""
    found: dict[str, object] = {}
    for entity in await list_all(journal, "u."):
        found[entity] = (await load(journal, entity), await read_all(journal, entity))
    return found


async def own(journal: Journal, entity: str) -> tuple[bytes | None, list[bytes]]:
    """A snapshot and what is behind it."""
    head: Head = await load(journal, entity)
    return head.snapshot, await read_all(journal, entity, head.snapshot_sequence + 1)


async def order(journal: Journal, prefix: str = "u.") -> list[tuple[str, int, bytes]]:
    """The log, without offsets."""
    entries = await read_whole_log(journal, prefix)
    return [entry[1:] for entry in entries]


async def consume(journal: Journal, name: str, prefix: str, count: int) -> list[tuple[str, int, bytes]]:
    """A consumer that handles `count` events and stores its offset; what it has yet to see."""
    entries = await read_whole_log(journal, prefix)
    position = Position(journal, name)
    await position.load()
    position.store(entries[count - 1].offset + 1)
    await position.flush()
    return [entry[1:] for entry in entries[count:]]


async def to_come(journal: Journal, name: str, prefix: str) -> list[tuple[str, int, bytes]]:
    """What the consumer will see."""
    return [entry[1:] for entry in await read_whole_log(journal, prefix, await Position(journal, name).load())]


def small_batches(items: int) -> Sequence[tuple[str, object]]:
    """For monkeypatch: batches of a few items."""
    return (("stateside.journal.copy_model.BATCH_ITEMS", items), ("stateside.journal.copy_postgres.BATCH_ITEMS", items))


def lmdb_at(path: object) -> LmdbJournal:
    return LmdbJournal(str(path), Durability.NONE, LmdbSettings())
