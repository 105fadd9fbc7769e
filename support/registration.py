"""What is registered, read by its kind: where a decorated class becomes what its streams or calls work with."""

from __future__ import annotations

from typing import Any

from .action import Action
from .action_model import ActionType
from .crdt_entity import CrdtEntity
from .crdt_model import CrdtType
from .entity import ENTITY_ATTRIBUTE
from .entity_model import declaration_of
from .event_sourced_model import EventSourcedType
from .serialization import MESSAGE_PREFIX
from .value_entity import ValueEntity
from .value_entity_model import ValueEntityType


def read(
    entity: Any, *, type_url_prefix: str = MESSAGE_PREFIX
) -> EventSourcedType | ValueEntityType | CrdtType | ActionType:
    """Read an entity class, an action class or an instance of one. Raises RegistrationError naming the class, the
    handler and what is allowed.
    """
    if isinstance(vars(type(entity)).get(ENTITY_ATTRIBUTE), Action):
        return ActionType(entity)
    match declaration_of(entity):
        case ValueEntity():
            return ValueEntityType(entity, type_url_prefix=type_url_prefix)
        case CrdtEntity():
            return CrdtType(entity, type_url_prefix=type_url_prefix)
        case Action():
            return ActionType(entity)
        case _:
            return EventSourcedType(entity, type_url_prefix=type_url_prefix)
