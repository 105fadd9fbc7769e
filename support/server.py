"""The process of a user function: registered entities served to proxies on one address."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from stateside._speedups.h2 import Handler, Limits, Server

from .action_calls import Actions
from .action_model import ActionType
from .crdt_model import CrdtType
from .crdt_stream import CrdtHandler
from .discovery import (
    DISCOVER_PATH,
    REPORT_ERROR_PATH,
    DiscoverHandler,
    ReportErrorHandler,
    distribution_version,
    entity_spec,
)
from .entity_model import EntityType
from .errors import RegistrationError
from .event_sourced_model import EventSourcedType
from .event_sourced_stream import EventSourcedHandler
from .hooks import Hooks
from .registration import read
from .reload import start_again, until_changed
from .serialization import MESSAGE_PREFIX
from .value_entity_model import ValueEntityType
from .value_entity_stream import ValueEntityHandler

VALUE_ENTITY_PATH = b"/cloudstate.valueentity.ValueEntity/handle"
CRDT_PATH = b"/cloudstate.crdt.Crdt/handle"
EVENT_SOURCED_PATH = b"/cloudstate.eventsourced.EventSourced/handle"
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080


class Stateside:
    """The entities of one process, and the gRPC server for the proxy.

    entities: classes decorated as entities or actions, or instances of action classes; more by `register`.
    name, version: of the application, told to the proxy. Default: the first service's short name; the version of the
    installed distribution called `name`, if there is one.
    type_url_prefix: host part of the type URL of stored messages.
    """

    def __init__(
        self,
        *entities: Any,
        name: str = "",
        version: str = "",
        type_url_prefix: str = MESSAGE_PREFIX,
        hooks: Hooks | None = None,
    ) -> None:
        self.port = 0
        """Bound TCP port; 0 while not listening on TCP."""
        self._name = name
        self._version = version
        self._type_url_prefix = type_url_prefix
        self._hooks = hooks or Hooks()
        self._services: set[str] = set()
        self._types: list[EntityType | ActionType] = []
        self._event_sourced = EventSourcedHandler(self._services, self._hooks)
        self._value_entities = ValueEntityHandler(self._services, self._hooks)
        self._crdts = CrdtHandler(self._services, self._hooks)
        self._actions = Actions(self._services, self._hooks)
        self._handlers = (self._event_sourced, self._value_entities, self._crdts, self._actions)
        self._server: Server | None = None
        self._stopped: asyncio.Event | None = None
        for entity in entities:
            self.register(entity)

    def register(self, entity: Any) -> Stateside:
        """Add an entity class, an action class or an instance of one. Raises RegistrationError naming the class, the
        handler and what is allowed.
        """
        compiled = read(entity, type_url_prefix=self._type_url_prefix)
        self._check_free(compiled)
        self._types.append(compiled)
        self._services.add(compiled.service_name)
        match compiled:
            case EventSourcedType():
                self._event_sourced.types[compiled.service_name] = compiled
            case ValueEntityType():
                self._value_entities.types[compiled.service_name] = compiled
            case CrdtType():
                self._crdts.types[compiled.service_name] = compiled
            case ActionType():
                self._actions.types[compiled.service_name] = compiled
        self._hooks.registered(compiled.label, compiled.unhandled())
        return self

    def _check_free(self, compiled: EntityType | ActionType) -> None:
        if compiled.service_name in self._services:
            raise RegistrationError(f"{compiled.label}: service {compiled.service_name} is already registered")
        persistence_id = compiled.declaration.persistence_id
        for other in self._types:
            stored = isinstance(compiled, EntityType) and isinstance(other, EntityType)
            if stored and other.declaration.persistence_id == persistence_id:
                raise RegistrationError(
                    f"{compiled.label}: persistence id {persistence_id!r} is already that of {other.label}"
                )

    def entity_spec(self) -> bytes:
        """What discovery answers: a serialized cloudstate.EntitySpec. Raises RegistrationError without entities."""
        if not self._types:
            raise RegistrationError("No entity is registered: Stateside(MyEntity) or register(MyEntity)")
        name = self._name or self._types[0].declaration.service.name
        version = self._version or distribution_version(self._name)
        return entity_spec([compiled.declaration for compiled in self._types], name, version)

    def run(
        self,
        host: str | None = None,
        port: int | None = None,
        *,
        unix: str | None = None,
        grace: float = 10.0,
        reload: bool = False,
    ) -> None:
        """Serve until SIGTERM or SIGINT; blocks. Arguments as of `serve`.

        reload: for development, stop gracefully and start the process again when a source file of the application
        changes; a change that does not compile is logged and waited on.
        """
        if uvloop.run(self._run(host, port, unix, grace, reload)):
            start_again()

    async def _run(self, host: str | None, port: int | None, unix: str | None, grace: float, reload: bool) -> bool:
        """`serve`, also ended by a change of the sources; whether it was."""
        if not reload:
            await self.serve(host, port, unix=unix, grace=grace)
            return False
        watching = asyncio.create_task(until_changed())
        watching.add_done_callback(self._reload)
        try:
            await self.serve(host, port, unix=unix, grace=grace)
            return watching.done()
        finally:
            watching.cancel()

    def _reload(self, watching: asyncio.Task[list[Path]]) -> None:
        if not watching.cancelled():
            self._hooks.reloading([str(file) for file in watching.result()])
            self.request_stop()

    async def serve(
        self, host: str | None = None, port: int | None = None, *, unix: str | None = None, grace: float = 10.0
    ) -> None:
        """Serve until SIGTERM, SIGINT or cancellation, then stop gracefully. Arguments as of `start` and `stop`."""
        stopped = self._stopped = asyncio.Event()
        signals = _install_signals(stopped)  # before anybody can know that we listen, and tell us to stop
        try:
            await self.start(host, port, unix=unix)
            await stopped.wait()
        finally:
            await self.stop(grace)
            for number in signals:
                asyncio.get_running_loop().remove_signal_handler(number)

    def request_stop(self) -> None:
        """Let a running `serve` end, as a signal would. From the loop's thread."""
        if self._stopped is not None:
            self._stopped.set()

    async def start(self, host: str | None = None, port: int | None = None, *, unix: str | None = None) -> int:
        """Listen and return; the bound port (0 for a Unix socket). Raises OSError when the address cannot be bound.

        host, port: default to the environment's HOST and PORT, then to 127.0.0.1:8080; port 0 takes a free one.
        unix: path of a Unix socket to listen on instead.
        """
        if self._server is not None:
            raise RuntimeError("this Stateside is already started")
        server = Server(asyncio.get_running_loop(), self._routes().get, limits=Limits(idle_timeout=0.0))
        if unix is not None:
            await server.listen_unix(unix)
            address = unix
        else:
            host, port = _address(host, port, os.environ)
            self.port = await server.listen_tcp(host, port)
            address = f"{host}:{self.port}"
        self._server = server
        for handler in self._handlers:
            handler.stopping = False
        self._hooks.started(address)
        return self.port

    async def stop(self, grace: float = 10.0) -> None:
        """Stop accepting, let commands under way finish for up to `grace` seconds, close. Does nothing when not
        started.
        """
        server, self._server, self.port = self._server, None, 0
        if server is None:
            return
        self._hooks.stopping(sum(len(handler.streams) for handler in self._handlers))
        server.stop_accepting()
        for handler in self._handlers:
            handler.stop()
        await server.close(grace)
        await self._actions.ended()

    def _routes(self) -> Mapping[bytes, Handler]:
        entity_types = {compiled.declaration.entity_type for compiled in self._types}
        return {
            DISCOVER_PATH: DiscoverHandler(self.entity_spec(), entity_types, self._hooks),
            REPORT_ERROR_PATH: ReportErrorHandler(self._hooks),
            EVENT_SOURCED_PATH: self._event_sourced,
            VALUE_ENTITY_PATH: self._value_entities,
            CRDT_PATH: self._crdts,
            **self._actions.routes(),
        }


def _address(host: str | None, port: int | None, environment: Mapping[str, str]) -> tuple[str, int]:
    """Explicit values, else the environment's, else the defaults. Raises ValueError naming a PORT that is none."""
    if host is None:
        host = environment.get("HOST") or DEFAULT_HOST
    if port is None:
        text = environment.get("PORT") or str(DEFAULT_PORT)
        if not text.isascii() or not text.isdigit():
            raise ValueError(f"PORT={text!r} in the environment is not a port; allowed are 0 to 65535")
        port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port; allowed are 0 to 65535")
    return host, port


def _install_signals(stopped: asyncio.Event) -> list[signal.Signals]:
    """SIGTERM and SIGINT set `stopped`; possible in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        return []
    signals = [signal.SIGTERM, signal.SIGINT]
    for number in signals:
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return signals
