"""What the methods of a user function consume: the method option `(cloudstate.eventing)`, read and checked.

Methods of a service whose `in` names the same consumer group and the same event log form one consumer, which chooses
among them by the type of the event (spec core 13.2). `eventing.py` runs consumers. Broken declarations are a
`SpecError`, reported to the user function like all that is wrong with its discovery; topics, and publishing, are not
offered by this proxy, and a method that asks for them is served without, with a warning.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError

from stateside.journal.limits import MAX_ENTITY_BYTES
from stateside.journal.offsets import PREFIX
from stateside.proto import cloudstate
from stateside.proxy import descriptors
from stateside.proxy.descriptors import SpecError

OPTION = 1081
ANY = "google.protobuf.Any"
# Events that are no protobuf messages of the user: only a method that takes any Any can make something of them.
UNTYPED = ("json.cloudstate.io/", "p.cloudstate.io/")


@dataclass(frozen=True, slots=True)
class ConsumerModel:
    """One consumer. `methods`: method name by full name of the input type."""

    service_name: str
    group: str
    event_log: str
    methods: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """Under which its offset is kept."""
        return f"{self.group}|{self.event_log}"

    def method_for(self, type_url: str) -> str | None:
        """Name of the method that takes events of this type, None if there is none."""
        methods = dict(self.methods)
        if type_url.startswith(UNTYPED):
            return methods.get(ANY)
        return methods.get(type_url.partition("/")[2]) or methods.get(ANY)


class Declarations:
    """Collects the consumers of all services."""

    def __init__(self, event_logs: Collection[str], values: Collection[str], warnings: list[str]) -> None:
        """event_logs, values: persistence ids of the event sourced and of the value entities."""
        self._event_logs = event_logs
        self._values = values
        self._warnings = warnings
        self._found: dict[tuple[str, str], tuple[str, dict[str, str]]] = {}  # by group and event log

    def consumers(self) -> tuple[ConsumerModel, ...]:
        return tuple(
            ConsumerModel(service, group, event_log, tuple(methods.items()))
            for (group, event_log), (service, methods) in self._found.items()
        )

    def add(self, service: ServiceDescriptor) -> None:
        for method in service.methods:
            eventing = read_option(method)
            if eventing.HasField("out"):
                self._warn(method, "publishing (out) is not supported: its replies go to its callers only")
            if eventing.HasField("in"):
                self._add_source(service, method, getattr(eventing, "in"))

    def _add_source(self, service: ServiceDescriptor, method: MethodDescriptor, source: Any) -> None:
        if source.WhichOneof("source") == "event_log":
            self._check_log(method, source.event_log)
            self._add_method(service, method, source.consumer_group or service.full_name, source.event_log)
        elif source.WhichOneof("source") == "topic":
            self._warn(method, f'the topic "{source.topic}" is not consumed: topics are not supported')
        else:
            self._warn(method, "nothing is consumed: its option names neither an event log nor a topic")

    def _add_method(self, service: ServiceDescriptor, method: MethodDescriptor, group: str, event_log: str) -> None:
        name, input_type = method.full_name, method.input_type.full_name
        owner, methods = self._found.setdefault((group, event_log), (service.full_name, {}))
        where = f'the event log "{event_log}" in the consumer group "{group}"'
        if len(f"{PREFIX}{group}|{event_log}".encode()) > MAX_ENTITY_BYTES:
            raise SpecError(f"The method {name} consumes {where}: these names are too long together.")
        if owner != service.full_name:
            raise SpecError(
                f"The services {owner} and {service.full_name} both consume {where}. Give each a group of its own."
            )
        if input_type in methods:
            raise SpecError(
                f"The methods {methods[input_type]} and {method.name} of {owner} both consume {input_type} from "
                f"{where}. Give one of them another input type or another group."
            )
        methods[input_type] = method.name

    def _check_log(self, method: MethodDescriptor, event_log: str) -> None:
        if event_log in self._event_logs:
            return
        if event_log in self._values:
            raise SpecError(
                f'The method {method.full_name} consumes the event log of "{event_log}", which is a value entity and '
                "has none."
            )
        known = ", ".join(sorted(self._event_logs)) or "none"
        raise SpecError(
            f'The method {method.full_name} consumes the event log "{event_log}", which is not the persistence_id of '
            f"an event sourced entity of this user function. There are: {known}."
        )

    def _warn(self, method: MethodDescriptor, text: str) -> None:
        self._warnings.append(f"{method.full_name}: {text}.")


def read_option(method: MethodDescriptor) -> Any:
    """The `cloudstate.Eventing` of a method, empty without one."""
    option = descriptors.message_option(method.GetOptions().SerializeToString(), OPTION)
    try:
        return cloudstate.Eventing.FromString(option)
    except DecodeError as error:
        raise SpecError(f"The eventing option of the method {method.full_name} cannot be read: {error}") from error
