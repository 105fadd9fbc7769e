"""Errors of the support library: one hierarchy, so that an application can catch all of them by `SupportError`."""


class SupportError(Exception):
    """Base of every error raised by the support library."""


class RegistrationError(SupportError):
    """An entity class cannot be served; found at start-up. Names the class, the handler and what is allowed."""


class SerializationError(SupportError):
    """A value cannot be written into, or read from, a google.protobuf.Any by the Cloudstate conventions."""


class ServiceCallError(SupportError):
    """The target of a forward or side effect does not exist, takes another message, or is not served here."""


class ContextError(SupportError):
    """A context was used in a way its command does not allow: after its end, after `fail`, a second forward."""


class CrdtError(SupportError):
    """A CRDT was used as its type, or the moment, does not allow: a GCounter decremented, a change after a command."""


class Fail(SupportError):
    """The command is refused; the client sees the text as it stands.

    Raised by `Context.fail`; a command handler may as well raise it itself. Events, side effects and a forward of the
    command are dropped.
    """

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.description = description


class EntityFailure(SupportError):
    """The stream of one entity instance has to end with a `Failure` (protocol, cloudstate.Failure).

    `command_id` is 0 when no command is to blame. The proxy starts the entity again from its journal; the client of
    the command sees only that the entity failed.
    """

    def __init__(self, description: str, command_id: int = 0) -> None:
        super().__init__(description)
        self.description = description
        self.command_id = command_id
