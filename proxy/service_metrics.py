"""What is counted of one service, incremented in place by who moves a command.

Compiled (service_metrics.pxd has its shape): a count is one addition. metrics.py names the figures for Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stateside.proxy.observations import FINE_SECONDS, REPLAYED_EVENTS, Histogram, Refusals, Summary

if TYPE_CHECKING:
    from stateside.proxy.metrics import Kind


class EntityMetrics:
    """All figures of one service with entity instances; those that its entity type does not have stay 0."""

    active: Callable[[], int]
    """How many instances there are; given by whoever keeps them."""
    highest_stash_depth: int
    activated_entities: int
    passivated_entities: int
    failed_entities: int
    received_commands: int
    stashed_commands: int
    unstashed_commands: int
    refused_commands: int
    failed_commands: int
    completed_commands: int
    persisted_events: int
    persisted_event_bytes: int
    loaded_events: int
    loaded_event_bytes: int
    persisted_snapshots: int
    persisted_snapshot_bytes: int
    loaded_snapshots: int
    loaded_snapshot_bytes: int
    persisted_values: int
    persisted_value_bytes: int
    updates: int
    refused_updates: int
    deletions: int
    sent_deltas: int
    streamed_calls: int
    streamed_messages: int
    cancelled_calls: int

    def __init__(self, entity_name: str, kind: Kind, refusals: Refusals | None = None) -> None:
        self.entity_name = entity_name
        self.kind = kind
        self.refusals = refusals or Refusals()
        self.active = int
        self.relay_time = Histogram(FINE_SECONDS)
        self.replayed_events = Histogram(REPLAYED_EVENTS)
        self.recovery_time = Histogram()
        self.command_stash_time = Histogram()
        self.command_processing_time = Histogram()
        self.command_total_time = Histogram()
        self.persist_time = Histogram()
        self.entity_active_time = Summary()


class ActionMetrics:
    """All figures of one action."""

    calls: int
    failed_calls: int
    cancelled_calls: int
    messages_in: int
    messages_out: int
    active_calls: int

    def __init__(self, service: str) -> None:
        self.service = service
        self.user_function_time = Histogram(FINE_SECONDS)
