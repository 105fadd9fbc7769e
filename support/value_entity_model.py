"""A value entity class, read and checked once at registration, in the shape its streams need."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any

from .entity_model import EntityType, Handlers, declaration_of
from .handlers import payload_types
from .serialization import MESSAGE_PREFIX, AnyCodec
from .value_entity import ValueEntity, ValueEntityContext


class ValueEntityType(EntityType):
    """One registered value entity class."""

    declaration: ValueEntity

    def __init__(self, cls: type, *, type_url_prefix: str = MESSAGE_PREFIX) -> None:
        super().__init__(cls, declaration_of(cls), ValueEntityContext, ("command",))
        self.codec = AnyCodec(
            self.declaration.service.file.pool,
            set(_state_types(self.handlers)),
            prefix=type_url_prefix,
            primitives=self.declaration.allow_primitives,
            json=self.declaration.allow_json,
        )


def _state_types(handlers: Handlers) -> Iterator[type]:
    """Types of the value that annotations of handlers name: `ctx: ValueEntityContext[Cart]`."""
    for function, _ in handlers:
        yield from _named_in(function)


def _named_in(function: Callable[..., Any]) -> Iterator[type]:
    hints = typing.get_type_hints(function)
    for name in inspect.signature(function).parameters:
        hint = hints.get(name)
        if typing.get_origin(hint) is ValueEntityContext:
            for argument in typing.get_args(hint):
                yield from payload_types(argument)
