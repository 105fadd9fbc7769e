"""Which events of a log its consumers have handled, carried over to another log event by event as they are moved there.

In the log that they come from, handled are the events before a consumer's offset and those that it is to skip. In the
other log they lie behind what was there, so there they become ranges to skip.
"""

from __future__ import annotations

import lmdb

from stateside.journal.environment import Environment, Writing
from stateside.journal.format import index_key, pack_offset, parse_record, unpack_offset
from stateside.journal.limits import APPEND_OFFSETS
from stateside.journal.offsets import PREFIX, SKIPPED, Ranges, decode_ranges, encode_ranges


class Handled:
    """What one consumer has handled of a log that is read in the order of its offsets."""

    def __init__(self, consumer: str, ranges: Ranges) -> None:
        self.consumer = consumer
        self._ranges = ranges
        self._at = 0  # ranges before it end before what is asked for

    def of_record(self, offset: int, events: int) -> Ranges:
        """Which of a record's events, as places among them; to its end: up to APPEND_OFFSETS."""
        begin = offset * APPEND_OFFSETS
        while self._at < len(self._ranges) and self._ranges[self._at][1] <= begin:
            self._at += 1
        found: Ranges = []
        for low, high in self._ranges[self._at :]:
            if low >= begin + events:
                break
            found.append((max(low - begin, 0), high - begin if high < begin + events else APPEND_OFFSETS))
        return found


class Skipping:
    """What consumers are to skip in a log that is appended to: noted during one transaction, stored at its end."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._ranges: dict[str, Ranges] = {}

    def note(self, consumer: str, offset: int, places: Ranges) -> None:
        """Of the record at `offset` the consumer has handled these events."""
        ranges = self._ranges.get(consumer)
        if ranges is None:
            ranges = self._ranges[consumer] = self._stored(consumer)
        for low, high in places:
            begin, end = offset * APPEND_OFFSETS + low, offset * APPEND_OFFSETS + high
            if ranges and ranges[-1][1] == begin:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((begin, end))

    def store(self) -> None:
        """Ranges that reach to the end of the log take in what is stored here, so that the next batch prolongs them."""
        before = self._writing.end
        behind = before + len(self._ranges)
        for consumer, ranges in self._ranges.items():
            low, high = ranges[-1]
            if high == before * APPEND_OFFSETS:
                ranges[-1] = (low, behind * APPEND_OFFSETS)
            self._writing.put_value(SKIPPED + consumer, encode_ranges(ranges))

    def _stored(self, consumer: str) -> Ranges:
        """Those of earlier, without what the consumer is beyond."""
        position = unpack_offset(self._writing.value(PREFIX + consumer) or b"")
        ranges = decode_ranges(self._writing.value(SKIPPED + consumer) or b"")
        return [(low, high) for low, high in ranges if high > position]


def read_handled(environment: Environment, txn: lmdb.Transaction[bytes]) -> list[Handled]:
    """Of all consumers that have handled something in this log."""
    found = []
    start = PREFIX.encode()
    with txn.cursor(environment.index) as cursor:
        more = cursor.set_range(start)
        while more and cursor.key().startswith(start):
            consumer = cursor.key()[len(start) : -9].decode()
            position = unpack_offset(_value(environment, txn, PREFIX + consumer))
            skipped = decode_ranges(_value(environment, txn, SKIPPED + consumer))
            ranges = [(0, position)] if position else []
            found.append(
                Handled(consumer, ranges + [(max(low, position), high) for low, high in skipped if high > position])
            )
            more = cursor.next()
    return found


def _value(environment: Environment, txn: lmdb.Transaction[bytes], entity: str) -> bytes:
    found = txn.get(index_key(entity, 0), db=environment.index)
    if found is None:
        return b""
    offset = unpack_offset(found[:8])
    return parse_record(txn.get(pack_offset(offset), db=environment.log) or b"", offset).value or b""
