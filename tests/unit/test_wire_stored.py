"""What a reply wants stored is an `Any` that can be read again: one malformed event would make its entity unreadable
for ever."""

from __future__ import annotations

import pytest

from stateside._speedups.wire import WireError, scan_event_sourced_out, scan_value_out
from stateside.proto import Any

MALFORMED = {
    "type_url is not UTF-8": b"\x0a\x02\xff\xfe\x12\x01v",
    "cut short": b"\x0a\x7fshort",
    "no such wire type": b"\x0f",
}
SOUND = {
    "complete": Any(type_url="type.googleapis.com/x", value=b"v").SerializeToString(),
    "empty": b"",
    "unknown fields": b"\x18\x01",
}


def field(number: int, data: bytes) -> bytes:
    return bytes((number << 3 | 2, len(data))) + data


def replies(stored: bytes) -> dict[str, tuple[object, bytes]]:
    """A reply with it in each place that is stored, and its scanner."""
    update = field(4, field(1, field(1, stored)))
    return {
        "event": (scan_event_sourced_out, field(1, b"\x08\x01" + field(4, stored))),
        "snapshot": (scan_event_sourced_out, field(1, b"\x08\x01" + field(5, stored))),
        "value": (scan_value_out, field(1, b"\x08\x01" + update)),
    }


@pytest.mark.parametrize("place", ["event", "snapshot", "value"])
@pytest.mark.parametrize("stored", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_cannot_be_read_again_is_refused(place: str, stored: bytes) -> None:
    scan, message = replies(stored)[place]
    with pytest.raises(WireError, match="Any"):
        scan(message)  # type: ignore[operator]


@pytest.mark.parametrize("stored", SOUND.values(), ids=SOUND.keys())
def test_all_else_is_taken_as_it_is(stored: bytes) -> None:
    found = {place: scan(message) for place, (scan, message) in replies(stored).items()}  # type: ignore[operator]
    assert (list(found["event"].events), found["snapshot"].snapshot) == ([stored], stored)
    assert found["value"].value == stored
