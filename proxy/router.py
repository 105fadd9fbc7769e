"""From a path or a (service, command) to the method that serves it, over all services of the user function.

The transport asks `lookup` once per path and remembers the answer; forwards and side effects ask `method` and hand
their payload to `deliver`. The table changes when the user function was discovered (again).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from stateside._speedups.h2 import Handler
from stateside._speedups.wire import ACTION_FAILURE, ACTION_REPLY, ActionOut, headers_of_metadata
from stateside.proto.status import Status, status_name
from stateside.proxy import logs
from stateside.proxy.action import ActionMethod, Actions
from stateside.proxy.activation import Entities, EntityMethod
from stateside.proxy.effects import StandIn, origin_of
from stateside.proxy.http_calls import HttpCall
from stateside.proxy.spec import EntityModel, ServiceModel

if TYPE_CHECKING:
    from stateside.proxy.config import Settings
    from stateside.proxy.effects import Client, Method, Reply
    from stateside.proxy.relay import Relay
    from stateside.proxy.timers import Timers

HEADER_NAME = re.compile(rb"[0-9a-z_.-]+")
HEADER_VALUE = re.compile(rb"[ -~]*")
MAX_REPLY_HEADERS = 50
MAX_TYPE_WARNINGS = 100  # distinct (method, type) pairs reported; each once

log = logs.get(__name__)

Service: TypeAlias = Entities | Actions
Target: TypeAlias = EntityMethod | ActionMethod


class Router:
    """The routing table, and what forwards and effects share."""

    def __init__(
        self,
        settings: Settings,
        timers: Timers,
        make_service: Callable[[EntityModel, Router], Service],
        report: Callable[[str], None],
    ) -> None:
        """`report(text)` tells the user function about its mistakes, without waiting."""
        self.settings = settings
        self.timers = timers
        self.report = report
        self.services: dict[str, Service] = {}
        self.relay: Relay | None = None  # None: there are no other workers
        self.pending_effects = 0
        self.failed_effects = 0
        self.refused_effects = 0
        self._make_service = make_service
        self._paths: dict[bytes, Handler] = {}
        self._fixed: dict[bytes, Handler] = {}
        self._warned: set[tuple[str, str]] = set()

    def add(self, handlers: Mapping[bytes, Handler]) -> None:
        """Serve paths that do not come from the user function: health, reflection."""
        self._fixed.update(handlers)

    def update(self, model: ServiceModel) -> None:
        """Serve the services of `model`, and no others. Instances of services that stay live on."""
        known, self.services = self.services, {}
        for entity in model.entities:
            service = known.get(entity.service_name)
            if service is not None and is_same(service.model, entity):
                service.update(entity)
            else:
                service = self._make_service(entity, self)
            self.services[entity.service_name] = service
        self._paths = {
            method.model.path: method for service in self.services.values() for method in service.methods.values()
        }
        self._warned.clear()

    def lookup(self, path: bytes) -> Handler | None:
        return self._paths.get(path) or self._fixed.get(path)

    def has_service(self, service_name: str) -> bool:
        return service_name in self.services

    def method(self, service_name: str, command_name: str) -> Target | None:
        service = self.services.get(service_name)
        return service.methods.get(command_name) if service is not None else None

    def deliver(
        self,
        target: Target,
        client: StandIn | HttpCall,
        payload: bytes,
        metadata: bytes | None,
        type_url: str | None = None,
    ) -> None:
        """A side effect, a forward or an HTTP request: one request message, with metadata if the target takes any
        (spec core 7.3). Or an event, then with the `type_url` that it was stored with."""
        if isinstance(target, ActionMethod):
            if type_url is not None:
                assert isinstance(client, StandIn)
                target.take_event(client, type_url, payload, metadata)
            else:
                target.take(client, payload, metadata)
        else:
            target.on_request(client, payload)  # type: ignore[arg-type]

    def active_instances(self) -> int:
        return sum(len(service.active) for service in self.services.values() if isinstance(service, Entities))

    # --- answers -----------------------------------------------------------------------------------------------------

    def answer(self, client: Client, method: Method, reply: Reply) -> None:
        """Give the client what the user function replied to a call with one answer."""
        if reply.action == ACTION_REPLY:
            self.check_type(client, method, reply.type_url)
            headers = response_headers(method, reply.metadata) if reply.metadata is not None else ()
            if isinstance(client, StandIn):
                client.pass_on(reply.payload, headers)
            else:
                client.reply(reply.payload, headers)
        elif reply.action == ACTION_FAILURE:
            client.fail(Status.UNKNOWN, reply.description)
        else:
            self._no_answer(client, method, reply)

    def _no_answer(self, client: Client, method: Method, reply: Reply) -> None:
        """Only an action may stay silent, but then a client is left without its message all the same."""
        if not isinstance(reply, ActionOut):
            self.report(f"{method.name} was answered with neither reply, forward nor failure.")
        elif isinstance(client, StandIn):
            client.finish()
            return
        client.fail(Status.INTERNAL, f"the user function gave no answer to {method.name}")

    def start(self, client: Client, method: Method, metadata: bytes) -> None:
        """Metadata of the first reply of a stream; that of later ones has no effect."""
        if isinstance(client, HttpCall):
            client.name_type(metadata)
        client.start(response_headers(method, metadata))

    def check_type(self, client: Client, method: Method, type_url: str) -> None:
        """An answer has to be of the type that the method which the client called promises (spec core 9.4)."""
        origin = origin_of(client, method)
        if type_url != origin.output_type_url:
            self.warn_type(origin, type_url)

    def warn_type(self, method: Method, type_url: str) -> None:
        """The reply has another type than the method promises: it is sent all the same, and said once."""
        if (method.name, type_url) in self._warned or len(self._warned) >= MAX_TYPE_WARNINGS:
            return
        self._warned.add((method.name, type_url))
        text = f"Warning: {method.name} is to answer {method.output_type_url}, but answered {type_url or 'nothing'}."
        log.warning("reply of an unexpected type", method=method.name, expected=method.output_type_url, actual=type_url)
        self.report(text)

    def effect_failed(self, name: str, status: int, message: str) -> None:
        """A side effect was not done, or failed: counted and logged, never dropped silently."""
        self.failed_effects += 1
        log.warning("side effect failed", target=name, status=status_name(status), message=message)


def response_headers(method: Method, metadata: bytes) -> list[tuple[bytes, bytes]]:
    """Response headers from the metadata of a reply (spec core 8.2). What is no header is dropped."""
    headers = [each for each in headers_of_metadata(metadata) if is_grpc_header(*each)]
    if len(headers) > MAX_REPLY_HEADERS:
        log.warning("reply metadata dropped: there are too many entries", method=method.name, entries=len(headers))
    return headers[:MAX_REPLY_HEADERS]


def is_grpc_header(name: bytes, value: bytes) -> bool:
    """HTTP/2 would take more than the Custom-Metadata of gRPC over HTTP/2."""
    if HEADER_NAME.fullmatch(name) and not name.startswith(b"grpc-") and HEADER_VALUE.fullmatch(value):
        return True
    log.warning("reply metadata dropped: it cannot be sent as a header", name=name.decode(errors="replace"))
    return False


def is_same(one: EntityModel, other: EntityModel) -> bool:
    """Whether the instances of one can go on under the other."""
    return one.persistence_id == other.persistence_id and one.entity_type == other.entity_type
