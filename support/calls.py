"""Calls to other services: the targets of forwards and side effects."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from stateside.proto import cloudstate

from .errors import ServiceCallError
from .metadata import EMPTY_METADATA, Metadata
from .serialization import MESSAGE_PREFIX

SERVICE_ATTRIBUTE = "__stateside_service__"


class Service:
    """A service that commands can be forwarded to: `Service(descriptor).call("Method", message)`.

    service: its descriptor, or an entity class that implements it. It has to be served by the same user function.
    """

    def __init__(self, service: ServiceDescriptor | type) -> None:
        descriptor = getattr(service, SERVICE_ATTRIBUTE, service)
        if not isinstance(descriptor, ServiceDescriptor):
            raise ServiceCallError(f"Service takes a service descriptor or an entity class, not {service!r}")
        self.descriptor: Any = descriptor
        self._methods = {method.name: method for method in self.descriptor.methods}

    def call(self, method: str, message: Message, metadata: Metadata = EMPTY_METADATA) -> ServiceCall:
        """A call of `method` with `message`. Raises ServiceCallError if the method is unknown or takes another
        message.
        """
        target = find_method(self._methods, method)
        if target is None:
            raise ServiceCallError(
                f"Service {self.descriptor.full_name} has no method {method!r}; it has {', '.join(self._methods)}"
            )
        expected = target.input_type.full_name
        if not isinstance(message, Message) or message.DESCRIPTOR.full_name != expected:
            raise ServiceCallError(
                f"{self.descriptor.full_name}.{target.name} takes {expected}, not {type(message).__qualname__}"
            )
        return ServiceCall(self.descriptor.full_name, target.name, message, metadata)


@dataclass(frozen=True, slots=True)
class ServiceCall:
    """One call, ready to be given to `ctx.forward` or `ctx.effect`."""

    service_name: str
    command_name: str
    message: Message
    metadata: Metadata = EMPTY_METADATA

    def check(self, served: Collection[str]) -> None:
        """Raises ServiceCallError unless the service is among those `served`."""
        if self.service_name not in served:
            raise ServiceCallError(
                f"Service {self.service_name} is not served by this process; served are {', '.join(sorted(served))}"
            )

    def to_forward(self) -> bytes:
        """Serialized cloudstate.Forward."""
        return self._fill(cloudstate.Forward())

    def to_side_effect(self, synchronous: bool) -> bytes:
        """Serialized cloudstate.SideEffect."""
        return self._fill(cloudstate.SideEffect(synchronous=synchronous))

    def _fill(self, target: Any) -> bytes:
        target.service_name = self.service_name
        target.command_name = self.command_name
        target.payload.type_url = f"{MESSAGE_PREFIX}/{self.message.DESCRIPTOR.full_name}"
        target.payload.value = self.message.SerializeToString()
        if len(self.metadata):
            target.metadata.CopyFrom(self.metadata.to_message())
        return bytes(target.SerializeToString())


def find_method(methods: dict[str, MethodDescriptor], name: str) -> MethodDescriptor | None:
    """The method called `name`, or the only one that is called so in CamelCase (`add_item` -> `AddItem`)."""
    if name in methods:
        return methods[name]
    wanted = _plain(name)
    found = [method for method in methods.values() if _plain(method.name) == wanted]
    return found[0] if len(found) == 1 else None


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
