"""Answers of command handlers that are more than the reply message.

A handler returns its reply message as it is; one of these where metadata, a forward or side effects come with it. In
streams of responses of an action each response is one of these or a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from .calls import ServiceCall
from .metadata import EMPTY_METADATA, Metadata


@dataclass(frozen=True, slots=True)
class Effect:
    """A side effect: a command to run after this one. synchronous: the client gets its answer when it is done."""

    call: ServiceCall
    synchronous: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Base of all answers. Not to be returned itself."""


@dataclass(frozen=True, slots=True)
class Reply(Answer):
    """A reply message, with metadata that becomes response headers for the client, and side effects."""

    message: Message
    metadata: Metadata = EMPTY_METADATA
    effects: Sequence[Effect] = ()


@dataclass(frozen=True, slots=True)
class Forward(Answer):
    """Another command answers the client."""

    call: ServiceCall
    effects: Sequence[Effect] = ()


@dataclass(frozen=True, slots=True)
class Failure(Answer):
    """The client sees the text. In a stream of responses it does not end the handler, as `ctx.fail` does."""

    description: str
    effects: Sequence[Effect] = ()


@dataclass(frozen=True, slots=True)
class NoReply(Answer):
    """Nothing for the client. Actions only: an entity answers every command."""

    effects: Sequence[Effect] = ()
