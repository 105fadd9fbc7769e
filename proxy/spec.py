"""From the `EntitySpec` of discovery to the model of what the proxy serves, or a clear word about why it does not.

The rules are those of the reference proxy (docs/compatibility.md lists where we check more). The first broken rule
wins and its text, a `SpecError`, is reported to the user function.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from stateside.proto import cloudstate
from stateside.proxy import descriptors, http_rules
from stateside.proxy.config import Settings
from stateside.proxy.descriptors import Descriptors, SpecError
from stateside.proxy.eventing_spec import ConsumerModel, Declarations
from stateside.proxy.http_rules import Binding
from stateside.proxy.version import VERSION

__all__ = [
    "EntityModel",
    "MethodModel",
    "ServiceModel",
    "SpecError",
    "SUPPORTED_ENTITY_TYPES",
    "proxy_info",
    "validate",
]

PROXY_NAME = "stateside"
PROTOCOL = (0, 2)

ACTION = "cloudstate.action.ActionProtocol"
EVENT_SOURCED = "cloudstate.eventsourced.EventSourced"
VALUE_ENTITY = "cloudstate.valueentity.ValueEntity"
CRDT = "cloudstate.crdt.Crdt"
# What this proxy serves, in the order in which ProxyInfo tells it.
SUPPORTED_ENTITY_TYPES = (EVENT_SOURCED, VALUE_ENTITY, CRDT, ACTION)
STORED_ENTITY_TYPES = frozenset((EVENT_SOURCED, VALUE_ENTITY, CRDT))  # those that need the journal
# What reports call those that have instances, and which methods they cannot have.
TITLES = {EVENT_SOURCED: "an event sourced entity", VALUE_ENTITY: "a value entity", CRDT: "a CRDT entity"}

TYPE_URL_PREFIX = "type.googleapis.com/"

# Names as `_speedups.wire.KeyScanner` knows them; types missing here cannot be keys.
KEY_TYPES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_SINT32: "sint32",
    FieldDescriptor.TYPE_SINT64: "sint64",
    FieldDescriptor.TYPE_FIXED32: "fixed32",
    FieldDescriptor.TYPE_FIXED64: "fixed64",
    FieldDescriptor.TYPE_SFIXED32: "sfixed32",
    FieldDescriptor.TYPE_SFIXED64: "sfixed64",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_ENUM: "enum",
}


@dataclass(frozen=True, slots=True)
class MethodModel:
    """One method of an entity's service. `key_fields` and `enums` are the arguments of `_speedups.wire.KeyScanner`."""

    name: str
    path: bytes
    input_type: str
    output_type: str
    client_streaming: bool
    server_streaming: bool
    key_fields: tuple[tuple[int, str], ...]
    enums: dict[int, dict[int, str]]

    @property
    def input_type_url(self) -> str:
        return TYPE_URL_PREFIX + self.input_type

    @property
    def output_type_url(self) -> str:
        return TYPE_URL_PREFIX + self.output_type


@dataclass(frozen=True, slots=True)
class EntityModel:
    """One entity, or one action, which has neither persistence id nor keys nor passivation.

    `passivation_timeout` is in seconds, None = the proxy's own.
    """

    entity_type: str
    service_name: str
    persistence_id: str
    passivation_timeout: float | None
    methods: tuple[MethodModel, ...]


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """All that the user function serves. `warnings` are for the log, `bindings` for HTTP/JSON."""

    entities: tuple[EntityModel, ...]
    descriptors: Descriptors
    warnings: tuple[str, ...] = ()
    consumers: tuple[ConsumerModel, ...] = ()
    bindings: tuple[Binding, ...] = ()
    service_names: tuple[str, ...] = field(init=False)

    @property
    def is_stored(self) -> bool:
        """Whether any of the entities keeps state in the journal."""
        return any(entity.entity_type in STORED_ENTITY_TYPES for entity in self.entities)

    @property
    def is_replicated(self) -> bool:
        """Whether any of the entities shares its state with other nodes."""
        return any(entity.entity_type == CRDT for entity in self.entities)

    def __post_init__(self) -> None:
        object.__setattr__(self, "service_names", tuple(sorted(entity.service_name for entity in self.entities)))


