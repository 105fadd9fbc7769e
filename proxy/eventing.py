"""Consumers of event logs: every event of an entity type, one at a time, in the order of the journal, at least once.

    journal: events acknowledged -> Consumer wakes -> page of the log -> one event -> Router.deliver -> the next event

A `Consumer` is a task that stands in a client's place before the methods that `eventing_spec.py` found. An event is
handled when the method's answer ended well, whatever the answer says. Otherwise it is tried again, ever more slowly:
without end while the user function is away, up to `eventing_max_attempts` times when it fails the event, so that one
event never blocks all that follow. What is given up is logged with all that is needed to find it, and counted.

The offset behind the last handled event is stored in the journal (journal/offsets.py), a little late on purpose: after
a crash the last events come again. Consumers begin when their user function is discovered and stop first of all when
the proxy stops.

Of several workers with logs of their own each runs all consumers, over the events of its entities; in a log that they
share a consumer runs on one worker, which owns the shard of its name.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from stateside.journal.contract import JournalError, LogEntry, LogPage
from stateside.journal.limits import APPEND_OFFSETS
from stateside.journal.offsets import Position
from stateside.journal.sharding import worker_name
from stateside.proto import Any, cloudstate
from stateside.proto.status import Status
from stateside.proxy import logs
from stateside.proxy.effects import Hop, StandIn
from stateside.proxy.part import Part
from stateside.proxy.place import ALONE, Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stateside.journal.contract import Journal
    from stateside.proxy.config import Settings
    from stateside.proxy.eventing_spec import ConsumerModel
    from stateside.proxy.router import Router, Target

PAGE_EVENTS = 100  # read at a time
STORE_EVENTS = 20  # handled events after which the offset is stored ...
STORE_DELAY = 1.0  # ... or seconds, whichever comes first
STORE_DISTANCE = 10_000 * APPEND_OFFSETS  # without events for this consumer, the offset is stored so often
LOOK_INTERVAL = 0.1  # seconds; see LogView
RETRY_MIN, RETRY_MAX = 0.1, 30.0  # seconds between tries
STOP_GRACE = 1.0  # seconds that an event under way gets when its consumer stops
CONTENT_TYPE = "application/vnd.cloudstate.protobuf.any"

log = logs.get(__name__)


@dataclass(slots=True)
class Figures:
    """What all consumers did."""

    handled: int = 0
    failed: int = 0  # deliveries that ended badly, each try counted
    dead_letters: int = 0


class LogView(NamedTuple):
    """What a process sees of the log of all entities. name: before offsets in the ids of events, where there are other
    logs beside it. look_interval: seconds between looks for events of other processes, of which nobody tells."""

    name: str = ""
    look_interval: float | None = None


WHOLE = LogView()


class Eventing:
    """All consumers of the proxy."""

    def __init__(self, settings: Settings, router: Router, place: Place = ALONE) -> None:
        self.figures = Figures()
        self._part = Part(place.index, place.workers, settings.number_of_shards)
        self._settings = settings
        self._router = router
        self._consumers: dict[str, Consumer] = {}

    async def update(self, models: Sequence[ConsumerModel], journal: Journal) -> None:
        """Run consumers of these models, and no others. Those that stay go on, and try at once what they wait for."""
        several = self._part.workers > 1
        shares = several and journal.is_shared
        wanted = {model.name: model for model in models if not shares or self._part.has(model.name)}
        view = LogView(
            name=f"{worker_name(self._part.index)}/" if several and not shares else "",
            look_interval=LOOK_INTERVAL if shares else None,
        )
        await self._stop([name for name in self._consumers if name not in wanted])
        for name, model in wanted.items():
            if name in self._consumers:
                self._consumers[name].update(model)
            else:
                self._consumers[name] = Consumer(model, journal, self._router, self._settings, self.figures, view)

    async def close(self) -> None:
        """Begin no further event, end those under way, store the offsets."""
        await self._stop(list(self._consumers))

    async def _stop(self, names: list[str]) -> None:
        await asyncio.gather(*(self._consumers.pop(name).stop() for name in names))


class Consumer:
    """One consumer, which runs from the moment it is made until `stop`."""

    def __init__(
        self,
        model: ConsumerModel,
        journal: Journal,
        router: Router,
        settings: Settings,
        figures: Figures,
        view: LogView = WHOLE,
    ) -> None:
        self.model = model
        self._journal = journal
        self._router = router
        self._max_attempts = settings.eventing_max_attempts
        self._figures = figures
        self._prefix = f"{model.event_log}|"
        self._view = view
        self._position = Position(journal, model.name)
        self._offset = 0  # behind the last event that was handled
        self._unstored = 0  # events since the offset was stored
        self._timer: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self._news = asyncio.Event()  # there may be something to read
        self._again = asyncio.Event()  # what failed may succeed now
        journal.watch(self._news.set)
        self._task = asyncio.create_task(self._run())

    def update(self, model: ConsumerModel) -> None:
        """The user function was discovered again."""
        self.model = model
        self._again.set()

    async def stop(self) -> None:
        self._stopping.set()
        self._news.set()
        self._again.set()
        await asyncio.wait((self._task,), timeout=STOP_GRACE)
        self._task.cancel()
        await asyncio.wait((self._task,))
        self._journal.unwatch(self._news.set)
        if self._unstored:
            self._store()
        await self._position.flush()

    async def _run(self) -> None:
        """Consume; after a failure that no single event is to blame for, begin again at the stored offset."""
        delay = RETRY_MIN
        while not self._stopping.is_set():
            begun_at = self._offset
            self._again.clear()
            try:
                self._offset = max(self._offset, await self._position.load())
                await self._consume()
            except Exception as error:
                unexpected = None if isinstance(error, JournalError) else error
                log.error("event consumer failed", consumer=self.model.name, reason=str(error), exc_info=unexpected)
                delay = RETRY_MIN if self._offset > begun_at else min(delay * 2, RETRY_MAX)
                await self._back_off(delay)

    async def _consume(self) -> None:
        while not self._stopping.is_set():
            self._news.clear()
            page = await self._read()
            for entry in page.entries:
                if self._position.skips(entry.offset):
                    self._passed(entry.offset + 1, 0)  # it was handled before it came into this log
                    continue
                await self._handle(entry)
                if self._stopping.is_set():
                    return
            if page.next_offset > self._offset:
                is_far = page.next_offset > self._position.stored + STORE_DISTANCE
                self._passed(page.next_offset, STORE_EVENTS if is_far else 0)
            if page.more:
                await asyncio.sleep(0)  # pages without entries need no answer of anybody: others have their turn
            else:
                await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        try:
            async with asyncio.timeout(self._view.look_interval):
                await self._news.wait()
        except TimeoutError:
            return

    async def _read(self) -> LogPage:
        waiter = PageWaiter()
        self._journal.read_log(self._prefix, self._offset, PAGE_EVENTS, waiter)
        return await waiter.future

    # --- one event ---------------------------------------------------------------------------------------------------

    async def _handle(self, entry: LogEntry) -> None:
        """Return when the event is done with, or when the consumer stops before it is."""
        delay, attempts = RETRY_MIN, 0
        while not self._stopping.is_set():
            self._again.clear()
            status, message, final = await self._try(entry)
            if status == Status.OK:
                self._figures.handled += 1
                self._passed(entry.offset + 1, 1)
                return
            self._figures.failed += 1
            attempts += status != Status.UNAVAILABLE
            if final or attempts >= self._max_attempts:
                self._give_up(entry, attempts, status, message)
                return
            log.warning("event not handled; it is tried again", **self._about(entry, status, message), delay=delay)
            await self._back_off(delay)
            delay = min(delay * 2, RETRY_MAX)

    async def _try(self, entry: LogEntry) -> tuple[int, str, bool]:
        """How it ended: status, message, and whether that will never change."""
        try:
            event = Any.FromString(entry.event)
        except DecodeError as error:
            return Status.DATA_LOSS, f"what is stored is no google.protobuf.Any: {error}", True
        name = self.model.method_for(event.type_url)
        if name is None:
            service, event_log = self.model.service_name, self.model.event_log
            return Status.UNIMPLEMENTED, f'no method of {service} for "{event.type_url}" of {event_log}', True
        target = self._router.method(self.model.service_name, name)
        if target is None:
            return Status.UNAVAILABLE, f"{self.model.service_name}.{name} is not served at the moment", False
        return *await self._deliver(target, entry, event), False

    async def _deliver(self, target: Target, entry: LogEntry, event: Any) -> tuple[int, str]:
        """Call the method, as a client that hears how the call ends and nothing else."""
        ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

        def over(_: StandIn, status: int, message: str) -> None:
            if not ended.done():
                ended.set_result((status, message))

        way = (Hop("event of", f"{entry.entity} #{entry.sequence}", ""),)
        stand_in = StandIn(self._router, target, way, over)
        metadata = metadata_of(entry, self.model.event_log, event.type_url, self._view.name)
        self._router.deliver(target, stand_in, event.value, metadata, event.type_url)
        try:
            return await ended
        finally:
            stand_in.on_client_cancel(Status.CANCELLED)  # does nothing after the end

    def _give_up(self, entry: LogEntry, attempts: int, status: int, message: str) -> None:
        self._figures.dead_letters += 1
        log.error("event given up", **self._about(entry, status, message), attempts=attempts)
        self._router.report(
            f'The event {entry.sequence} of "{entry.entity}" (offset {entry.offset}) was not handled by the consumer '
            f"{self.model.name}, and is skipped: {message}."
        )
        self._passed(entry.offset + 1, 1)

    def _about(self, entry: LogEntry, status: int, message: str) -> dict[str, object]:
        """What tells a person which event it is, and what is wrong with it."""
        return {
            "service": self.model.service_name,
            "group": self.model.group,
            "event_log": self.model.event_log,
            "entity": entry.entity,
            "sequence": entry.sequence,
            "offset": entry.offset,
            "status": Status(status).name if status in Status.__members__.values() else str(status),
            "reason": message,
        }

    async def _back_off(self, delay: float) -> None:
        """Wait, but not while the user function comes back or the consumer stops."""
        if self._stopping.is_set():
            return
        try:
            async with asyncio.timeout(delay):
                await self._again.wait()
        except TimeoutError:
            return

    # --- the offset --------------------------------------------------------------------------------------------------

    def _passed(self, offset: int, count: int) -> None:
        """Everything before `offset` is done with. `count`: how much that counts for storing it."""
        self._offset = offset
        self._unstored += count
        if self._unstored >= STORE_EVENTS:
            self._store()
        elif self._unstored and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(STORE_DELAY, self._store)

    def _store(self) -> None:
        self._unstored = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._position.store(self._offset)


class PageWaiter:
    """Turns the journal's answer into a future."""

    def __init__(self) -> None:
        self.future: asyncio.Future[LogPage] = asyncio.get_running_loop().create_future()

    def on_log(self, page: LogPage | None, error: JournalError | None) -> None:
        if self.future.done():
            return  # the consumer was cancelled meanwhile
        if page is not None:
            self.future.set_result(page)
        else:
            self.future.set_exception(error or JournalError("the journal gave no answer"))


def metadata_of(entry: LogEntry, event_log: str, type_url: str, log_name: str = "") -> bytes:
    """Serialized Metadata of an event: a CloudEvent (spec core 13.3)."""
    metadata = cloudstate.Metadata()
    for key, value in (
        ("ce-id", f"{log_name}{entry.offset}"),
        ("ce-source", event_log),
        ("ce-specversion", "1.0"),
        ("ce-type", type_url),
        ("Content-Type", CONTENT_TYPE),
        ("ce-subject", entry.entity.partition("|")[2]),
        ("ce-sequence", str(entry.sequence)),
    ):
        metadata.entries.add(key=key, string_value=value)
    return bytes(metadata.SerializeToString())
