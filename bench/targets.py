"""The lines of the report: which figure of which measurement, against which anchor of the same rounds, and what it has
to reach. Bounds are those that the project has set itself; a line without one is for information."""

from __future__ import annotations

from dataclasses import dataclass

Figure = tuple[str, str]  # measurement, name of its figure


@dataclass(frozen=True, slots=True)
class Target:
    """`bound` is of the ratio if `relative`, else of the figure; None = for information only."""

    work: str
    figure: Figure
    unit: str
    bound: float | None = None
    at_least: bool = True
    relative: bool = False
    anchor: str = ""
    anchor_figure: Figure | None = None

    def text(self) -> str:
        if self.bound is None:
            return ""
        return f"{'>=' if self.at_least else '<='} {self.bound:,g}" + (" x anchor" if self.relative else "")


READ = "read-only command, 64 entity streams, 128 in flight"
DIRECT = "the user function itself, called directly"
HALF_LOAD = "the read-only command at half of the highest rate"
HOT = "read-only commands for one hot entity, 128 in flight"
HOT_WRITE = "durable writes of one hot entity, 128 in flight"
TLS = "the read-only command of clients that speak TLS"
WRITE = "durable write of a 100 B event, 1000 in flight, 1000 entities"
WRITE_2000 = "the same, 2000 in flight"
SLOW_WRITE = "the same where every flush takes 1 ms longer"
MIXED = "75 % reads, 25 % durable writes, 1000 entities by zipf, 512 in flight"
VALUE = "durable update of a 100 B value, 1000 in flight, 1000 entities"
COUNTER = "durable increment of one hot CRDT counter, 128 in flight"
FORWARD = "the read-only command, answered by a forward to another"
ACTION = "unary action, 128 in flight"
ENDLESS = "streamed-out action, 2 streams, 100 B messages"
ACCESS_LOG = "the read-only command, with a line of the access log"
STORM = "first commands of 20 k entities, all at once"
REPLAY = "replay of a 100 k event entity, from command to answer"
CART = "shopping cart through the Python support library"
CART_JSON = "cart read as JSON over HTTP/1.1, 64 connections"
MANY = "100 k active entities, 100 streams a connection"
RELAYED = "command on the wrong of two workers, relayed to the other"
TWO = "two workers, read-only command, half of them relayed"
TWO_JSON = "two workers, cart read as JSON, 512 connections"
SYNC = "durable write that waits for Postgres too, 1000 in flight"
ASYNC = "asynchronous replication to Postgres"
STORE = "durable write with Postgres as only store, 1000 in flight"
IDLE = "idle proxy"
START = "ready"

GRPC_AIO = "grpc.aio relay"
NGHTTPX = "nghttpx -> nghttpd"
NGINX = "nginx grpc_pass, one worker"
ENVOY_GRPC = "Envoy, one thread"
ENVOY = "Envoy's transcoder, one thread"
COMMIT = "one LMDB commit an event"
EVENT_WRITE = "durable write of an event"
READ_ONLY = "read-only command"
NOBODY = "direct call to the user function"
ONE = "one worker"
INSERTS = "asyncpg's single-row inserts, 16 connections"

PER_S, CPU = "calls_per_s", "proxy_cpu_us"
RATE_UNIT, CPU_UNIT = "commands/s", "µs proxy CPU"


def against(
    work: str,
    figure: Figure,
    unit: str,
    bound: float | None,
    anchor: str,
    anchor_measurement: str,
    *,
    at_least: bool = True,
    anchor_name: str = "",
) -> Target:
    """Held against the figure of the same name of an anchor."""
    found = (anchor_measurement, anchor_name or figure[1])
    return Target(work, figure, unit, bound, at_least, True, anchor, found)


def plain(work: str, figure: Figure, unit: str, bound: float | None = None, *, at_least: bool = True) -> Target:
    return Target(work, figure, unit, bound, at_least)


def cost(work: str, measurement: str, bound: float | None = None, anchor: str = READ_ONLY, of: str = "relay") -> Target:
    """CPU of the proxy, at most so many times that of another measurement."""
    return against(work, (measurement, CPU), CPU_UNIT, bound, anchor, of, at_least=False)


