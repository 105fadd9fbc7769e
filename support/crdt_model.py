"""A CRDT entity class, read and checked once at registration, in the shape its streams need."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from google.protobuf.descriptor import MethodDescriptor

from .context import Context
from .crdt_entity import ChangeContext, CrdtContext, CrdtEntity, Root
from .crdt_map import ORMap
from .crdt_views import MapView
from .crdts import Crdt
from .entity_model import CommandHandler, EntityType, Handlers, command_handler, declaration_of
from .errors import RegistrationError
from .handlers import Invoke, where
from .serialization import MESSAGE_PREFIX, AnyCodec

_STATES = (Crdt, MapView)


class CrdtType(EntityType):
    """One registered CRDT entity class."""

    declaration: CrdtEntity

    def __init__(self, cls: type, *, type_url_prefix: str = MESSAGE_PREFIX) -> None:
        super().__init__(cls, declaration_of(cls), CrdtContext, ("command",))
        hints = list(_state_hints(cls, self.handlers))
        self.root = self._root(cls, hints)
        """The declared type, a CRDT's or a view's; None if there is none."""
        self.codec = AnyCodec(
            self.declaration.service.file.pool,
            {found for _, hint in hints for found in _classes_in(hint)},
            prefix=type_url_prefix,
            primitives=self.declaration.allow_primitives,
            json=self.declaration.allow_json,
        )

    @property
    def initial(self) -> Callable[[], Root] | None:
        """What makes the CRDT of an entity that has none."""
        return self.declaration.initial or self.root

    def shown(self, crdt: Crdt) -> Root:
        """The CRDT as handlers take it."""
        if self.root is not None and issubclass(self.root, MapView) and isinstance(crdt, ORMap):
            return self.root(crdt)
        return crdt

    def _root(self, cls: type, hints: list[tuple[str, Any]]) -> type[Root] | None:
        found: dict[type[Root], str] = {typing.get_origin(hint) or hint: label for label, hint in hints}
        if self.declaration.initial is not None:
            made = self.declaration.initial()
            if not isinstance(made, _STATES):
                raise RegistrationError(f"{cls.__qualname__}: initial makes a {type(made).__name__}, which is no CRDT")
            found.setdefault(type(made), "initial")
        if len(found) > 1:
            raise RegistrationError(
                f"{cls.__qualname__}: an entity has one CRDT, but there are "
                + " and ".join(f"{each.__name__} ({label})" for each, label in found.items())
            )
        return next(iter(found), None)

    def _check_methods(self, cls: type) -> None:
        streamed = [method.name for method in self.declaration.service.methods if method.client_streaming]
        if streamed:
            raise RegistrationError(
                f"{cls.__qualname__}: {self.service_name} has methods with streamed requests ({', '.join(streamed)}); "
                "a CRDT entity can stream responses only"
            )

    def _command(
        self, label: str, function: Callable[..., Any], method: MethodDescriptor, context: type[Context]
    ) -> CommandHandler:
        if inspect.isasyncgenfunction(function):
            raise RegistrationError(f"{label}: a streamed command is a plain generator, which goes on at each change")
        generator = inspect.isgeneratorfunction(function)
        if generator and not method.server_streaming:
            raise RegistrationError(f"{label} is a generator; {method.name} has one reply")
        handler = command_handler(label, function, method, context, states=_STATES, generator=generator)
        return handler.invoking(_streaming(handler.invoke)) if generator else handler


def _streaming(invoke: Invoke) -> Invoke:
    """A generator as a handler: what it yields first is the reply, each change lets it yield again, and what it returns
    is the last message.
    """

    def start(instance: Any, payload: Any, context: CrdtContext[Any]) -> Any:
        generator: Generator[Any, None, None] = invoke(instance, payload, context)
        try:
            first = next(generator)
        except StopIteration as end:
            return end.value
        if context.streamed:
            context._generator = generator
            context.on_change(lambda change: _next(generator, change))
            context.on_cancel(lambda _: generator.close())
        else:
            generator.close()
        return first

    return start


def _next(generator: Generator[Any, None, None], change: ChangeContext[Any]) -> Any:
    try:
        return next(generator)
    except StopIteration as end:
        change.end()
        return end.value


def _state_hints(cls: type, handlers: Handlers) -> Iterator[tuple[str, Any]]:
    """Annotations of handlers that name the type of the CRDT: `votes: Vote`, `ctx: CrdtContext[Vote]`."""
    for function, _ in handlers:
        hints = typing.get_type_hints(function)
        for name in inspect.signature(function).parameters:
            hint = hints.get(name)
            if typing.get_origin(hint) is CrdtContext:
                (hint,) = typing.get_args(hint)
            plain = typing.get_origin(hint) or hint
            if isinstance(plain, type) and issubclass(plain, _STATES) and plain is not Crdt:
                yield where(cls, function), hint


def _classes_in(hint: Any) -> Iterable[type]:
    """All classes an annotation names: of elements, keys, values."""
    arguments = typing.get_args(hint)
    if not arguments:
        return [hint] if isinstance(hint, type) and not issubclass(hint, _STATES) else []
    return [found for argument in arguments for found in _classes_in(argument)]
