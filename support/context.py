"""What a handler may ask for besides its message: who it works for, and how the command ends.

`Context` is what all entity types share; each type adds its own (for event sourced entities `emit`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NoReturn

from .calls import ServiceCall
from .cloud_events import CloudEvent
from .errors import ContextError, Fail
from .metadata import Metadata


class EntityContext:
    """Given to constructors, event handlers and snapshot handlers."""

    __slots__ = ("entity_id", "sequence")

    def __init__(self, entity_id: str, sequence: int = 0) -> None:
        self.entity_id = entity_id
        """Key of the entity instance."""
        self.sequence = sequence
        """Number of the event at hand, or of the last event a snapshot covers; 0 in a constructor."""


class Context:
    """Context of one command. It dies with the command: any later call raises ContextError."""

    __slots__ = (
        "_closed",
        "_effects",
        "_failure",
        "_forward",
        "_metadata",
        "_served",
        "command_id",
        "command_name",
        "entity_id",
    )

    def __init__(
        self, entity_id: str, command_id: int, command_name: str, metadata: bytes | None, served: Collection[str]
    ) -> None:
        self.entity_id = entity_id
        """Key of the entity instance."""
        self.command_id = command_id
        """Number of the command on this stream."""
        self.command_name = command_name
        """Name of the rpc, such as "AddItem"."""
        self._metadata = metadata
        self._served = served
        self._effects: list[bytes] = []
        self._forward: bytes | None = None
        self._failure: str | None = None
        self._closed = False

    @property
    def metadata(self) -> Metadata:
        """Metadata of the command. Empty for event sourced entities: protocol 0.2 sends them none."""
        return Metadata.parse(self._metadata)

    @property
    def cloud_event(self) -> CloudEvent | None:
        """The CloudEvent that the metadata carries, if any."""
        return CloudEvent.of(self.metadata)

    def fail(self, description: str) -> NoReturn:
        """Refuse the command. Raises Fail; the command fails even if the handler catches it.

        description: what the client sees, as it stands. What the command did so far is dropped.
        """
        self._check_open()
        self._failure = str(description)
        raise Fail(self._failure)

    def forward(self, call: ServiceCall) -> None:
        """Let another command answer the client. The handler then returns nothing. At most once per command."""
        self._check_open()
        self._set_forward(call)

    def effect(self, call: ServiceCall, *, synchronous: bool = False) -> None:
        """Let another command run after this one. synchronous: the client gets its answer when the effect is done."""
        self._check_open()
        self._add_effect(call, synchronous)

    def _set_forward(self, call: ServiceCall) -> None:
        if self._forward is not None:
            raise ContextError(f"{self.command_name}: the command was already forwarded")
        call.check(self._served)
        self._forward = call.to_forward()

    def _add_effect(self, call: ServiceCall, synchronous: bool) -> None:
        call.check(self._served)
        self._effects.append(call.to_side_effect(synchronous))

    def _check_open(self) -> None:
        if self._closed:
            raise ContextError(f"{self.command_name}: the context of a command cannot be used after the command ended")
        if self._failure is not None:
            raise ContextError(f"{self.command_name}: the command already failed: {self._failure}")