def proxy_info() -> Any:
    """A `cloudstate.ProxyInfo`: what the proxy tells the user function about itself."""
    return cloudstate.ProxyInfo(
        protocol_major_version=PROTOCOL[0],
        protocol_minor_version=PROTOCOL[1],
        proxy_name=PROXY_NAME,
        proxy_version=VERSION,
        supported_entity_types=SUPPORTED_ENTITY_TYPES,
    )


def validate(entity_spec: Any, settings: Settings) -> ServiceModel:
    """The model of a discovered `cloudstate.EntitySpec`. Raises SpecError, the first rule that is broken."""
    warnings = list(_check_version(entity_spec.service_info, settings))
    built = descriptors.build(entity_spec.proto)
    if not entity_spec.entities:
        raise SpecError("The EntitySpec offers no entity; a user function has to serve at least one.")
    entities: list[EntityModel] = []
    for offer in entity_spec.entities:
        entities.append(_entity(offer, built, entities))
    consumers = _consumers(entities, built, warnings)
    bindings = http_rules.bindings(built, (entity.service_name for entity in entities))
    return ServiceModel(tuple(entities), built, tuple(warnings), consumers, bindings)


def _check_version(info: Any, settings: Settings) -> Iterator[str]:
    offered = (info.protocol_major_version, info.protocol_minor_version)
    if offered == PROTOCOL:
        return
    text = (
        f"The user function speaks protocol version {offered[0]}.{offered[1]}; "
        f"the only supported version is {PROTOCOL[0]}.{PROTOCOL[1]}."
    )
    if settings.protocol_compatibility_check:
        raise SpecError(f"{text} Use a support library for that version, or a proxy that speaks the other one.")
    yield f"{text} Going on because protocol_compatibility_check is false."


def _consumers(entities: list[EntityModel], built: Descriptors, warnings: list[str]) -> tuple[ConsumerModel, ...]:
    """What consumes event logs. Every service may, whatever its entity type."""
    logs = {each.persistence_id for each in entities if each.entity_type == EVENT_SOURCED}
    values = {each.persistence_id for each in entities if each.entity_type == VALUE_ENTITY}
    declared = Declarations(logs, values, warnings)
    for entity in entities:
        declared.add(_service(entity.service_name, built))
    return declared.consumers()


def _entity(offer: Any, built: Descriptors, earlier: list[EntityModel]) -> EntityModel:
    service = _service(offer.service_name, built)
    _check_entity_type(offer)
    _check_unique(offer, earlier)
    if offer.entity_type == ACTION:  # nothing else is checked (spec core 1.4 #12)
        methods = tuple(_method(service, method, ()) for method in service.methods)
        return EntityModel(ACTION, offer.service_name, offer.persistence_id, None, methods)
    persistence_id = _persistence_id(offer)
    _check_persistence_id(offer.service_name, persistence_id, earlier)
    _check_not_streamed(service, offer.entity_type)
    _check_has_key(service)
    methods = tuple(_method(service, each, descriptors.key_fields(each.input_type)) for each in service.methods)
    return EntityModel(offer.entity_type, offer.service_name, persistence_id, _passivation_timeout(offer), methods)


def _service(name: str, built: Descriptors) -> ServiceDescriptor:
    try:
        return built.pool.FindServiceByName(name)
    except KeyError:
        raise SpecError(f'The service "{name}" of an entity is not defined in the descriptor set.') from None


def _check_entity_type(offer: Any) -> None:
    if offer.entity_type not in SUPPORTED_ENTITY_TYPES:
        raise SpecError(
            f'The service "{offer.service_name}" has the entity type "{offer.entity_type}", which this proxy does not '
            f"support. Supported types: {','.join(SUPPORTED_ENTITY_TYPES)}."
        )


