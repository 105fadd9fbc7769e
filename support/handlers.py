"""Handlers of entity classes: the marks decorators leave, and how parameters are found for a handler.

All of it happens once, when a class is registered. Calling a handler then is one plain call with the right arguments.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar, overload

from google.protobuf.message import Message

from .context import Context, EntityContext
from .errors import RegistrationError
from .metadata import Metadata

F = TypeVar("F", bound=Callable[..., Any])
MARK = "__stateside_handler__"

Invoke = Callable[[Any, Any, Any], Any]
"""(entity instance, payload, context) -> what the handler returns."""


@overload
def command(handler: F, /) -> F: ...
@overload
def command(name: str | None = None, /) -> Callable[[F], F]: ...
def command(handler: Any = None, /) -> Any:
    """Declare a command handler of an entity, sync or async.

    It answers the rpc whose name is the handler's in CamelCase (`add_item` -> `AddItem`), or the one named:
    `@command("AddItem")`. Parameters are found by their annotations, in any order: the command message, the context,
    `Metadata`, `entity_id: str`. It returns the reply; nothing if it forwards, or if the reply is
    google.protobuf.Empty.
    """
    return mark("command", handler, str)


@dataclass(frozen=True, slots=True)
class Mark:
    kind: str
    """command, event, snapshot, snapshot_handler."""
    argument: Any
    """Explicit rpc name or payload type, or None."""


def mark(kind: str, target: Any, argument_type: type | None) -> Any:
    """Body of a decorator that can stand bare (`target` is the function) or with one argument of `argument_type`."""
    if inspect.isfunction(target):
        return _leave_mark(target, Mark(kind, None))
    if isinstance(target, staticmethod | classmethod | property):
        raise RegistrationError(f"@{kind} stands on a {type(target).__name__}; a handler is a plain method")
    if target is not None and (argument_type is None or not isinstance(target, argument_type)):
        expected = f"a {argument_type.__name__}" if argument_type else "nothing"
        raise RegistrationError(f"@{kind} takes {expected}, not {target!r}")
    return lambda function: _leave_mark(function, Mark(kind, target))


def _leave_mark(function: Any, new: Mark) -> Any:
    old: Mark | None = getattr(function, MARK, None)
    name = getattr(function, "__qualname__", repr(function))
    if not inspect.isfunction(function):
        raise RegistrationError(f"@{new.kind} stands on {name}; a handler is a plain method")
    if old is not None:
        raise RegistrationError(f"{name} is declared twice: as @{old.kind} and as @{new.kind}")
    setattr(function, MARK, new)
    return function


def marked(cls: type) -> Iterator[tuple[Callable[..., Any], Mark]]:
    """Handlers of a class with their marks, inherited ones too, in order of their names."""
    for name in dir(cls):
        raw = inspect.getattr_static(cls, name)
        function = raw.__func__ if isinstance(raw, staticmethod | classmethod) else raw
        found = getattr(function, MARK, None) if inspect.isfunction(function) else None
        if found is None:
            continue
        if function is not raw:
            raise RegistrationError(f"{where(cls, function)}: a handler is a plain method, not a {type(raw).__name__}")
        yield function, found


def where(cls: type, function: Callable[..., Any]) -> str:
    """`Class.handler`, for messages."""
    return f"{cls.__qualname__}.{function.__name__}"


class Slot(Enum):
    """What a parameter of a handler receives."""

    PAYLOAD = "payload"
    CONTEXT = "context"
    ENTITY_ID = "entity id"
    METADATA = "metadata"
    STATE = "state"


@dataclass(frozen=True, slots=True)
class Rules:
    """What handlers of one kind may take.

    payload: the type of the payload if it is fixed (a command), None if the annotation decides (an event).
    takes_payload: False for snapshot methods and constructors. metadata: Metadata can be injected.
    skips_defaults: parameters with a default that nothing fits keep it (constructors, notably of dataclasses).
    streamed: the payload is an async iterator of its type. entity: there is one, whose id can be injected.
    states: base classes of the state that can be injected (CRDTs).
    """

    context: type
    payload: type | None = None
    takes_payload: bool = True
    metadata: bool = False
    skips_defaults: bool = False
    streamed: bool = False
    entity: bool = True
    states: tuple[type, ...] = ()

    def allowed(self) -> str:
        """The choice, for messages."""
        payload = f"the payload {self.payload.__qualname__}" if self.payload else "the payload"
        if self.streamed and self.payload:
            payload = f"the payloads AsyncIterator[{self.payload.__qualname__}]"
        choices = [payload] if self.takes_payload else []
        choices += [f"a context {self.context.__qualname__}", *["entity_id: str"] * self.entity]
        return ", ".join(choices + ["Metadata"] * self.metadata + ["the CRDT"] * bool(self.states))


@dataclass(frozen=True, slots=True)
class Parameters:
    """The resolved parameters of one handler."""

    slots: dict[str, Slot]
    """By parameter name, in order."""
    payload: tuple[type, ...]
    """Annotated types of the payload; empty when the handler takes none or has no annotation for it."""
    returns: Any
    """Annotated return type; `inspect.Signature.empty` when there is none."""


def resolve(label: str, function: Callable[..., Any], rules: Rules) -> Parameters:
    """Find out what each parameter receives. Raises RegistrationError naming the parameter and what is allowed."""
    hints = _hints(label, function)
    slots: dict[str, Slot] = {}
    payload: tuple[type, ...] = ()
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        hint = hints.get(parameter.name, Any)
        slot = _slot(label, parameter, hint, rules)
        if slot is None:
            continue
        if slot in slots.values():
            raise RegistrationError(f"{label}: parameter {parameter.name!r} is a second {slot.value}")
        if slot is Slot.PAYLOAD and hint is not Any:
            payload = payload_types(hint)
        slots[parameter.name] = slot
    return Parameters(slots, payload, hints.get("return", inspect.Signature.empty))


def _hints(label: str, function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception as error:
        raise RegistrationError(
            f"{label}: cannot resolve its annotations ({error}); they have to name what the module has at run time"
        ) from error


def _slot(label: str, parameter: inspect.Parameter, hint: Any, rules: Rules) -> Slot | None:
    """What one parameter receives; None if it keeps its default."""
    name, empty = parameter.name, hint is Any
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.POSITIONAL_ONLY):
        raise RegistrationError(
            f"{label}: parameter {name!r} is {parameter.kind.description}; allowed are plain parameters"
        )
    if name == "entity_id" and rules.entity:
        if not empty and hint is not str:
            raise RegistrationError(f"{label}: parameter 'entity_id' is a str, not {_name(hint)}")
        return Slot.ENTITY_ID
    plain = typing.get_origin(hint) or hint
    if isinstance(plain, type) and issubclass(plain, Context | EntityContext):
        if issubclass(rules.context, plain):
            return Slot.CONTEXT
        raise RegistrationError(
            f"{label}: parameter {name!r} is a {_name(hint)}; the context here is {_name(rules.context)}"
        )
    if empty and name in ("ctx", "context"):
        return Slot.CONTEXT
    if rules.states and isinstance(plain, type) and issubclass(plain, rules.states):
        return Slot.STATE
    if hint is Metadata and rules.metadata:
        return Slot.METADATA
    if rules.takes_payload and (empty or _payload_fits(hint, rules)):
        return Slot.PAYLOAD
    if rules.skips_defaults and parameter.default is not parameter.empty:
        return None
    raise RegistrationError(
        f"{label}: parameter {name!r} of type {_name(hint)} is not supported; allowed are {rules.allowed()}"
    )


def _payload_fits(hint: Any, rules: Rules) -> bool:
    payload = rules.payload
    if rules.streamed:
        if typing.get_origin(hint) not in (AsyncIterator, AsyncIterable):
            return False
        hint = typing.get_args(hint)[0]
    types_ = payload_types(hint)
    if payload is None:
        return bool(types_)
    return len(types_) == 1 and same_type(types_[0], payload)


def same_type(left: Any, right: Any) -> bool:
    """Whether two types are one; message classes are compared by the full name of their message."""
    if isinstance(left, type) and isinstance(right, type) and issubclass(left, Message) and issubclass(right, Message):
        return bool(left.DESCRIPTOR.full_name == right.DESCRIPTOR.full_name)
    return left is right


def payload_types(hint: Any) -> tuple[type, ...]:
    """The classes an annotation of a payload names: one, or those of a union; empty if it names anything else."""
    members = tuple(typing.get_origin(member) or member for member in union_members(hint))
    return members if all(isinstance(member, type) for member in members) else ()


def union_members(hint: Any) -> tuple[Any, ...]:
    """Members of a union; the type itself if it is none."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _name(hint: Any) -> str:
    return getattr(hint, "__qualname__", None) or repr(hint)


