"""Actions as an application writes them: a class without state, its command handlers, and the context of a command."""

from __future__ import annotations

from collections.abc import Collection

from google.protobuf.descriptor import ServiceDescriptor

from .calls import ServiceCall
from .context import Context
from .entity import Declaration
from .errors import ContextError


class Action(Declaration):
    """Class decorator: the class is an action. One instance of it serves all commands.

    service: descriptor of the gRPC service whose commands the class handles; its methods may be streamed.
    Register the class, if it is made without arguments, or an instance: `Stateside(Scoring(database))`.
    """

    entity_type = "cloudstate.action.ActionProtocol"
    noun = "an action"

    def __init__(self, *, service: ServiceDescriptor) -> None:
        super().__init__(service)


class ActionContext(Context):
    """Context of one call of an action. It has no entity: `entity_id` is empty, `command_id` 0.

    Where responses are streamed it lives as long as the stream; effects go along with the next response.
    """

    __slots__ = ("_streamed",)

    def __init__(self, command_name: str, metadata: bytes | None, served: Collection[str], streamed: bool) -> None:
        Context.__init__(self, "", 0, command_name, metadata, served)
        self._streamed = streamed

    def forward(self, call: ServiceCall) -> None:
        """Let another command answer the client. The handler then returns nothing. At most once per command.

        Raises ContextError where responses are streamed: there `yield Forward(call)`, as often as wanted.
        """
        if self._streamed:
            raise ContextError(f"{self.command_name}: responses are streamed; yield Forward(call) instead")
        Context.forward(self, call)

    def _take(self) -> tuple[bytes | None, list[bytes]]:
        """Forward and effects for the response at hand."""
        taken = self._forward, self._effects
        self._forward, self._effects = None, []
        return taken
