"""Differential fuzzing of the wire scanners against the protobuf runtime.

`python -m tests.fuzz.fuzz_wire` runs it under atheris, where that is installed; tests/unit/test_wire_fuzz.py feeds it
mutations of valid messages in every test run. The first byte of an input chooses the scanner.
"""

import sys
from collections.abc import Callable
from typing import Any

from stateside._speedups import wire
from stateside.proto import eventsourced
from tests import wire_oracle as oracle

SHALLOW_OUT, SHALLOW_IN = oracle.shallow_classes()
KEYS = oracle.key_message()
ALL_KEYS = oracle.key_scanner(*oracle.KEY_TYPES)


def TestOneInput(data: bytes) -> bool:
    """Whether the scanner accepted the input; AssertionError where scanner and runtime disagree."""
    scanners = [stream_out, stream_in, keys]
    return scanners[data[0] % len(scanners)](data[1:]) if data else False


def stream_out(data: bytes) -> bool:
    found, error = attempt(wire.scan_event_sourced_out, data)
    agree_on_refusal(data, error, oracle.parsed(SHALLOW_OUT, data), "group")
    message = oracle.parsed(eventsourced.EventSourcedStreamOut, data)
    if found is not None and message is not None:
        seen, expected = oracle.seen_out(found), oracle.expected_out(message)
        assert oracle.canonical(seen, message) == oracle.canonical(expected, message), data
    return found is not None


def stream_in(data: bytes) -> bool:
    found, error = attempt(wire.scan_event_sourced_in, data)
    agree_on_refusal(data, error, oracle.parsed(SHALLOW_IN, data), "group")
    message = oracle.parsed(eventsourced.EventSourcedStreamIn, data)
    if found is not None and message is not None:
        seen, expected = oracle.seen_in(found), oracle.expected_in(message)
        assert oracle.canonical(seen, message) == oracle.canonical(expected, message), data
    return found is not None


def keys(data: bytes) -> bool:
    text, error = attempt(ALL_KEYS.scan, data)
    message = oracle.parsed(KEYS, data)
    agree_on_refusal(data, error, message, "field number 0")
    if text is not None:
        assert text == oracle.key_texts(message), data
    return text is not None


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
