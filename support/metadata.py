"""Metadata of a command, a reply, a forward or a side effect: an ordered multimap, as headers are.

Event sourced commands carry none in protocol 0.2; calls to other services may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from stateside.proto import cloudstate

MetadataValue = str | bytes


class Metadata:
    """Immutable ordered multimap of names to text or bytes.

    Names compare without regard to case and keep the case they were written with. `set`, `add` and `remove` return a
    new object.
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[tuple[str, MetadataValue]] = ()) -> None:
        self._entries = tuple(entries)
        for name, value in self._entries:
            if not isinstance(name, str) or not isinstance(value, str | bytes):
                raise TypeError(f"Metadata takes pairs of a name and str or bytes, not ({name!r}, {value!r})")

    def get(self, name: str) -> MetadataValue | None:
        """The first value of `name`, or None."""
        return next(iter(self.get_all(name)), None)

    def get_all(self, name: str) -> list[MetadataValue]:
        """All values of `name`, in order."""
        wanted = name.lower()
        return [value for key, value in self._entries if key.lower() == wanted]

    def set(self, name: str, value: MetadataValue) -> Metadata:
        """A copy in which `name` has exactly this value, at its end."""
        return self.remove(name).add(name, value)

    def add(self, name: str, value: MetadataValue) -> Metadata:
        """A copy with one more value of `name`."""
        return Metadata((*self._entries, (name, value)))

    def remove(self, name: str) -> Metadata:
        """A copy without `name`."""
        unwanted = name.lower()
        return Metadata(entry for entry in self._entries if entry[0].lower() != unwanted)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[tuple[str, MetadataValue]]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Metadata) and self._entries == other._entries

    def __hash__(self) -> int:
        return hash(self._entries)

    def __repr__(self) -> str:
        return f"Metadata({list(self._entries)!r})"

    @classmethod
    def parse(cls, data: bytes | None) -> Metadata:
        """From a serialized cloudstate.Metadata; None is the empty one."""
        if not data:
            return EMPTY_METADATA
        message = cloudstate.Metadata.FromString(data)
        return cls(
            (entry.key, getattr(entry, entry.WhichOneof("value") or "string_value")) for entry in message.entries
        )

    def serialize(self) -> bytes | None:
        """As a serialized cloudstate.Metadata; None when empty, so that the field stays unset."""
        return bytes(self.to_message().SerializeToString()) if self._entries else None

    def to_message(self) -> Any:
        """As a cloudstate.Metadata message."""
        message = cloudstate.Metadata()
        for name, value in self._entries:
            if isinstance(value, str):
                message.entries.add(key=name, string_value=value)
            else:
                message.entries.add(key=name, bytes_value=value)
        return message


EMPTY_METADATA = Metadata()
