"""Python support library: write a stateful service as a class, serve it to a Cloudstate proxy.

A user function is a gRPC server that the proxy connects to. This package stands in that process: it describes the
registered entities to the proxy (discovery), receives their state and commands over one stream per entity instance,
calls the handlers and sends replies, events and side effects back. See docs/user-guide-event-sourced.md.
"""

from .action import Action, ActionContext
from .answers import Answer, Effect, Failure, Forward, NoReply, Reply
from .calls import Service, ServiceCall
from .cloud_events import CloudEvent
from .context import Context, EntityContext
from .crdt_counters import GCounter, PNCounter
from .crdt_entity import CancelContext, ChangeContext, CrdtContext, CrdtEntity, WriteConsistency
from .crdt_map import ORMap
from .crdt_sets import GSet, ORSet
from .crdt_values import Clock, Flag, LWWRegister, Vote
from .crdt_views import LWWMap, PNCounterMap
from .crdts import Crdt
from .errors import (
    ContextError,
    CrdtError,
    EntityFailure,
    Fail,
    RegistrationError,
    SerializationError,
    ServiceCallError,
    SupportError,
)
from .event_sourced import EventSourced, EventSourcedContext, event, snapshot, snapshot_handler
from .handlers import command
from .hooks import Hooks
from .json_values import json_type
from .metadata import Metadata
from .server import Stateside
from .value_entity import ValueEntity, ValueEntityContext

__all__ = [
    "EventSourced",
    "EventSourcedContext",
    "Action",
    "ActionContext",
    "ValueEntity",
    "ValueEntityContext",
    "CrdtEntity",
    "CrdtContext",
    "ChangeContext",
    "CancelContext",
    "WriteConsistency",
    "Crdt",
    "GCounter",
    "PNCounter",
    "GSet",
    "ORSet",
    "LWWRegister",
    "Clock",
    "Flag",
    "Vote",
    "ORMap",
    "LWWMap",
    "PNCounterMap",
    "command",
    "event",
    "snapshot",
    "snapshot_handler",
    "Context",
    "EntityContext",
    "Fail",
    "Answer",
    "Reply",
    "Forward",
    "Failure",
    "NoReply",
    "Effect",
    "Service",
    "ServiceCall",
    "Metadata",
    "CloudEvent",
    "json_type",
    "Stateside",
    "Hooks",
    "SupportError",
    "RegistrationError",
    "SerializationError",
    "ServiceCallError",
    "ContextError",
    "CrdtError",
    "EntityFailure",
]
