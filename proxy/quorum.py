"""Writes that wait for other nodes: how many have them, who of the rest may still answer, and until when.

A link tells a `Quorum` when its peer has everything up to the write. All time out after the same span, so they expire
in order and one timer does for all. A departed member lowers what is needed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from stateside.proto.status import Status
from stateside.proxy.replicas import Consistency, ReplicaError, Writer

FAILED = "Failed to update CRDT at requested write consistency"


class Quorum:
    """One write. Done when as many peers as needed have it, or when its time is over."""

    __slots__ = ("_quorums", "acknowledged", "consistency", "deadline", "done", "writer")

    def __init__(self, quorums: Quorums, consistency: Consistency, writer: Writer, deadline: float) -> None:
        self._quorums = quorums
        self.consistency = consistency
        self.writer = writer
        self.deadline = deadline
        self.acknowledged: set[str] = set()  # names of members
        self.done = False

    def acknowledge(self, name: str) -> None:
        """The member `name` has it."""
        if not self.done:
            self.acknowledged.add(name)
            self._quorums.look(self)


class Quorums:
    """All that wait. `others()` names the members beside this node."""

    def __init__(self, timeout: float, others: Callable[[], frozenset[str]]) -> None:
        self.timeouts = 0
        self._timeout = timeout
        self._others = others
        self._waiting: deque[Quorum] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def needed(self, consistency: Consistency) -> int:
        """How many of the others."""
        if consistency == Consistency.LOCAL:
            return 0
        count = len(self._others())
        return count if consistency == Consistency.ALL else (count + 1) // 2

    def add(self, consistency: Consistency, writer: Writer) -> Quorum:
        loop = asyncio.get_running_loop()
        quorum = Quorum(self, consistency, writer, loop.time() + self._timeout)
        self._waiting.append(quorum)
        if self._timer is None:
            self._timer = loop.call_at(quorum.deadline, self._expire)
        return quorum

    def look(self, quorum: Quorum) -> None:
        """Whether it is complete."""
        if not quorum.done and len(quorum.acknowledged & self._others()) >= self.needed(quorum.consistency):
            quorum.done = True
            while self._waiting and self._waiting[0].done:
                self._waiting.popleft()
            quorum.writer.on_written(None)

    def look_at_all(self) -> None:
        """The members changed."""
        for quorum in list(self._waiting):
            self.look(quorum)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._waiting and (self._waiting[0].done or self._waiting[0].deadline <= now):
            quorum = self._waiting.popleft()
            if not quorum.done:
                self._fail(quorum)
        if self._waiting:
            self._timer = loop.call_at(self._waiting[0].deadline, self._expire)

    def _fail(self, quorum: Quorum) -> None:
        self.timeouts += 1
        quorum.done = True
        has, needs = len(quorum.acknowledged & self._others()) + 1, self.needed(quorum.consistency) + 1
        reason = f"{has} of {needs} nodes had it after {self._timeout:g} s; it is kept here and will spread"
        quorum.writer.on_written(ReplicaError(Status.UNAVAILABLE, f"{FAILED}: {reason}"))
