"""From a path or a (service, command) to the method that serves it, over all services of the user function.

The transport asks `lookup` once per path and remembers the answer; forwards and side effects ask `method`. The table
changes when the user function was discovered (again).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from stateside._speedups.h2 import Handler, ServerCall
from stateside._speedups.wire import ACTION_REPLY
from stateside.proto import cloudstate
from stateside.proto.status import Status
from stateside.proxy import logs
from stateside.proxy.activation import Entities, EntityMethod
from stateside.proxy.spec import EntityModel, ServiceModel

if TYPE_CHECKING:
    from stateside._speedups.wire import StreamOut, ValueOut
    from stateside.proxy.config import Settings
    from stateside.proxy.timers import Timers

# Response headers that are the transport's own business (spec core 8.2).
RESERVED_HEADERS = frozenset(
    ("content-type", "content-length", "transfer-encoding", "date", "server", "connection", "te")
)
HEADER_NAME = re.compile(r"[0-9a-z_.-]+")  # gRPC over HTTP/2: Custom-Metadata
HEADER_VALUE = re.compile(r"[ -~]*")
MAX_REPLY_HEADERS = 50
MAX_TYPE_WARNINGS = 100  # distinct (method, type) pairs reported; each once

log = logs.get(__name__)


class Router:
    """The routing table, and what forwards and effects share."""

    def __init__(
        self,
        settings: Settings,
        timers: Timers,
        make_entities: Callable[[EntityModel, Router], Entities],
        report: Callable[[str], None],
    ) -> None:
        """`report(text)` tells the user function about its mistakes, without waiting."""
        self.settings = settings
        self.timers = timers
        self.report = report
        self.entities: dict[str, Entities] = {}
        self.pending_effects = 0
        self.failed_effects = 0
        self._make_entities = make_entities
        self._paths: dict[bytes, Handler] = {}
        self._fixed: dict[bytes, Handler] = {}
        self._warned: set[tuple[str, str]] = set()

    def add(self, handlers: Mapping[bytes, Handler]) -> None:
        """Serve paths that do not come from the user function: health, reflection."""
        self._fixed.update(handlers)

    def update(self, model: ServiceModel) -> None:
        """Serve the services of `model`, and no others. Instances of services that stay live on."""
        known, self.entities = self.entities, {}
        for entity in model.entities:
            entities = known.get(entity.service_name)
            if entities is not None and entities.model.persistence_id == entity.persistence_id:
                entities.update(entity)
            else:
                entities = self._make_entities(entity, self)
            self.entities[entity.service_name] = entities
        self._paths = {
            method.model.path: method for entities in self.entities.values() for method in entities.methods.values()
        }
        self._warned.clear()

    def lookup(self, path: bytes) -> Handler | None:
        return self._paths.get(path) or self._fixed.get(path)

    def method(self, service_name: str, command_name: str) -> EntityMethod | None:
        entities = self.entities.get(service_name)
        return entities.methods.get(command_name) if entities is not None else None

    def active_instances(self) -> int:
        return sum(len(entities.active) for entities in self.entities.values())

    # --- answers -----------------------------------------------------------------------------------------------------

    def answer(self, client: ServerCall, method: EntityMethod, reply: StreamOut | ValueOut) -> None:
        """Give the client what the user function replied."""
        if reply.action != ACTION_REPLY:
            self.report(f"{method.name} was answered with neither reply, forward nor failure.")
            client.fail(Status.INTERNAL, f"the user function gave no answer to {method.name}")
            return
        if reply.type_url != method.output_type_url:
            self.warn_type(method, reply.type_url)
        if reply.metadata is None:
            client.reply(reply.payload)
        else:
            client.reply(reply.payload, response_headers(reply.metadata))

    def warn_type(self, method: EntityMethod, type_url: str) -> None:
        """The reply has another type than the method promises: it is sent all the same (spec core 9.4), and said
        once."""
        if (method.name, type_url) in self._warned or len(self._warned) >= MAX_TYPE_WARNINGS:
            return
        self._warned.add((method.name, type_url))
        text = f"Warning: {method.name} is to answer {method.output_type_url}, but answered {type_url or 'nothing'}."
        log.warning("reply of an unexpected type", method=method.name, expected=method.output_type_url, actual=type_url)
        self.report(text)

    def effect_failed(self, name: str, status: Status, message: str) -> None:
        """A side effect was not done, or failed: counted and logged, never dropped silently."""
        self.failed_effects += 1
        log.warning("side effect failed", target=name, status=status.name, message=message)


def response_headers(metadata: bytes) -> list[tuple[bytes, bytes]]:
    """Response headers from a serialized `Metadata` (spec core 8.2): its string entries. What is no header is
    dropped."""
    headers: list[tuple[bytes, bytes]] = []
    for entry in cloudstate.Metadata.FromString(metadata).entries:
        name = entry.key.lower()
        if entry.WhichOneof("value") != "string_value":
            continue
        if name in RESERVED_HEADERS or name.startswith("grpc-"):
            log.warning("reply metadata dropped: the name is reserved", name=name)
        elif not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(entry.string_value):
            log.warning("reply metadata dropped: it cannot be sent as a header", name=name)
        elif len(headers) == MAX_REPLY_HEADERS:
            log.warning("reply metadata dropped: there are too many entries", name=name)
        else:
            headers.append((name.encode(), entry.string_value.encode()))
    return headers