TARGETS = [
    against(READ, ("relay", PER_S), RATE_UNIT, 30, GRPC_AIO, "relay_grpc_aio"),
    against(READ, ("relay", PER_S), RATE_UNIT, 1.0, NGHTTPX, "relay_nghttpx"),
    against(READ, ("relay", PER_S), RATE_UNIT, None, NGINX, "relay_nginx"),
    against(READ, ("relay", PER_S), RATE_UNIT, None, ENVOY_GRPC, "relay_envoy"),
    against(READ, ("relay", PER_S), RATE_UNIT, None, NOBODY, "direct"),
    plain(READ, ("relay", CPU), CPU_UNIT, 10, at_least=False),
    against(READ, ("relay", "p50_us"), "µs p50", None, GRPC_AIO, "relay_grpc_aio"),
    against(READ, ("relay", "p99_us"), "µs p99", None, GRPC_AIO, "relay_grpc_aio"),
    plain(HALF_LOAD, ("half_load", "p50_added_us"), "µs added, p50", 100, at_least=False),
    plain(HALF_LOAD, ("half_load", "p99_added_us"), "µs added, p99", 700, at_least=False),
    Target(
        HALF_LOAD,
        ("half_load", "p50_us"),
        "µs p50",
        anchor=NOBODY,
        anchor_figure=("half_load", "direct_p50_us"),
    ),
    Target(
        HALF_LOAD,
        ("half_load", "p99_us"),
        "µs p99",
        anchor=NOBODY,
        anchor_figure=("half_load", "direct_p99_us"),
    ),
    plain(HOT, ("hot", PER_S), RATE_UNIT, 30_000),
    plain(HOT, ("hot", CPU), CPU_UNIT),
    plain(HOT_WRITE, ("hot_write", PER_S), RATE_UNIT),
    against(TLS, ("relay_tls", PER_S), RATE_UNIT, 0.65, READ_ONLY, "relay"),
    cost(TLS, "relay_tls"),
    against(ACCESS_LOG, ("access_log", PER_S), RATE_UNIT, 0.97, READ_ONLY, "relay"),
    cost(ACCESS_LOG, "access_log"),
    # A forwarded command is two commands, and the second may cost a fifth more than the first.
    cost(FORWARD, "forward", 2.2),
    against(FORWARD, ("forward", PER_S), RATE_UNIT, None, READ_ONLY, "relay"),
    against(ACTION, ("action", PER_S), "calls/s", 0.8, READ_ONLY, "relay"),
    cost(ACTION, "action"),
    plain(WRITE, ("durable", PER_S), RATE_UNIT, 20_000),
    against(WRITE, ("durable", PER_S), RATE_UNIT, 25, COMMIT, "commit_per_event", anchor_name="commits_per_s"),
    plain(WRITE, ("durable", CPU), CPU_UNIT),
    plain(WRITE, ("durable", "p50_us"), "µs p50"),
    plain(WRITE, ("durable", "p99_us"), "µs p99"),
    plain(WRITE_2000, ("durable_2000", PER_S), RATE_UNIT, 40_000),
    plain(WRITE_2000, ("durable_2000", "p99_us"), "µs p99"),
    against(
        SLOW_WRITE,
        ("durable_slow_disk", PER_S),
        RATE_UNIT,
        25,
        COMMIT,
        "commit_per_event_slow_disk",
        anchor_name="commits_per_s",
    ),
    plain(MIXED, ("mixed", PER_S), RATE_UNIT),
    plain(MIXED, ("mixed", CPU), CPU_UNIT),
    plain(MIXED, ("mixed", "p99_us"), "µs p99"),
    against(VALUE, ("value", PER_S), RATE_UNIT, 0.85, EVENT_WRITE, "durable"),
    cost(VALUE, "value", None, EVENT_WRITE, "durable"),
    plain(COUNTER, ("crdt", PER_S), "increments/s", 20_000),
    plain(COUNTER, ("crdt", CPU), CPU_UNIT),
    plain(COUNTER, ("crdt", "p99_us"), "µs p99"),
    plain(STORM, ("storm", "activations_per_s"), "activations/s"),
    plain(STORM, ("storm", "p99_us"), "µs p99"),
    plain(REPLAY, ("replay", "events_per_s"), "events/s", 300_000),
    plain(ENDLESS, ("endless", "messages_per_s"), "messages/s", 300_000),
    plain(ENDLESS, ("endless", CPU), CPU_UNIT),
    plain(ENDLESS, ("endless", "grown_mb"), "MB grown", 8, at_least=False),
    against(CART_JSON, ("cart_json", PER_S), "requests/s", 1.5, ENVOY, "cart_envoy"),
    cost(CART_JSON, "cart_json", 0.7, ENVOY, "cart_envoy"),
    plain(CART, ("cart", "calls_per_core"), "commands/s a core", 20_000),
    plain(CART, ("cart", PER_S), RATE_UNIT),
    Target(
        RELAYED,
        ("relayed", "relayed_cpu_us"),
        CPU_UNIT,
        2.2,
        False,
        True,
        READ_ONLY,
        ("relayed", "local_cpu_us"),
    ),
    against(TWO_JSON, ("two_workers_json", "capacity_per_s"), "requests/s, a core each", 1.5, ONE, "one_worker_json"),
    against(TWO_JSON, ("two_workers_json", PER_S), "requests/s here", None, ONE, "one_worker_json"),
    cost(TWO_JSON, "two_workers_json", None, ONE, "one_worker_json"),
    against(TWO, ("two_workers", PER_S), RATE_UNIT, None, ONE, "relay"),
    cost(TWO, "two_workers", None, ONE),
    plain(TWO, ("two_workers", "capacity_per_s"), "commands/s with a core for each"),
    plain(SYNC, ("synced", PER_S), RATE_UNIT, 15_000),
    against(SYNC, ("synced", PER_S), RATE_UNIT, 1.5, INSERTS, "single_rows", anchor_name="rows_per_s"),
    plain(SYNC, ("synced", CPU), CPU_UNIT),
    plain(SYNC, ("synced", "p99_us"), "µs p99"),
    plain(ASYNC, ("replica_backlog", "events_per_s"), "events/s", 60_000),
    plain(ASYNC, ("replica_lag", "lag_s"), "s behind at 20 k events/s", 1, at_least=False),
    against(STORE, ("postgres_store", PER_S), RATE_UNIT, None, INSERTS, "single_rows", anchor_name="rows_per_s"),
    plain(MANY, ("entities", "active"), "entities", 100_000),
    plain(MANY, ("entities", "kept_active"), "served a 2nd command", 100_000),
    plain(MANY, ("entities", "bytes_each"), "B proxy memory each", 4_000, at_least=False),
    plain(MANY, ("entities", "activations_per_s"), "activations/s"),
    plain(IDLE, ("idle", "resident_mb"), "MB resident", 60, at_least=False),
    plain(START, ("idle", "ready_after_discovery_ms"), "ms after discovery", 500, at_least=False),
    plain(START, ("idle", "ready_after_start_ms"), "ms after start"),
]

