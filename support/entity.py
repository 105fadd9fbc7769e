"""The class decorators' common part: what a class says about the service it stands for."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, TypeVar

from google.protobuf.descriptor import ServiceDescriptor

from .calls import SERVICE_ATTRIBUTE
from .errors import RegistrationError

T = TypeVar("T")
ENTITY_ATTRIBUTE = "__stateside_entity__"


class Declaration:
    """Base of the class decorators. They only leave a note; it is read and checked at registration."""

    entity_type: ClassVar[str]
    """Protocol service, as discovery names it."""
    noun: ClassVar[str]
    """For messages."""
    passivate_after: timedelta | None = None

    def __init__(self, service: ServiceDescriptor, persistence_id: str = "") -> None:
        if not isinstance(service, ServiceDescriptor):
            raise RegistrationError(
                f"{type(self).__name__} needs a service descriptor, not {service!r}: verify the service's lookup name"
            )
        self.service: Any = service
        self.persistence_id = persistence_id or self.service.name

    def __call__(self, cls: type[T]) -> type[T]:
        if not isinstance(cls, type):
            raise RegistrationError(f"{type(self).__name__} decorates a class, not {cls!r}")
        if ENTITY_ATTRIBUTE in vars(cls):
            raise RegistrationError(f"{cls.__qualname__} is declared as an entity twice")
        setattr(cls, ENTITY_ATTRIBUTE, self)
        setattr(cls, SERVICE_ATTRIBUTE, self.service)
        return cls


class StatefulDeclaration(Declaration):
    """Base of the decorators of entities, which are stored and leave memory after a while."""

    def __init__(
        self,
        service: ServiceDescriptor,
        persistence_id: str,
        passivate_after: timedelta | None,
        allow_primitives: bool,
        allow_json: bool,
    ) -> None:
        super().__init__(service, persistence_id)
        if passivate_after is not None and passivate_after < timedelta(milliseconds=1):
            raise RegistrationError(
                f"{type(self).__name__}: passivate_after is at least a millisecond, not {passivate_after}"
            )
        self.passivate_after = passivate_after
        self.allow_primitives = allow_primitives
        self.allow_json = allow_json
