"""Metadata read and written as a CloudEvent in HTTP binary mode (CloudEvents 1.0, HTTP protocol binding, 3.1).

Commands that come from an event log or a topic carry one in their metadata.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .metadata import Metadata

SPEC_VERSION = "1.0"
REQUIRED = ("ce-specversion", "ce-id", "ce-source", "ce-type")


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """The attributes of one event. `dataclasses.replace` makes a changed copy.

    source: a URI reference. type: what happened. content_type: of the data; data_schema: a URI; subject: what the event
    is about, for events of an entity its key. time: with a time zone.
    """

    id: str
    source: str
    type: str
    content_type: str | None = None
    data_schema: str | None = None
    subject: str | None = None
    time: datetime | None = None
    spec_version: str = SPEC_VERSION

    @classmethod
    def of(cls, metadata: Metadata) -> CloudEvent | None:
        """The event that metadata carries; None unless all required attributes are there.

        Raises ValueError for a `ce-time` that is no RFC 3339 time.
        """
        if not all(name in metadata for name in REQUIRED):
            return None
        time = _text(metadata, "ce-time")
        return cls(
            id=_text(metadata, "ce-id") or "",
            source=_text(metadata, "ce-source") or "",
            type=_text(metadata, "ce-type") or "",
            content_type=_text(metadata, "Content-Type"),
            data_schema=_text(metadata, "ce-dataschema"),
            subject=_text(metadata, "ce-subject"),
            time=None if time is None else _time(time),
            spec_version=_text(metadata, "ce-specversion") or "",
        )

    def put_into(self, metadata: Metadata) -> Metadata:
        """A copy of `metadata` that carries this event in place of another one; other entries stay."""
        time = None if self.time is None else self.time.isoformat().replace("+00:00", "Z")
        attributes = {
            "ce-specversion": self.spec_version,
            "ce-id": self.id,
            "ce-source": self.source,
            "ce-type": self.type,
            "Content-Type": self.content_type,
            "ce-dataschema": self.data_schema,
            "ce-subject": self.subject,
            "ce-time": time,
        }
        for name, value in attributes.items():
            metadata = metadata.remove(name) if value is None else metadata.set(name, value)
        return metadata


def _text(metadata: Metadata, name: str) -> str | None:
    value = metadata.get(name)
    return value.decode() if isinstance(value, bytes) else value


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"ce-time {text!r} is no RFC 3339 time: {error}") from error
    if time.tzinfo is None:
        raise ValueError(f"ce-time {text!r} is no RFC 3339 time: it has no offset")
    return time