_SHAPES: dict[tuple[Slot, ...], Callable[[Callable[..., Any]], Invoke]] = {
    (): lambda function: lambda instance, payload, context: function(instance),
    (Slot.PAYLOAD,): lambda function: lambda instance, payload, context: function(instance, payload),
    (Slot.CONTEXT,): lambda function: lambda instance, payload, context: function(instance, context),
    (Slot.PAYLOAD, Slot.CONTEXT): lambda function: (
        lambda instance, payload, context: function(instance, payload, context)
    ),
    (Slot.PAYLOAD, Slot.STATE): lambda function: (
        lambda instance, payload, context: function(instance, payload, context.crdt)
    ),
    (Slot.CONTEXT, Slot.PAYLOAD): lambda function: (
        lambda instance, payload, context: function(instance, context, payload)
    ),
}
"""Callers of the usual parameter lists; any other list goes through `_GETTERS`."""

_GETTERS: dict[Slot, Callable[[Any, Any], Any]] = {
    Slot.PAYLOAD: lambda payload, context: payload,
    Slot.CONTEXT: lambda payload, context: context,
    Slot.ENTITY_ID: lambda payload, context: context.entity_id,
    Slot.METADATA: lambda payload, context: context.metadata,
    Slot.STATE: lambda payload, context: context.crdt,
}


def bind(function: Callable[..., Any], parameters: Parameters) -> Invoke:
    """A caller that gives each parameter of `function` what its slot says."""
    slots = tuple(parameters.slots.values())
    shape = _SHAPES.get(slots)
    if shape is not None:
        return shape(function)
    getters = [_GETTERS[slot] for slot in slots]
    return lambda instance, payload, context: function(instance, *[get(payload, context) for get in getters])


def bind_constructor(cls: type, parameters: Parameters) -> Callable[[EntityContext], Any]:
    """A maker of entity instances."""
    getters = {name: _GETTERS[slot] for name, slot in parameters.slots.items()}
    if not getters:
        return lambda context: cls()
    return lambda context: cls(**{name: get(None, context) for name, get in getters.items()})
