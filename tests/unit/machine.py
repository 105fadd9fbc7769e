"""Fakes around the state machine of entities: a client, a stream, the connections, the journal and time do what a test
says; all else is the proxy's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from stateside.journal.contract import Head, JournalError
from stateside.proto.status import Status
from stateside.proxy.activation import Entities, EntityMethod
from stateside.proxy.config import Settings
from stateside.proxy.metrics import EntityMetrics, Kind
from stateside.proxy.router import Router
from stateside.proxy.spec import validate

from ..integration.messages import METHODS, command, init, request
from ..integration.value_messages import both_models

KEY = "k"


class Client:
    """A ServerCall as far as the machine sees it."""

    def __init__(self) -> None:
        self.context: Any = None
        self.ended = False
        self.answers: list[tuple[Status, bytes | str]] = []

    def reply(self, message: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self._end(Status.OK, message)

    def fail(self, status: int, message: str) -> None:
        self._end(Status(status), message)

    def _end(self, status: Status, what: bytes | str) -> None:
        if not self.ended:
            self.ended = True
            self.answers.append((status, what))

    @property
    def status(self) -> Status | None:
        assert len(self.answers) <= 1
        return self.answers[0][0] if self.answers else None

    @property
    def text(self) -> str:
        ((_, text),) = self.answers
        assert isinstance(text, str)
        return text


class Stream:
    """A ClientCall: what the machine sent, and whether it half-closed or reset."""

    def __init__(self, parse: Callable[[bytes], Any]) -> None:
        self._parse = parse
        self.sent: list[Any] = []
        self.framed: list[bytes] = []
        self.half_closed = self.cancelled = self.unprocessed = False
        self.flowing = True

    def send(self, message: bytes) -> bool:
        self.sent.append(self._parse(message))
        return self.flowing

    def send_framed(self, data: bytes) -> bool:
        self.framed.append(data)
        return self.flowing

    def half_close(self) -> None:
        self.half_closed = True

    def cancel(self) -> None:
        self.cancelled = True


class UserFunction:
    """The pool: gives streams at once."""

    def __init__(self, parse: Callable[[bytes], Any]) -> None:
        self._parse = parse
        self.streams: list[Stream] = []
        self.released = 0
        self.waiting: dict[Any, bytes] = {}
        self.crowded = False

    def request(self, path: bytes, borrower: Any) -> None:
        self.streams.append(Stream(self._parse))
        borrower.on_stream(self.streams[-1])

    def withdraw(self, borrower: Any) -> None: ...

    def release(self, borrower: Any) -> None:
        self.released += 1


class Journal:
    """Keeps what is asked of it until the test answers."""

    def __init__(self) -> None:
        self.loads: list[Any] = []
        self.reads: list[tuple[int, Any]] = []
        self.appends: list[tuple[int, list[bytes], bytes | None]] = []
        self.puts: list[tuple[int, bytes | None]] = []

    def load(self, entity: str, waiter: Any) -> None:
        self.loads.append(waiter)

    def read(self, entity: str, from_sequence: int, max_bytes: int, waiter: Any) -> None:
        self.reads.append((from_sequence, waiter))

    def append(
        self,
        entity: str,
        first_sequence: int,
        events: Sequence[bytes],
        snapshot: bytes | None,
        waiter: Any,
        epoch: int = 0,
    ) -> None:
        self.appends.append((first_sequence, list(events), snapshot))

    def put(self, entity: str, version: int, value: bytes | None, waiter: Any, epoch: int = 0) -> None:
        self.puts.append((version, value))


class Timers:
    """Time stands still until the test moves it."""

    def __init__(self) -> None:
        self.callbacks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def watch(self, target: Any, due: float) -> None: ...

    def forget(self, target: Any) -> None: ...

    def evict(self, wanted: int) -> int:
        return 0

    def soon(self, callback: Callable[..., Any], *args: Any) -> None:
        self.callbacks.append((callback, args))

    def later(self, delay: float, callback: Callable[..., Any], *args: Any) -> None:
        self.callbacks.append((callback, args))

    def turn(self) -> None:
        callbacks, self.callbacks = self.callbacks, []
        for callback, args in callbacks:
            callback(*args)


class Machine:
    """One service with its fakes. A subclass says of which entity type."""

    service: str
    entities: type[Entities]
    kind: Kind
    parse: Callable[[bytes], Any]

    def __init__(self) -> None:
        self.settings = Settings()
        self.journal, self.user_function, self.timers = Journal(), UserFunction(self.parse), Timers()
        self.metrics = EntityMetrics("model", self.kind)
        self.reports: list[str] = []
        router = Router(self.settings, self.timers, self._entities, self.reports.append)  # type: ignore[arg-type]
        router.update(validate(self._spec(), self.settings))
        method = router.method(self.service, METHODS[self.service])
        assert isinstance(method, EntityMethod)
        self.method = method
        self.active = method.entities.active

    def _spec(self) -> Any:
        """The entity is the only one of its user function."""
        spec = both_models()
        for index in reversed(range(len(spec.entities))):
            if spec.entities[index].service_name != self.service:
                del spec.entities[index]
        return spec

    def _entities(self, model: Any, router: Router) -> Entities:
        return self.entities(
            model,
            self.settings,
            journal=self.journal,  # type: ignore[arg-type]
            user_function=self.user_function,  # type: ignore[arg-type]
            timers=self.timers,  # type: ignore[arg-type]
            metrics=self.metrics,
            router=router,
        )

    @property
    def stream(self) -> Stream:
        return self.user_function.streams[-1]

    @property
    def instance(self) -> Any:
        return self.active[KEY]

    def call(self) -> Client:
        """A command of a client."""
        client = Client()
        self.method.on_request(client, request(KEY).SerializeToString())  # type: ignore[arg-type]
        return client

    def loaded(self, last: int = 0, snapshot_sequence: int = 0, snapshot: bytes | None = None) -> None:
        self.journal.loads.pop().on_loaded(Head(last, snapshot_sequence, snapshot), None)

    def busy(self) -> Client:
        """The first command of a fresh instance, with the user function."""
        client = self.call()
        self.loaded()
        assert self.stream.sent == [init(KEY, self.service), self.command(1)]
        return client

    def command(self, command_id: int) -> Any:
        """What the user function is sent."""
        return command(command_id, KEY, service=self.service)

    def says(self, message: Any) -> None:
        """A message of the user function."""
        self.instance.on_message(self.stream, message.SerializeToString())

    def ends(self, status: Status = Status.OK) -> None:
        self.instance.on_end(self.stream, status, "")

    def appended(self, error: JournalError | None = None) -> None:
        self.instance.on_appended(error)