def _check_unique(offer: Any, earlier: list[EntityModel]) -> None:
    if any(entity.service_name == offer.service_name for entity in earlier):
        raise SpecError(f'The service "{offer.service_name}" is offered by two entities.')


def _persistence_id(offer: Any) -> str:
    """Libraries for CRDTs do not all know the name; the service's own is as good."""
    name: str = offer.persistence_id or (offer.service_name if offer.entity_type == CRDT else "")
    return name


def _check_persistence_id(service: str, name: str, earlier: list[EntityModel]) -> None:
    """It names stored state for ever, and `|` parts it from the entity key."""
    if not name:
        raise SpecError(f'The entity of service "{service}" has an empty persistence_id; give it a name for its state.')
    if "|" in name:
        raise SpecError(f'The persistence_id "{name}" of service "{service}" contains "|", which is reserved.')
    for entity in earlier:
        if entity.persistence_id == name and entity.entity_type in STORED_ENTITY_TYPES:
            raise SpecError(
                f'The services "{entity.service_name}" and "{service}" share the persistence_id "{name}"; '
                "their state would mix. Give each entity its own."
            )


def _check_not_streamed(service: ServiceDescriptor, entity_type: str) -> None:
    """Replies of CRDT entities may be streamed, but nothing else."""
    if entity_type == CRDT:
        broken, sort = _names(service, lambda method: bool(method.client_streaming)), "methods with streamed requests"
    else:
        broken = _names(service, lambda method: bool(method.client_streaming or method.server_streaming))
        sort = "streamed methods"
    if broken:
        raise SpecError(f'The service "{service.full_name}" is {TITLES[entity_type]} and cannot have {sort}: {broken}.')


def _check_has_key(service: ServiceDescriptor) -> None:
    broken = _names(service, lambda method: not descriptors.key_fields(method.input_type))
    if broken:
        raise SpecError(
            f'Methods of the service "{service.full_name}" without an entity key: {broken}. Mark at least one field of '
            "each input message with the option (cloudstate.entity_key) = true."
        )


def _names(service: ServiceDescriptor, broken: Callable[[MethodDescriptor], bool]) -> str:
    return ",".join(method.name for method in service.methods if broken(method))


def _method(service: ServiceDescriptor, method: MethodDescriptor, keys: Sequence[FieldDescriptor]) -> MethodModel:
    return MethodModel(
        name=method.name,
        path=f"/{service.full_name}/{method.name}".encode(),
        input_type=method.input_type.full_name,
        output_type=method.output_type.full_name,
        client_streaming=bool(method.client_streaming),
        server_streaming=bool(method.server_streaming),
        key_fields=tuple((key.number, _key_type(key, method.input_type)) for key in keys),
        enums={key.number: _enum_names(key.enum_type) for key in keys if key.enum_type is not None},
    )


def _key_type(key: FieldDescriptor, message: Descriptor) -> str:
    if key.is_repeated or key.type not in KEY_TYPES:
        sort = "repeated" if key.is_repeated else "bytes" if key.type == FieldDescriptor.TYPE_BYTES else "a message"
        raise SpecError(
            f'The field "{key.name}" of "{message.full_name}" cannot be an entity key: it is {sort}. '
            "Keys are strings, numbers, booleans or enums."
        )
    return KEY_TYPES[key.type]


def _enum_names(enum: EnumDescriptor) -> dict[int, str]:
    """Value names by number; of aliases, the first declared."""
    names: dict[int, str] = {}
    for value in enum.values:
        names.setdefault(value.number, value.name)
    return names


def _passivation_timeout(offer: Any) -> float | None:
    """Seconds; 0, which libraries send for "not set", is None."""
    if offer.passivation_strategy.WhichOneof("strategy") != "timeout":
        return None
    timeout_ms: int = offer.passivation_strategy.timeout.timeout
    if timeout_ms < 0:
        raise SpecError(f'The passivation timeout of service "{offer.service_name}" is negative: {timeout_ms} ms.')
    return timeout_ms / 1000 or None
