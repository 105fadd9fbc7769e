"""What happens to a journal before it is served from: its folder is locked and fits, shards are where they belong.

A folder with LMDB environments is opened by the process that stands above all others, the supervisor or the proxy that
is alone, and stays locked until that one has ended. When there were other workers the last time, entities move now.
Then each worker opens its own part and claims the shards that are its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from stateside.journal.contract import Journal
from stateside.journal.sharding import owners_among
from stateside.proxy import logs
from stateside.proxy.config import Settings
from stateside.proxy.place import Place

if TYPE_CHECKING:
    from stateside.journal.layout import JournalFolder, Progress

SCHEME = "lmdb:"
OPENING = "the journal is being opened"

log = logs.get(__name__)


class Stopped(Exception):
    """The move of shards was stopped; the next start goes on with it."""


class WorkersFolder:
    """The journal's folder; nothing for other stores. `replica`: the node's identity for CRDTs, 0 if each journal has
    its own. `moved`: entities that this start moved. `doing`: what `open` is at, for /ready; empty when it is over."""

    def __init__(self, settings: Settings) -> None:
        self.replica = 0
        self.moved = 0
        self.doing = ""
        self._settings = settings
        self._folder: JournalFolder | None = None
        self._is_stopped = False

    async def open(self) -> None:
        """Raises JournalError with what to do, and Stopped."""
        if not self._settings.journal.startswith(SCHEME):
            return
        self.doing = OPENING
        with ThreadPoolExecutor(1, "journal-folder") as thread:
            self._folder = await asyncio.get_running_loop().run_in_executor(thread, self._open)
        self.doing = ""
        self.replica = self._folder.replica
        if self.moved:
            log.info("entities moved to their workers", entities=self.moved, workers=self._settings.workers)

    def stop(self) -> None:
        """Let `open` end soon, whatever it is at."""
        self._is_stopped = True

    def close(self) -> None:
        """After all workers have ended."""
        if self._folder is not None:
            self._folder.close()
            self._folder = None

    def figures(self) -> Iterator[tuple[str, str, str, float]]:
        """Type, name, meaning and value of each family."""
        meaning = "Entities moved at the start because the number of workers had changed"
        yield "gauge", "stateside_journal_moved_entities", meaning, self.moved

    def _open(self) -> JournalFolder:
        from stateside.journal.layout import JournalFolder  # other journals do without it

        settings = self._settings
        path = settings.journal.removeprefix(SCHEME)
        return JournalFolder.open(path, settings.workers, settings.number_of_shards, self._on_move)

    def _on_move(self, at: Progress) -> None:
        if self._is_stopped:
            raise Stopped("entities are still to be moved; the next start goes on")
        self.moved = at.entities
        change = f"from {at.workers_before} to {at.workers} workers"
        self.doing = f"entities are moved {change}: {at.entities} of {at.of_entities}"
        fields = {"events": at.events, "of_events": at.of_events}
        log.info(f"entities are moved {change}", entities=at.entities, of_entities=at.of_entities, **fields)


def worker_journal(url: str, place: Place) -> str:
    """The URL of one worker's journal: an environment of its own, or what all share."""
    if not url.startswith(SCHEME):
        return url
    from stateside.journal.environment import environment_of

    return f"{SCHEME}{environment_of(Path(url.removeprefix(SCHEME)), place.index)}"


async def claim(journal: Journal, settings: Settings, place: Place) -> None:
    """Own the shards of this worker. Raises JournalError for a journal that was made for another number of them."""
    owners = owners_among(place.workers, settings.number_of_shards)
    own = [shard for shard, owner in enumerate(owners) if owner == place.index]
    epoch = await journal.claim(own, settings.number_of_shards)
    log.debug("shards claimed", shards=len(own), epoch=epoch)
