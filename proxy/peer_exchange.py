"""Anti-entropy towards one peer: find the keys that it has otherwise, and send it their states.

    BUCKETS -> DIFFER -> (DIGESTS -> WANTED -> states)* -> END, acknowledged: the peer has all that was here before

One side pushes and the other pulls what it lacks; for the way back the peer does the same over its own stream. Every
step waits for the one before and for room in the link's queue, so neither side holds more than a page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from stateside.proxy import peer_messages as messages
from stateside.proxy.peer_messages import Buckets, Differ, PeerError, Wanted
from stateside.proxy.quorum import Quorum
from stateside.proxy.replica_index import TOMBSTONE_DIGEST
from stateside.proxy.replica_store import ReplicaStore

PAGE_KEYS = 1000
MAX_LOADING = 4  # states read at once


class Way(Protocol):
    """The link to the peer."""

    @property
    def has_room(self) -> bool:
        """For states, behind what is queued already."""

    def send(self, message: bytes) -> None: ...

    def push_state(self, key: str, data: bytes | None) -> None: ...

    def push_end(self, departed: frozenset[int]) -> None: ...


class Exchange:
    """One run. everything: also of keys that changed a moment ago, which otherwise are passed over because they are
    most likely on their way. `waiting` are the writes that it will have brought to the peer."""

    def __init__(
        self,
        number: int,
        way: Way,
        store: ReplicaStore,
        departed: frozenset[int],
        waiting: list[Quorum],
        everything: bool,
    ) -> None:
        self.number = number
        self.waiting = waiting
        self.everything = everything
        self.ending = False
        self._way = way
        self._store = store
        self._departed = departed
        self._buckets: list[int] | None = None  # still to be told
        self._pages: Iterator[list[tuple[str, bytes]]] = iter(())
        self._page: set[str] | None = None  # told, not answered
        self._wanted: deque[str] = deque()
        self._loading = 0
        self._over = False

    def start(self) -> None:
        self._way.send(messages.buckets(Buckets(self.number, self.everything, self._store.index.sums())))

    def stop(self) -> None:
        """It was overtaken: states still being read are not sent."""
        self._over = True

    def on_differ(self, message: Differ) -> None:
        if message.exchange != self.number:
            return  # an answer to one that was given up
        if self._buckets is not None:
            raise PeerError("DIFFER was sent twice")
        self._buckets = message.buckets
        self._pages = self._all_pages()
        self._next_page()

    def on_wanted(self, message: Wanted) -> None:
        if message.exchange != self.number:
            return
        if self._page is None or not self._page.issuperset(message.keys):
            raise PeerError("WANTED has keys that were not offered")
        self._page = None
        self._wanted.extend(message.keys)
        self.pump()

    def pump(self) -> None:
        """There may be room again."""
        while self._wanted and self._loading < MAX_LOADING and self._way.has_room:
            self._send_state(self._wanted.popleft())
        if not self._wanted and not self._loading and self._page is None and self._buckets is not None:
            self._next_page()

    def _send_state(self, key: str) -> None:
        if self._store.index.get(key) == TOMBSTONE_DIGEST:
            return self._way.push_state(key, None)
        self._loading += 1
        self._store.full(key, lambda data: self._on_state(key, data))

    def _on_state(self, key: str, data: bytes | None) -> None:
        self._loading -= 1
        if self._over:
            return
        if data is not None:
            self._way.push_state(key, data)
        elif self._store.index.get(key) == TOMBSTONE_DIGEST:
            self._way.push_state(key, None)
        if not self._loading:
            self.pump()

    def _next_page(self) -> None:
        if self.ending or self._over:
            return
        page = next(self._pages, None)
        if page is None:
            self.ending = True
            self._way.push_end(self._departed)
        else:
            self._page = {key for key, _ in page}
            self._way.send(messages.digests(self.number, page))

    def _all_pages(self) -> Iterator[list[tuple[str, bytes]]]:
        for number in self._buckets or ():
            items = self._store.index.digests(number)
            for start in range(0, len(items), PAGE_KEYS):
                yield items[start : start + PAGE_KEYS]
