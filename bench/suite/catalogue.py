"""All works: the name to choose one by, its own measurements first, then its anchors.

A module brings its own in a table `MEASUREMENTS`; here they are put together. The rounds go over all that was chosen in
turn, so that works and anchors of one round have met the same weather.
"""

from __future__ import annotations

from stateside.bench import postgres
from stateside.bench.relayed import relayed
from stateside.bench.suite import carts, latency, lives, relaying, rivals, storing, transcoding, workers
from stateside.bench.works import Measurement

TABLES = [module.MEASUREMENTS for module in (relaying, rivals, latency, storing, lives, transcoding, carts, workers)]
MEASUREMENTS: dict[str, Measurement] = {
    name: measurement
    for table in (*TABLES, *postgres.WORKS.values(), {"relayed": relayed})
    for name, measurement in table.items()
}

GROUPS: dict[str, tuple[str, ...]] = {
    "relay": ("relay", "direct", "relay_grpc_aio", "relay_nghttpx", "relay_nginx", "relay_envoy"),
    "latency": ("half_load",),
    "sweep": ("sweep", "sweep_nghttpx", "sweep_grpc_aio", "sweep_direct"),
    "hot": ("hot", "hot_write"),
    "tls": ("relay_tls", "relay"),
    "access_log": ("access_log", "relay"),
    "forward": ("forward", "relay"),
    "action": ("action", "relay"),
    "durable": ("durable", "durable_2000", "commit_per_event", "durable_slow_disk", "commit_per_event_slow_disk"),
    "mixed": ("mixed",),
    "value": ("value", "durable"),
    "crdt": ("crdt",),
    "storm": ("storm",),
    "replay": ("replay",),
    "entities": ("entities",),
    "endless": ("endless",),
    "http": ("cart_json", "cart_envoy"),
    "cart": ("cart",),
    "workers": ("two_workers", "two_workers_json", "one_worker_json", "relay"),
    "relayed": ("relayed",),
    "postgres": ("synced", "single_rows", "replica_backlog", "replica_lag", "postgres_store"),
    "idle": ("idle",),
}

# What they tell does not depend on the weather, or they have rounds of their own; and they take long.
ONCE = frozenset({"entities", "relayed", "sweep_grpc_aio", "sweep_direct"})


def chosen(groups: list[str] | None) -> dict[str, Measurement]:
    """Measurements of these works, or of all, each once."""
    names = [name for group in groups or GROUPS for name in GROUPS[group]]
    return {name: MEASUREMENTS[name] for name in names}