# What a measurement is called where there is little room.
LABELS = {
    "relay": "read-only",
    "hot": "one hot entity",
    "hot_write": "one hot entity, durable",
    "action": "action",
    "access_log": "with access log",
    "forward": "forward",
    "relay_tls": "TLS",
    "direct": "direct call",
    "relay_grpc_aio": "grpc.aio relay",
    "relay_nghttpx": "nghttpx",
    "relay_nginx": "nginx",
    "relay_envoy": "Envoy",
    "half_load": "half load",
    "sweep": "Stateside",
    "sweep_nghttpx": "nghttpx",
    "sweep_grpc_aio": "grpc.aio relay",
    "sweep_direct": "direct call",
    "durable": "durable, 1000",
    "durable_2000": "durable, 2000",
    "durable_slow_disk": "durable, slow disk",
    "commit_per_event": "commit an event",
    "commit_per_event_slow_disk": "commit an event, slow disk",
    "mixed": "mixed 75/25",
    "value": "value",
    "crdt": "CRDT counter",
    "relayed": "half of them relayed",
    "synced": "synchronous Postgres",
    "postgres_store": "Postgres as store",
    "replica_backlog": "replication",
    "replica_lag": "replication at 20 k/s",
    "storm": "activation storm",
    "cart": "cart in Python",
    "cart_json": "JSON",
    "cart_envoy": "JSON by Envoy",
    "two_workers": "two workers",
    "two_workers_json": "two workers, JSON",
    "one_worker_json": "one worker, JSON",
    "endless": "streams",
}


def label(measurement: str) -> str:
    return LABELS.get(measurement) or measurement.replace("_", " ")
