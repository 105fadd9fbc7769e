"""Who this node is, kept in its journal: the lasting identity of its replicas, and the members that have left.

The identity marks every change made here, and may be used again after a restart only if everything that others know
of it is known here too. So it lasts with a journal that is flushed before anything is told; otherwise each start has a
new one. The record is a value of an entity that an export leaves out: a journal that was imported elsewhere belongs to
another node.
"""

from __future__ import annotations

import asyncio
import struct

from stateside.journal.contract import Head, Journal, JournalError, Page, SequenceTaken
from stateside.journal.limits import NODE_ENTITY
from stateside.journal.sharding import worker_name
from stateside.proxy import logs
from stateside.proxy.peer_messages import MAX_LEFT, Left
from stateside.proxy.place import Place

_HEAD = struct.Struct("!BQH")
_LEFT = struct.Struct("!QBH")
_VERSION = 1

log = logs.get(__name__)


class NodeRecord:
    """`load` it once; `left` says of each departed member whether its part was pruned here. entity: under which it is
    kept, where several workers of a node share a store."""

    def __init__(self, journal: Journal, entity: str = NODE_ENTITY) -> None:
        self.replica = 0
        self.left: dict[Left, bool] = {}
        self._journal = journal
        self._entity = entity
        self._version = 0
        self._loading: asyncio.Future[Head] | None = None
        self._storing: asyncio.Future[None] | None = None
        self._again = False

    async def load(self, lasting: bool, fresh: int, given: int = 0) -> None:
        """Read it, and make `fresh` the identity where there is none or none may last. given: the identity that the
        workers of this node share, 0 if there is none. Raises JournalError."""
        self._loading = asyncio.get_running_loop().create_future()
        self._journal.load(self._entity, self)
        head = await self._loading
        self._version = head.last_sequence
        if head.snapshot is not None:
            self._decode(head.snapshot)
        wanted = (given or self.replica or fresh) if lasting else fresh
        if self.replica != wanted:
            self.replica = wanted
            self._put()
            assert self._storing is not None
            await self._storing

    @property
    def departed(self) -> frozenset[int]:
        """Identities of those that left."""
        return frozenset(one.replica for one in self.left if one.replica)

    def has_left(self, name: str, replica: int) -> bool:
        return any(one.name == name or (replica and one.replica == replica) for one in self.left)

    def add(self, left: Left) -> None:
        if len(self.left) >= MAX_LEFT:
            del self.left[next(iter(self.left))]
        self.left[left] = False
        self.store()

    def set_pruned(self, replica: int) -> None:
        for one in self.left:
            if one.replica == replica:
                self.left[one] = True
        self.store()

    def store(self) -> None:
        """Soon; of several changes during one write only the last is written. A failure is logged, and the next change
        tries again: the other members tell a node that comes back who has left."""
        if self._storing is not None:
            self._again = True
        else:
            self._put()

    async def flush(self) -> None:
        while self._storing is not None:
            await asyncio.wait((self._storing,))

    def _put(self) -> None:
        self._storing = asyncio.get_running_loop().create_future()
        self._version += 1
        self._journal.put(self._entity, self._version, self._encode(), self)

    def _encode(self) -> bytes:
        parts = [_HEAD.pack(_VERSION, self.replica, len(self.left))]
        for one, pruned in self.left.items():
            name = one.name.encode()
            parts += (_LEFT.pack(one.replica, pruned, len(name)), name)
        return b"".join(parts)

    def _decode(self, data: bytes) -> None:
        try:
            version, self.replica, count = _HEAD.unpack_from(data)
            if version != _VERSION:
                raise JournalError(f"{self._entity}: version {version} of this record is unknown here")
            at = _HEAD.size
            for _ in range(count):
                replica, pruned, size = _LEFT.unpack_from(data, at)
                at += _LEFT.size + size
                self.left[Left(replica, data[at - size : at].decode())] = bool(pruned)
        except (struct.error, UnicodeDecodeError) as error:
            raise JournalError(f"{self._entity}: the record of this node cannot be read: {error}") from error

    # --- the journal's answers ------------------------------------------------------------------------------------

    def on_loaded(self, head: Head | None, error: JournalError | None) -> None:
        assert self._loading is not None
        if head is None:
            self._loading.set_exception(error or JournalError(f"{self._entity}: no answer"))
        else:
            self._loading.set_result(head)

    def on_appended(self, error: JournalError | None) -> None:
        done, self._storing = self._storing, None
        assert done is not None
        if error is not None:
            self._version -= 1
            log.error("the record of this node was not stored", error=str(error))
            done.set_exception(error)
            done.exception()  # only `load` raises it; for others the line above has to do
        else:
            done.set_result(None)
        if self._again:
            self._again = False
            self._put()

    def on_page(self, page: Page | None, error: JournalError | None) -> None:
        raise AssertionError("pages are not asked for here")


async def load_record(journal: Journal, place: Place, lasting: bool, fresh: int) -> NodeRecord:
    """The record of this process. In a store that all workers of a node share, each has its own, and the first one's
    has the identity of all of them: whoever comes first makes it. Raises JournalError."""
    if not journal.is_shared or place.workers == 1:
        record = NodeRecord(journal)
        await record.load(lasting, fresh, place.replica)
        return record
    first = await _shared_record(journal, fresh)
    if place.index == 0 and lasting:
        return first
    record = NodeRecord(journal, NODE_ENTITY + worker_name(place.index))
    await record.load(lasting, fresh, first.replica)
    for left in first.left:
        record.left.setdefault(left, False)
    return record


async def _shared_record(journal: Journal, fresh: int) -> NodeRecord:
    while True:
        record = NodeRecord(journal)
        try:
            await record.load(True, fresh)
            return record
        except SequenceTaken:
            continue  # another worker was faster: read what it wrote
