"""Differential fuzzing of the wire scanners against the protobuf runtime.

`python -m tests.fuzz.fuzz_wire` runs it under atheris, where that is installed; tests/unit/test_wire_fuzz.py feeds it
mutations of valid messages in every test run. The first byte of an input chooses the scanner.
"""

import sys
from collections.abc import Callable
from typing import Any

from stateside._speedups import wire
from stateside.proto import action, cloudstate, crdt, eventsourced, valueentity
from tests import wire_oracle as oracle

KEYS = oracle.key_message()
ALL_KEYS = oracle.key_scanner(*oracle.KEY_TYPES)


def TestOneInput(data: bytes) -> bool:
    """Whether the scanner accepted the input; AssertionError where scanner and runtime disagree."""
    scanners = [stream_out, stream_in, keys, value_out, value_in, action_out, action_in, metadata, crdt_out, crdt_in]
    return scanners[data[0] % len(scanners)](data[1:]) if data else False


def stream_out(data: bytes) -> bool:
    scan, message_class = wire.scan_event_sourced_out, eventsourced.EventSourcedStreamOut
    return agree(data, scan, message_class, oracle.seen_out, oracle.expected_out)


def stream_in(data: bytes) -> bool:
    scan, message_class = wire.scan_event_sourced_in, eventsourced.EventSourcedStreamIn
    return agree(data, scan, message_class, oracle.seen_in, oracle.expected_in)


def value_out(data: bytes) -> bool:
    scan, message_class = wire.scan_value_out, valueentity.ValueEntityStreamOut
    return agree(data, scan, message_class, oracle.seen_value_out, oracle.expected_value_out)


def value_in(data: bytes) -> bool:
    scan, message_class = wire.scan_value_in, valueentity.ValueEntityStreamIn
    return agree(data, scan, message_class, oracle.seen_in, oracle.expected_value_in)


def action_out(data: bytes) -> bool:
    scan, message_class = wire.scan_action_out, action.ActionResponse
    return agree(data, scan, message_class, oracle.seen_action_out, oracle.expected_action_out)


def action_in(data: bytes) -> bool:
    scan, message_class = wire.scan_action_in, action.ActionCommand
    return agree(data, scan, message_class, oracle.seen_action_in, oracle.expected_action_in)


def crdt_out(data: bytes) -> bool:
    return agree(data, wire.scan_crdt_out, crdt.CrdtStreamOut, oracle.seen_crdt_out, oracle.expected_crdt_out)


def crdt_in(data: bytes) -> bool:
    return agree(data, wire.scan_crdt_in, crdt.CrdtStreamIn, oracle.seen_crdt_in, oracle.expected_crdt_in)


def metadata(data: bytes) -> bool:
    headers, error = attempt(wire.headers_of_metadata, data)
    message = oracle.parsed(cloudstate.Metadata, data)
    agree_on_refusal(data, error, message, "group")
    if headers is not None:
        assert headers == oracle.expected_headers(message), data
    return headers is not None


def keys(data: bytes) -> bool:
    text, error = attempt(ALL_KEYS.scan, data)
    message = oracle.parsed(KEYS, data)
    agree_on_refusal(data, error, message, "field number 0")
    if text is not None:
        assert text == oracle.key_texts(message), data
    return text is not None


def agree(
    data: bytes,
    scan: Callable[[bytes], Any],
    message_class: Any,
    see: Callable[[Any], Any],
    expect: Callable[[Any], Any],
) -> bool:
    found, error = attempt(scan, data)
    agree_on_refusal(data, error, oracle.parsed(oracle.shallow(message_class.DESCRIPTOR.full_name), data), "group")
    message = oracle.parsed(message_class, data)
    if found is not None and message is not None:
        assert oracle.canonical(see(found)) == oracle.canonical(expect(message)), data
    return found is not None


def attempt(scan: Callable[[bytes], Any], data: bytes) -> tuple[Any, str]:
    try:
        return scan(data), ""
    except wire.WireError as error:
        return None, str(error)


def agree_on_refusal(data: bytes, error: str, message: Any, stricter: str) -> None:
    """Both accept or both refuse; `stricter` is what the scanner alone refuses."""
    if error:
        assert message is None or stricter in error, (error, data)
    else:
        assert message is not None, data


def main() -> None:
    import atheris

    atheris.Setup(sys.argv, TestOneInput)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
