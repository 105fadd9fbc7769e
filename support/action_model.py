"""An action class, read and checked once at registration, in the shape its calls need."""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from .action import Action, ActionContext
from .entity_model import check_return, commands_of, declaration_of, handlers_of, reply_url
from .errors import RegistrationError
from .handlers import Invoke, Parameters, Rules, bind, resolve, where

ANY = "google.protobuf.Any"


class Shape(Enum):
    """Whether requests and responses are streamed."""

    UNARY = (False, False)
    STREAMED_IN = (True, False)
    STREAMED_OUT = (False, True)
    STREAMED = (True, True)

    @property
    def streams_in(self) -> bool:
        return self.value[0]

    @property
    def streams_out(self) -> bool:
        return self.value[1]


@dataclass(frozen=True, slots=True)
class ActionHandler:
    """How one rpc is answered."""

    name: str
    service_name: str
    shape: Shape
    parse: Callable[[str, bytes], Message]
    """(type URL, value) of a payload -> request."""
    invoke: Invoke
    is_async: bool
    reply_class: type[Message]
    pack: Callable[[Any], tuple[str, bytes]]
    """Reply -> (type URL, value) of its payload."""
    empty_reply: bool
    """The reply is google.protobuf.Empty: a unary handler that returns nothing has answered."""


class ActionType:
    """One registered action. Shared by all its calls; not changed after it was made."""

    declaration: Action

    def __init__(self, action: Any) -> None:
        cls = action if isinstance(action, type) else type(action)
        self.declaration = typing.cast(Action, declaration_of(cls))
        self.label = cls.__qualname__
        self.service_name: str = self.declaration.service.full_name
        handlers = handlers_of(cls, self.declaration, ("command",))
        self.commands = {
            method.name: _handler(where(cls, function), function, method)
            for function, method in commands_of(cls, self.declaration, handlers)
        }
        self.instance = _make(cls) if action is cls else action

    def unhandled(self) -> list[str]:
        """Names of the service's methods that the class does not handle."""
        return [method.name for method in self.declaration.service.methods if method.name not in self.commands]


def _make(cls: Any) -> Any:
    if cls.__init__ is not object.__init__:
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        needed = [p.name for p in parameters if p.default is p.empty and p.kind not in variable]
        if needed:
            raise RegistrationError(
                f"{cls.__qualname__} is not made without arguments ({', '.join(needed)}); register an instance of it"
            )
    return cls()


def _handler(label: str, function: Callable[..., Any], method: MethodDescriptor) -> ActionHandler:
    request: type[Message] = GetMessageClass(method.input_type)
    reply: type[Message] = GetMessageClass(method.output_type)
    shape = Shape((method.client_streaming, method.server_streaming))
    rules = Rules(ActionContext, payload=request, metadata=True, streamed=shape.streams_in, entity=False)
    parameters = resolve(label, function, rules)
    _check_shape(label, function, shape, request, reply, parameters)
    return ActionHandler(
        name=method.name,
        service_name=method.containing_service.full_name,
        shape=shape,
        parse=_parser(request),
        invoke=bind(function, parameters),
        is_async=inspect.iscoroutinefunction(function),
        reply_class=reply,
        pack=_packer(reply),
        empty_reply=reply.DESCRIPTOR.full_name == "google.protobuf.Empty",
    )


def _check_shape(
    label: str,
    function: Callable[..., Any],
    shape: Shape,
    request: type[Message],
    reply: type[Message],
    parameters: Parameters,
) -> None:
    """Raises RegistrationError unless the function is of the kind its rpc needs."""
    generates = inspect.isasyncgenfunction(function)
    if shape.streams_out:
        if not generates:
            raise RegistrationError(f"{label} has to be an async generator (async def with yield): its rpc streams out")
        check_return(label, _yielded(label, parameters), reply)
        return
    if generates or inspect.isgeneratorfunction(function):
        raise RegistrationError(f"{label} is a generator; its rpc has one reply")
    if shape.streams_in and not inspect.iscoroutinefunction(function):
        raise RegistrationError(
            f"{label} has to be async def, taking AsyncIterator[{request.__qualname__}]: its rpc streams in"
        )
    check_return(label, parameters, reply)


def _yielded(label: str, parameters: Parameters) -> Parameters:
    """Parameters with what a generator yields in place of what it returns."""
    returns = parameters.returns
    if returns in (inspect.Signature.empty, Any):
        return Parameters(parameters.slots, parameters.payload, inspect.Signature.empty)
    if typing.get_origin(returns) not in (AsyncIterator, AsyncGenerator, AsyncIterable):
        raise RegistrationError(f"{label} returns {returns!r}; an async generator returns AsyncIterator[...]")
    return Parameters(parameters.slots, parameters.payload, typing.get_args(returns)[0])


def _parser(request: type[Message]) -> Callable[[str, bytes], Message]:
    """A payload as the request. Where that is an Any, the payload is this Any itself, not another one inside it."""
    if request.DESCRIPTOR.full_name == ANY:
        return lambda type_url, value: request(type_url=type_url, value=value)
    parse = request.FromString
    return lambda type_url, value: parse(value)


def _packer(reply: type[Message]) -> Callable[[Any], tuple[str, bytes]]:
    if reply.DESCRIPTOR.full_name == ANY:
        return lambda message: (message.type_url, message.value)
    type_url = reply_url(reply)
    return lambda message: (type_url, message.SerializeToString())
