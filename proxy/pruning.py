"""When a member has left for good, its part of every state is taken over by one of those that stay.

That is sound once the heir has everything that came from the departed one. So each member, when it hears of the
leaving, takes nothing more from the departed one and then runs an exchange of digests towards every other; the end of
an exchange says whose leaving was known when it began. The heir is the member with the lowest identity. When all others
have brought it such an end, it prunes every key that names the departed one, and the new states spread as any change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stateside.proxy import logs
from stateside.proxy.membership import StaticMembership
from stateside.proxy.node_record import NodeRecord
from stateside.proxy.replica_store import ReplicaStore
from stateside.proxy.tickets import Ticket

AT_ONCE = 32  # keys pruned in one turn

log = logs.get(__name__)


class Pruning:
    """Of this node; does something only while it is the heir."""

    def __init__(self, store: ReplicaStore, record: NodeRecord, membership: StaticMembership) -> None:
        self.pruned = 0  # keys looked at on behalf of departed members
        self._store = store
        self._record = record
        self._membership = membership
        self._confirmed: dict[int, set[int]] = {}  # departed -> members that brought all they had of it
        self._task: asyncio.Task[None] | None = None

    def confirm(self, member: int, departed: frozenset[int]) -> None:
        """An exchange of `member` is over, before which it had taken its last from `departed`."""
        for gone in departed:
            self._confirmed.setdefault(gone, set()).add(member)
        self.look()

    def look(self) -> None:
        """Whether something can be pruned now."""
        if self._task is None and (gone := self._ready()):
            self._task = asyncio.get_running_loop().create_task(self._prune(gone))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _ready(self) -> int:
        """A departed member whose part can be taken over here, or 0."""
        others = {member.replica for member in self._membership.others.values()}
        if 0 in others or self._record.replica > min(others, default=self._record.replica):
            return 0
        for left, pruned in self._record.left.items():
            if left.replica and not pruned and others <= self._confirmed.get(left.replica, set()):
                return left.replica
        return 0

    async def _prune(self, gone: int) -> None:
        log.info("taking over the part of a departed member", replica=f"{gone:016x}")
        try:
            keys = list(self._store.index.keys())
            for start in range(0, len(keys), AT_ONCE):
                await self._prune_some(keys[start : start + AT_ONCE], gone)
            self._record.set_pruned(gone)
        except Exception as error:
            log.error("pruning stopped; it is tried again after the next exchange", error=str(error))
        finally:
            self._task = None
        self._confirmed.pop(gone, None)
        self.look()

    async def _prune_some(self, keys: list[str], gone: int) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket = Ticket(_settling(done))
        for key in keys:
            self._store.prune(key, gone, ticket)
        ticket.release()
        self.pruned += len(keys)
        await done
        await asyncio.sleep(0)


def _settling(done: asyncio.Future[None]) -> Callable[[Exception | None], None]:
    def settle(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    return settle
