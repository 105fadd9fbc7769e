"""The state machine of CRDT entities with fakes around it: clients, the stream, the replicas and time do what a test
says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

from stateside.proto import crdt
from stateside.proto.status import Status
from stateside.proxy.crdt_service import Crdts
from stateside.proxy.metrics import CRDT
from stateside.proxy.router import Router

from ..helpers.replicas import SomeReplicas
from ..integration.crdt_messages import (
    STREAMED,
    command,
    crdt_spec,
    init,
    reply,
    request,
    streamed_command,
    streamed_request,
)
from ..integration.messages import CRDT_MODEL, PERSISTENCE_IDS
from .machine import KEY, Client, Stream
from .machine import Machine as AnyMachine

FULL_KEY = f"{PERSISTENCE_IDS[CRDT_MODEL]}|{KEY}"


class SingleClient(Client):
    """A ServerCall of a unary method."""

    def finish(self, status: int = 0, message: str = "", trailers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self._end(Status(status), message)


class StreamClient(SingleClient):
    """A ServerCall of a streamed method. `takes`: whether it has room for more."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[bytes] = []
        self.started = False
        self.takes = True
        self.path, self.deadline = b"", 0.0

    def start(self, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.started = True

    def send(self, message: bytes) -> bool:
        assert not self.ended
        self.messages.append(message)
        return self.takes


class Machine(AnyMachine):
    """The CRDT model of the TCK with its fakes."""

    service = CRDT_MODEL
    entities = Crdts
    kind = CRDT
    parse = staticmethod(crdt.CrdtStreamIn.FromString)
    settings: Any

    def __init__(self, **settings: Any) -> None:
        self.replicas = SomeReplicas()
        self._changes = settings
        super().__init__()

    def _spec(self) -> Any:
        spec = crdt_spec()
        del spec.entities[1:]
        return spec

    def _entities(self, model: Any, router: Router) -> Crdts:
        self.settings = replace(self.settings, **self._changes)
        return Crdts(
            model,
            self.settings,
            replicas=self.replicas,
            journal=self.journal,
            user_function=self.user_function,
            timers=self.timers,
            metrics=self.metrics,
            router=router,
        )

    @property
    def sent(self) -> list[Any]:
        """What the present stream was sent."""
        return self.stream.sent

    def opened(self) -> Stream:
        """An instance without state that has served its first command."""
        client = self.call()
        assert self.sent == [init(KEY), command(1, KEY)]
        self.says(reply(1))
        assert client.status == Status.OK
        del self.sent[:]
        return self.stream

    def ask(self, *actions: Any) -> Client:
        client = SingleClient()
        self.method.on_request(client, request(KEY, *actions).SerializeToString())  # type: ignore[arg-type]
        return client

    call = ask

    def listen(self) -> StreamClient:
        """A streamed command of a client."""
        client = StreamClient()
        method = self.method.entities.methods[STREAMED]
        method.on_request(client, streamed_request(KEY).SerializeToString())  # type: ignore[arg-type]
        return client

    def goes_away(self, client: StreamClient) -> None:
        """The client of a streamed command cancels."""
        client.ended = True
        self.method.entities.methods[STREAMED].on_cancel(client, Status.CANCELLED)  # type: ignore[arg-type]

    def drains(self, client: StreamClient) -> None:
        client.takes = True
        self.method.entities.methods[STREAMED].on_drain(client)  # type: ignore[arg-type]

    def elsewhere(self, kind: int, change: Any) -> None:
        self.replicas.elsewhere(FULL_KEY, kind, change)

    def passes(self, seconds: float) -> None:
        """Time goes by, and the timers look."""
        instance = self.active.get(KEY)
        if instance is not None:
            instance.on_time(monotonic() + seconds)

    def ends_as_asked(self) -> None:
        assert self.stream.half_closed
        self.ends()

    @property
    def state(self) -> Any:
        """The value of the replica."""
        state = self.replicas.replicas[FULL_KEY].state
        return state.value() if state is not None else None

    def streamed(self, number: int) -> Any:
        return streamed_command(number, KEY)
