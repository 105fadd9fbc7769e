"""What a forward or a side effect calls: scanned as the protobuf runtime parses it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stateside._speedups.wire import ServiceCall, WireError, scan_forward, scan_side_effect
from stateside.proto import Any, cloudstate

TEXTS = st.text(max_size=8)


def metadata(entries: list[tuple[str, str]]) -> object:
    return cloudstate.Metadata(entries=[cloudstate.MetadataEntry(key=key, string_value=text) for key, text in entries])


PAYLOADS = st.none() | st.tuples(TEXTS, st.binary(max_size=20))
ENTRIES = st.none() | st.lists(st.tuples(TEXTS, TEXTS), max_size=3)


@given(TEXTS, TEXTS, PAYLOADS, ENTRIES, st.booleans())
def test_every_field_is_found(
    service: str,
    command: str,
    payload: tuple[str, bytes] | None,
    entries: list[tuple[str, str]] | None,
    synchronous: bool,
) -> None:
    fields: dict[str, object] = {"service_name": service, "command_name": command}
    if payload is not None:
        fields["payload"] = Any(type_url=payload[0], value=payload[1])
    if entries is not None:
        fields["metadata"] = metadata(entries)
    forward = cloudstate.Forward(**fields)
    effect = cloudstate.SideEffect(**fields, synchronous=synchronous)
    for call, message in (
        (scan_forward(forward.SerializeToString()), forward),
        (scan_side_effect(effect.SerializeToString()), effect),
    ):
        check(call, message)
    assert scan_side_effect(effect.SerializeToString()).synchronous is synchronous


def check(call: ServiceCall, message: object) -> None:
    assert (call.service_name, call.command_name) == (message.service_name, message.command_name)  # type: ignore[attr-defined]
    assert (call.type_url, call.payload) == (message.payload.type_url, message.payload.value)  # type: ignore[attr-defined]
    expected = message.metadata.SerializeToString() if message.HasField("metadata") else None  # type: ignore[attr-defined]
    assert call.metadata == expected


def test_the_fourth_field_of_a_side_effect_is_not_the_metadata_of_a_forward() -> None:
    effect = cloudstate.SideEffect(service_name="s", command_name="c", synchronous=True).SerializeToString()
    assert scan_forward(effect).metadata is None
    assert scan_side_effect(effect).synchronous


@pytest.mark.parametrize("scan", [scan_forward, scan_side_effect])
@pytest.mark.parametrize("broken", [b"\x0a\x05ab", b"\x0a\x01\xff", b"\x1a\x02\x0a\x05", b"\xff"])
def test_malformed_bytes_are_refused(scan: object, broken: bytes) -> None:
    with pytest.raises(WireError):
        scan(broken)  # type: ignore[operator]
