"""What registered classes of every kind have in common: their declaration, constructor and command handlers, read and
checked once.

Each kind adds its own in a module beside this one, such as `event_sourced_model`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, NoReturn

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from .answers import Answer
from .calls import find_method
from .context import Context, EntityContext
from .entity import ENTITY_ATTRIBUTE, Declaration
from .errors import RegistrationError
from .handlers import (
    Invoke,
    Mark,
    Parameters,
    Rules,
    bind,
    bind_constructor,
    marked,
    resolve,
    same_type,
    union_members,
    where,
)
from .serialization import MESSAGE_PREFIX

Handlers = list[tuple[Callable[..., Any], Mark]]


@dataclass(frozen=True, slots=True)
class CommandHandler:
    """How one unary rpc is answered."""

    name: str
    parse: Callable[[bytes], Message]
    invoke: Invoke
    is_async: bool
    reply_class: type[Message]
    reply_url: str
    empty_reply: bool
    """The reply is google.protobuf.Empty: a handler that returns nothing has answered."""

    def invoking(self, invoke: Invoke) -> CommandHandler:
        """The same with another way to the handler."""
        return replace(self, invoke=invoke)


class EntityType:
    """One registered entity class. Shared by all streams of its service; not changed after it was made."""

    def __init__(self, cls: type, declaration: Declaration, context: type[Context], kinds: Collection[str]) -> None:
        self.declaration = declaration
        self.entity_class = cls
        self.label = cls.__qualname__
        self.service_name: str = declaration.service.full_name
        self._check_methods(cls)
        self.create = _constructor(cls)
        self.handlers = handlers_of(cls, declaration, kinds)
        self.commands = {
            method.name: self._command(where(cls, function), function, method, context)
            for function, method in commands_of(cls, declaration, self.handlers)
        }

    def _check_methods(self, cls: type) -> None:
        """Raises RegistrationError for methods of the service that the kind of entity cannot have."""
        streamed = [m.name for m in self.declaration.service.methods if m.client_streaming or m.server_streaming]
        if streamed:
            raise RegistrationError(
                f"{cls.__qualname__}: {self.service_name} has streamed methods ({', '.join(streamed)}); "
                f"{self.declaration.noun} takes unary commands only"
            )

    def _command(
        self, label: str, function: Callable[..., Any], method: MethodDescriptor, context: type[Context]
    ) -> CommandHandler:
        """How one rpc is answered. Raises RegistrationError."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise RegistrationError(f"{label} is a generator; a command has one reply")
        return command_handler(label, function, method, context)

    def unhandled(self) -> list[str]:
        """Names of the service's methods that the class does not handle."""
        return [method.name for method in self.declaration.service.methods if method.name not in self.commands]


def declaration_of(cls: type) -> Declaration:
    """What the class decorator noted. Raises RegistrationError if there is none."""
    if not isinstance(cls, type):
        raise RegistrationError(f"{cls!r} is not a class; register the entity class itself")
    declaration = vars(cls).get(ENTITY_ATTRIBUTE)
    if not isinstance(declaration, Declaration):
        raise RegistrationError(
            f"{cls.__qualname__} is not declared as an entity. Did you mean to decorate it with @EventSourced, "
            "@ValueEntity, @CrdtEntity or @Action?"
        )
    return declaration


def handlers_of(cls: type, declaration: Declaration, kinds: Collection[str]) -> Handlers:
    """The marked methods of a class. Raises RegistrationError for a mark that belongs to another kind of class."""
    handlers = list(marked(cls))
    for function, mark in handlers:
        if mark.kind not in kinds:
            raise RegistrationError(
                f"{where(cls, function)}: @{mark.kind} is not for an @{type(declaration).__name__}; allowed are "
                + ", ".join(f"@{kind}" for kind in kinds)
            )
    return handlers


def _constructor(cls: type) -> Callable[[EntityContext], Any]:
    if cls.__init__ is object.__init__:  # type: ignore[misc]
        return lambda context: cls()
    rules = Rules(EntityContext, takes_payload=False, skips_defaults=True)
    return bind_constructor(cls, resolve(where(cls, cls.__init__), cls.__init__, rules))  # type: ignore[misc]


def commands_of(
    cls: type, declaration: Declaration, handlers: Handlers
) -> Iterator[tuple[Callable[..., Any], MethodDescriptor]]:
    """Command handlers with the rpcs they answer. Raises RegistrationError for no rpc, or one that has a handler."""
    methods = {method.name: method for method in declaration.service.methods}
    taken: dict[str, str] = {}
    for function, mark in handlers:
        if mark.kind != "command":
            continue
        label = where(cls, function)
        method = find_method(methods, mark.argument or function.__name__)
        if method is None:
            raise RegistrationError(
                f"{label}: service {declaration.service.full_name} has no rpc {mark.argument or function.__name__!r}; "
                f"it has {', '.join(methods)}"
            )
        if method.name in taken:
            raise RegistrationError(f"{label}: rpc {method.name} is already handled by {taken[method.name]}")
        taken[method.name] = label
        yield function, method


def command_handler(
    label: str,
    function: Callable[..., Any],
    method: MethodDescriptor,
    context: type[Context],
    *,
    states: tuple[type, ...] = (),
    generator: bool = False,
) -> CommandHandler:
    """Read a command handler. states: base classes of state that it may take. generator: its reply is what it yields
    first. Raises RegistrationError.
    """
    request: type[Message] = GetMessageClass(method.input_type)
    reply: type[Message] = GetMessageClass(method.output_type)
    parameters = resolve(label, function, Rules(context, payload=request, metadata=True, states=states))
    check_return(label, _yielded(parameters) if generator else parameters, reply)
    return CommandHandler(
        name=method.name,
        parse=request.FromString,
        invoke=bind(function, parameters),
        is_async=inspect.iscoroutinefunction(function),
        reply_class=reply,
        reply_url=reply_url(reply),
        empty_reply=reply.DESCRIPTOR.full_name == "google.protobuf.Empty",
    )


def _yielded(parameters: Parameters) -> Parameters:
    """Parameters of a generator whose result is what it yields."""
    yields = typing.get_args(parameters.returns)
    return replace(parameters, returns=yields[0] if yields else inspect.Signature.empty)


def reply_url(reply: type[Message]) -> str:
    """Type URL under which replies of a class are sent."""
    return f"{MESSAGE_PREFIX}/{reply.DESCRIPTOR.full_name}"


def check_return(label: str, parameters: Parameters, reply: type[Message]) -> None:
    """Raises RegistrationError if the annotated result is neither the reply, an answer around it, nor nothing."""
    if parameters.returns is inspect.Signature.empty:
        return
    for member in union_members(parameters.returns):
        if not _may_answer(member, reply):
            name = getattr(member, "__qualname__", repr(member))
            raise RegistrationError(
                f"{label} returns {name}; the rpc replies {reply.__qualname__}, None is for forwards"
            )


def _may_answer(hint: Any, reply: type[Message]) -> bool:
    if hint in (Any, None, NoneType, NoReturn) or same_type(hint, reply):
        return True
    return isinstance(hint, type) and issubclass(hint, Answer)
