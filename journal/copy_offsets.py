"""Where the consumers of a copied journal go on.

An offset means the first event that a consumer has not seen. The same event is looked up in the target; where there is
none behind the offset, the place where its source log ends there. Source logs stand one after the other in the target,
so a consumer that was at different points of several logs has several stretches to see, with stretches between
them that it has seen.
"""

from __future__ import annotations

from collections.abc import Sequence

from stateside.journal.copy_model import Consumer, Source, Target
from stateside.journal.offsets import PREFIX as OFFSETS
from stateside.journal.offsets import SKIPPED, Ranges, encode_ranges

Stretch = tuple[int, int]  # offsets of the target, the second exclusive


async def translated(source: Source, target: Target) -> list[tuple[int, str, bytes]]:
    """Log of the target, entity and value of all that is to be stored for consumers."""
    consumers = await source.consumers()
    names = sorted({consumer.name for consumer in consumers})
    if not names:
        return []
    found = []
    for member in range(target.logs):
        places = await Places.of(source, target, member)
        for name in names:
            own = [consumer for consumer in consumers if consumer.name == name]
            stored = stored_of(name, await places.stretches(own), places.end)
            found += [(member, entity, value) for entity, value in stored]
    return found


class Places:
    """Where the source's logs begin and end in one log of the target."""

    def __init__(self, source: Source, target: Target, member: int, starts: Sequence[int | None], end: int) -> None:
        self.source, self.target, self.member = source, target, member
        self.end = end
        self._starts = starts  # None: nothing of that log is here

    @classmethod
    async def of(cls, source: Source, target: Target, member: int) -> Places:
        places = cls(source, target, member, [], await target.end(member))
        places._starts = [await places._place(log, 0) for log in range(source.logs)]
        return places

    async def stretches(self, consumers: Sequence[Consumer]) -> list[Stretch]:
        """What the consumer has to see, ascending; `consumers`: where it was in the source's logs."""
        wanted = {consumer.log: consumer.wanted for consumer in consumers}
        found: list[Stretch] = []
        for log, start in enumerate(self._starts):
            if start is None:
                continue
            for first, last in wanted.get(log, [(0, None)]):
                begin = await self._at(log, first)
                end = self._end_of(log) if last is None else await self._at(log, last)
                if begin < end:
                    found.append((begin, end))
        return found

    async def _at(self, log: int, offset: int) -> int:
        place = await self._place(log, offset)
        return self._end_of(log) if place is None else place

    async def _place(self, log: int, offset: int) -> int | None:
        event = await self.source.next_event(log, offset, self.target.owner, self.member)
        return None if event is None else await self.target.offset_of(self.member, *event)

    def _end_of(self, log: int) -> int:
        later = (start for start in self._starts[log + 1 :] if start is not None)
        return next(later, self.end)


def stored_of(consumer: str, stretches: Sequence[Stretch], end: int) -> list[tuple[str, bytes]]:
    """What is stored for a consumer that has to see these stretches, and all from `end` on: its offset, and what behind
    it it has seen."""
    offset = stretches[0][0] if stretches else end
    seen: Ranges = []
    at = offset
    for low, high in stretches:
        if low > at:
            seen.append((at, low))
        at = high
    if at < end:
        seen.append((at, end))
    found = [(OFFSETS + consumer, offset.to_bytes(8, "big"))]
    return [*found, (SKIPPED + consumer, encode_ranges(seen))] if seen else found
