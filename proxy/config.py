"""Settings of the proxy: one frozen object, made once at start from four places.

    defaults  <  stateside.toml  <  environment  <  command line

The fields of `Settings` are the table: each names its kind (with what is allowed), its default, its meaning and the
environment variables of the Cloudstate reference proxy that it obeys. Parsing, `--help`, docs/configuration.md and the
texts of errors all come from that table. Unknown keys and impossible values are a `ConfigError`: one line that names
key, value and what is allowed.
"""

import dataclasses
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stateside.proxy.values import (
    Addresses,
    Choice,
    Duration,
    Flag,
    Fraction,
    Kind,
    Names,
    Size,
    Text,
    Whole,
    nearest,
    show_duration,
)

PREFIX = "STATESIDE_"
CONFIG_VARIABLE = "STATESIDE_CONFIG"
DEFAULT_FILE = "stateside.toml"
# STATESIDE_ variables that belong to somebody else than this table.
RESERVED_VARIABLES = frozenset({CONFIG_VARIABLE, "STATESIDE_BUILD_DEBUG", "STATESIDE_PLACE"})

DAY = 86400.0
KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
INT32_MAX = (1 << 31) - 1

PORT = Whole(0, 65535)
ADDRESS = Text(meaning="a host name or address", pattern=r"[^\s/]+")
FILE = Text(empty=True, meaning="the path of a file", pattern=r"[^\0]+")
HEADER_NAMES = Names(meaning="names of HTTP headers", pattern=r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", lower=True)


class ConfigError(Exception):
    """A setting is unknown or impossible. The text is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table."""

    key: str
    group: str
    kind: Kind
    default: Any
    meaning: str
    reference_names: tuple[str, ...]

    @property
    def variable(self) -> str:
        """Our own environment variable."""
        return PREFIX + self.key.upper()

    @property
    def option(self) -> str:
        """The option of the command line."""
        return "--" + self.key.replace("_", "-")

    @property
    def variables(self) -> tuple[str, ...]:
        """All environment variables that set it, the strongest first."""
        return (self.variable, *self.reference_names)


def _row(group: str, default: Any, kind: Kind, meaning: str, *reference_names: str) -> Any:
    return field(default=default, metadata={"row": (group, kind, meaning, reference_names)})


GATEWAY = "Clients"
TLS = "TLS to clients"
CORS = "Browsers of other origins (CORS)"
USER_FUNCTION = "User function"
ENTITIES = "Entities"
JOURNAL = "Journal"
WORKERS = "Workers"
REPLICATION = "Replication of CRDTs"
ADMIN = "Administration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. Durations are seconds, sizes are bytes."""

    http_interface: str = _row(GATEWAY, "0.0.0.0", ADDRESS, "Address the main port listens on.")
    http_port: int = _row(
        GATEWAY, 9000, PORT, "Main port: gRPC, HTTP/JSON, reflection, health. 0: a free one.", "HTTP_PORT"
    )
    max_request_size: int = _row(GATEWAY, 12 * MIB, Size(1, INT32_MAX), "Largest message accepted from a client.")
    max_connections: int = _row(GATEWAY, 10_000, Whole(1, 1_000_000), "Client connections at once.")
    max_streams: int = _row(GATEWAY, 10_000, Whole(1, 1_000_000), "Calls at once on one connection.")
    max_header_bytes: int = _row(
        GATEWAY, 16 * KIB, Size(KIB, MIB), "Headers of one request: names, values and 32 bytes for each."
    )
    max_header_count: int = _row(GATEWAY, 128, Whole(8, 10_000), "Headers of one request, counted.")
    header_timeout: float = _row(
        GATEWAY,
        10.0,
        Duration(0.1, 600),
        "How long a connection's first bytes, each header block, and each 64 KiB of a body may take.",
    )
    idle_timeout: float = _row(
        GATEWAY, 0.5 * DAY, Duration(1, 30 * DAY, "never"), "A connection without calls is closed after this."
    )
    keepalive_interval: float = _row(
        GATEWAY, 60.0, Duration(1, DAY, "never"), "A silent client is sent a PING after this."
    )
    keepalive_timeout: float = _row(
        GATEWAY, 20.0, Duration(0.1, 3600), "A client that leaves a PING unanswered for this long is taken for lost."
    )
    max_calls_in_flight: int = _row(
        GATEWAY, 100_000, Whole(0, 100_000_000), "Calls at once over all connections; more are refused. 0: any number."
    )
    max_loop_lag: float = _row(
        GATEWAY, 1.0, Duration(0.01, 600, "never"), "New calls are refused while the event loop is this late."
    )
    max_memory: int = _row(
        GATEWAY,
        0,
        Size(0, 64 * TIB),
        "New calls are refused, and idle instances passivated, while the process has more memory. 0: never.",
    )
    graceful_termination_timeout: float = _row(
        GATEWAY,
        10.0,
        Duration(0.001, 3600, "at once"),
        "How long calls may take to finish when the proxy stops.",
    )

    tls_certificate: str = _row(
        TLS,
        "",
        FILE,
        "PEM file of the main port's certificate and those that issued it. Set, the main port speaks TLS only.",
    )
    tls_key: str = _row(TLS, "", FILE, "PEM file of the certificate's private key, if it is not in the same file.")
    tls_client_ca: str = _row(
        TLS, "", FILE, "PEM file of the authorities whose client certificates are accepted. Empty: none is asked for."
    )
    tls_client_auth: str = _row(
        TLS,
        "required",
        Choice(("required", "optional")),
        "With tls_client_ca: whether a client without a certificate is turned away.",
    )
    tls_check_interval: float = _row(
        TLS,
        10.0,
        Duration(0.1, DAY, "only at SIGHUP"),
        "How often the files are looked at; when they change they are read again, without a restart.",
    )

    cors_allow_origins: tuple[str, ...] = _row(
        CORS,
        (),
        Names(
            meaning='origins such as https://shop.example:8443, or "*" for all',
            pattern=r"\*|null|[A-Za-z][A-Za-z0-9+.-]*://[^\s/,]+",
        ),
        "Origins whose pages may call gRPC-web and HTTP/JSON. Empty: CORS is off.",
    )
    cors_allow_headers: tuple[str, ...] = _row(
        CORS,
        ("content-type", "authorization", "grpc-timeout", "x-grpc-web", "x-user-agent"),
        HEADER_NAMES,
        'Request headers that pages may set; "*" for all.',
    )
    cors_expose_headers: tuple[str, ...] = _row(
        CORS,
        ("grpc-status", "grpc-message", "grpc-status-details-bin"),
        HEADER_NAMES,
        "Response headers that pages may read.",
    )
    cors_max_age: float = _row(
        CORS, 600.0, Duration(1, DAY, "not at all"), "How long a browser may remember what it was allowed."
    )
    cors_allow_credentials: bool = _row(
        CORS, False, Flag(), "Whether pages may send cookies and client certificates; not with origin *."
    )

    user_function_host: str = _row(
        USER_FUNCTION, "127.0.0.1", ADDRESS, "Where the user function listens.", "USER_FUNCTION_HOST"
    )
    user_function_port: int = _row(
        USER_FUNCTION, 8080, Whole(1, 65535), "The port the user function listens on.", "USER_FUNCTION_PORT"
    )
    user_function_socket: str = _row(
        USER_FUNCTION,
        "",
        Text(empty=True, meaning="the path of a Unix socket (at most 107 bytes)", pattern=r"[^\0]{1,107}"),
        "Path of a Unix socket to use in place of host and port.",
    )
    user_function_tls: bool = _row(USER_FUNCTION, False, Flag(), "Whether to speak TLS to the user function.")
    user_function_tls_ca: str = _row(
        USER_FUNCTION,
        "",
        FILE,
        "PEM file of the authorities that may have issued its certificate. Empty: those the system trusts.",
    )
    user_function_tls_certificate: str = _row(
        USER_FUNCTION, "", FILE, "PEM file of the certificate that the proxy shows it, if it asks for one."
    )
    user_function_tls_key: str = _row(
        USER_FUNCTION, "", FILE, "PEM file of that certificate's private key, if it is not in the same file."
    )
    user_function_tls_server_name: str = _row(
        USER_FUNCTION,
        "",
        Text(empty=True, meaning="a host name", pattern=r"[^\s/]+"),
        "The name in its certificate, if it is not user_function_host.",
    )
    user_function_streams_per_connection: int = _row(
        USER_FUNCTION,
        128,
        Whole(1, 1_000_000),
        "Entity streams on one connection, if the user function allows so many.",
    )
    user_function_max_connections: int = _row(
        USER_FUNCTION, 1024, Whole(1, 100_000), "Connections to the user function at once."
    )
    user_function_max_waiting: int = _row(
        USER_FUNCTION, 100_000, Whole(1, 100_000_000), "Entity instances that may wait for a stream; more are refused."
    )
    connect_timeout: float = _row(
        USER_FUNCTION, 5.0, Duration(0.01, 600), "How long a connection to the user function may take to be made."
    )
    discovery_timeout: float = _row(
        USER_FUNCTION, 10.0, Duration(0.01, 600), "How long the user function may take to say what it serves."
    )
    stream_close_timeout: float = _row(
        USER_FUNCTION, 10.0, Duration(0.01, 3600), "A half-closed stream that the user function leaves open is reset."
    )
    max_inbound_message_size: int = _row(
        USER_FUNCTION, 12 * MIB, Size(1, INT32_MAX), "Largest message accepted from the user function."
    )
    relay_timeout: float = _row(
        USER_FUNCTION,
        60.0,
        Duration(0.001, DAY),
        "How long a command may wait for its answer before its entity is freed.",
    )
    action_timeout: float = _row(
        USER_FUNCTION,
        0.0,
        Duration(0.001, DAY, "never"),
        "How long a call of an action may take, streamed ones as a whole; a client's own deadline holds in any case.",
    )
    relay_buffer: int = _row(
        USER_FUNCTION, 64 * KIB, Size(KIB, GIB), "Bytes waiting to be sent to one entity's stream before replay pauses."
    )
    protocol_compatibility_check: bool = _row(
        USER_FUNCTION, True, Flag(), "Refuse a user function that does not speak protocol 0.2."
    )
    backoff_min: float = _row(USER_FUNCTION, 1.0, Duration(0.001, DAY), "First delay before discovery is retried.")
    backoff_max: float = _row(USER_FUNCTION, 10.0, Duration(0.001, DAY), "Longest delay before discovery is retried.")
    backoff_random_factor: float = _row(
        USER_FUNCTION, 0.2, Fraction(0, 10), "Each delay is lengthened by up to this fraction of itself, at random."
    )

    passivation_timeout: float = _row(
        ENTITIES,
        30.0,
        Duration(0.001, 365 * DAY),
        "An entity instance idle for so long is passivated, unless its entity says otherwise.",
    )
    max_entities: int = _row(
        ENTITIES,
        1_000_000,
        Whole(1, 100_000_000),
        "Active entity instances at once; the longest idle ones make room.",
    )
    stash_depth: int = _row(
        ENTITIES,
        1000,
        Whole(1, 1_000_000),
        "Commands waiting for one entity instance; more are RESOURCE_EXHAUSTED.",
    )
    fair_share: int = _row(
        ENTITIES, 100, Whole(1, 1_000_000), "Commands an instance may handle in a row while others wait for its stream."
    )
    max_hops: int = _row(
        ENTITIES, 16, Whole(1, 1000), "Forwards and side effects that may follow from one call in a chain."
    )
    max_pending_effects: int = _row(
        ENTITIES, 10_000, Whole(1, 10_000_000), "Side effects running at once; further ones are refused and counted."
    )
    crdt_max_in_flight: int = _row(
        ENTITIES,
        1000,
        Whole(1, 1_000_000),
        "Commands of one CRDT that may be with the user function at once; more are RESOURCE_EXHAUSTED.",
    )
    crdt_max_streams: int = _row(
        ENTITIES,
        10_000,
        Whole(1, 1_000_000),
        "Streamed calls open at one CRDT entity instance; more are RESOURCE_EXHAUSTED.",
    )
    crdt_stream_buffer: int = _row(
        ENTITIES,
        100,
        Whole(1, 1_000_000),
        "Messages of one streamed call that may wait for a slow client; with more the call fails.",
    )
    crdt_hold_limit: float = _row(
        ENTITIES,
        0.2,
        Duration(0.001, 60),
        "How long commands of a CRDT may keep its instance from hearing of changes elsewhere before they wait.",
    )
    eventing_max_attempts: int = _row(
        ENTITIES,
        10,
        Whole(1, 1_000_000),
        "How often a consumer is given an event that it fails to handle, before the event is logged and skipped.",
    )

    journal: str = _row(
        JOURNAL,
        "lmdb:./data/journal",
        Text(
            meaning='"memory:", "lmdb:" and a folder, or "postgresql://..."',
            pattern=r"memory:|lmdb:.+|postgres(ql)?://.+",
        ),
        'Where state is kept: "lmdb:" and a folder, a Postgres database, or "memory:", which forgets all at exit.',
    )
    durability: str = _row(
        JOURNAL,
        "durable",
        Choice(("durable", "relaxed", "none")),
        "When an append counts: flushed to disk, flushed within a second, or never flushed on purpose.",
    )
    journal_map_max: int = _row(JOURNAL, TIB, Size(MIB, 64 * TIB), "The journal grows by itself up to this size.")
    postgres_schema: str = _row(
        JOURNAL,
        "stateside",
        Text(meaning="a name", pattern=r"[^\0]{1,63}"),
        "Schema of the Postgres database that holds the journal; made if it is not there.",
    )
    postgres_write_timeout: float = _row(
        JOURNAL, 5.0, Duration(0.01, 3600), "How long Postgres may take to store; then commands are UNAVAILABLE."
    )
    replay_page_size: int = _row(
        JOURNAL, 256 * KIB, Size(KIB, 64 * MIB), "Bytes of events read at a time while an entity instance is replayed."
    )

    journal_replica: str = _row(
        JOURNAL,
        "",
        Text(empty=True, meaning='"postgresql://..."', pattern=r"postgres(ql)?://.+"),
        "A Postgres database that gets a copy of all that the journal stores; only beside a journal on this machine.",
    )
    journal_replica_mode: str = _row(
        JOURNAL,
        "async",
        Choice(("async", "sync")),
        "Whether commands are answered as soon as this machine has stored them, or only when Postgres has, too.",
    )

    workers: int = _row(WORKERS, 1, Whole(1, 256), "Worker processes, each with its part of all entities.")
    number_of_shards: int = _row(
        WORKERS,
        1024,
        Whole(1, 1 << 16),
        "Parts of all entities, which are given to workers; a journal keeps the number that it was made with.",
    )
    relay_queue: int = _row(
        WORKERS,
        10_000,
        Whole(1, 1_000_000),
        "Commands that may wait for one other worker while it is starting; further ones are refused.",
    )
    worker_timeout: float = _row(
        WORKERS,
        10.0,
        Duration(0.1, DAY),
        "A worker that does not answer its supervisor for so long is killed, and started again.",
    )

    peers: tuple[str, ...] = _row(
        REPLICATION,
        (),
        Addresses(),
        "Peer ports of all other proxies that serve the same CRDTs; this one's own may be among them.",
    )
    peer_interface: str = _row(REPLICATION, "0.0.0.0", ADDRESS, "Address the peer port listens on.")
    peer_port: int = _row(
        REPLICATION, 0, PORT, "Port for other proxies only, never for clients; needed with `peers`, and closed if 0."
    )
    peer_name: str = _row(
        REPLICATION,
        "",
        Text(empty=True, meaning="a host and a port", pattern=r"[^\s/]{1,249}:\d{1,5}"),
        "What the peers call this proxy; otherwise its host name, or `peer_interface`, and `peer_port`.",
    )
    cluster_name: str = _row(
        REPLICATION,
        "",
        Text(empty=True, meaning="a name of at most 100 characters", pattern=r"\S{1,100}"),
        "Only proxies with the same name replicate to each other.",
    )
    crdt_read_timeout: float = _row(
        REPLICATION,
        3.0,
        Duration(0.001, 600),
        "How long, after a start, CRDT entities wait until this proxy has what a majority has.",
    )
    crdt_write_timeout: float = _row(
        REPLICATION,
        5.0,
        Duration(0.001, 600),
        "How long a write waits for the proxies that its consistency asks for.",
    )
    crdt_cache_size: int = _row(
        REPLICATION, 256 * MIB, Size(MIB, TIB), "Memory for replicas of CRDTs that no entity instance has open."
    )
    crdt_peer_buffer: int = _row(
        REPLICATION,
        64 * MIB,
        Size(64 * KIB, 64 * GIB),
        "Changes waiting for one peer; beyond, they are dropped and digests are exchanged.",
    )
    crdt_digest_interval: float = _row(
        REPLICATION, 10.0, Duration(0.1, DAY), "How often proxies compare what they have."
    )
    crdt_max_state_size: int = _row(
        REPLICATION, 12 * MIB, Size(KIB, 24 * MIB), "Largest state of one CRDT; alike on all proxies."
    )

    admin_interface: str = _row(ADMIN, "127.0.0.1", ADDRESS, "Address the admin port listens on.")
    admin_port: int = _row(ADMIN, 8558, PORT, "Admin port: /alive, /ready, /metrics. 0: a free one.", "MANAGEMENT_PORT")
    metrics_enabled: bool = _row(ADMIN, True, Flag(), "Open the metrics port; the admin port has /metrics in any case.")
    metrics_host: str = _row(ADMIN, "0.0.0.0", ADDRESS, "Address the metrics port listens on.", "METRICS_HOST")
    metrics_port: int = _row(ADMIN, 9090, PORT, "Metrics port: /metrics only. 0: a free one.", "METRICS_PORT")
    log_level: str = _row(ADMIN, "info", Choice(("debug", "info", "warning", "error")), "The least of what is logged.")
    log_format: str = _row(ADMIN, "json", Choice(("json", "console")), "Log lines for machines or for people.")
    access_log: str = _row(
        ADMIN, "off", Choice(("off", "json", "text")), "A line for every call, as JSON or as values between blanks."
    )
    access_log_file: str = _row(
        ADMIN,
        "",
        Text(empty=True, meaning="the path of a file", pattern=r"[^\0]+"),
        "Where the access log goes; empty: to standard output.",
    )
    access_log_keys: bool = _row(
        ADMIN, False, Flag(), "Whether the access log names entity keys, which may be personal data."
    )
    dev_mode: bool = _row(
        ADMIN,
        False,
        Flag(),
        'For trying things out: journal "memory:", log format "console", unless set otherwise.',
    )


DEV_DEFAULTS = {"journal": "memory:", "log_format": "console"}


def _table() -> Iterator[Setting]:
    for column in dataclasses.fields(Settings):
        group, kind, meaning, names = column.metadata["row"]
        yield Setting(column.name, group, kind, column.default, meaning, names)


TABLE: tuple[Setting, ...] = tuple(_table())
BY_KEY: dict[str, Setting] = {setting.key: setting for setting in TABLE}


def load(
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
    toml_path: str | Path | None = None,
) -> Settings:
    """The settings of this process.

    overrides: texts of the command line by key. environ: environment variables. toml_path: file to read;
    otherwise the one STATESIDE_CONFIG names, otherwise stateside.toml in the working directory if there is one.
    Raises ConfigError.
    """
    environ = environ or {}
    values: dict[str, Any] = {}
    values.update(_from_toml(_toml_file(toml_path, environ)))
    values.update(_from_environment(environ))
    values.update(_from_command_line(overrides or {}))
    if values.get("dev_mode"):
        values = DEV_DEFAULTS | values
    settings = Settings(**values)
    _check_together(settings)
    return settings


def _toml_file(toml_path: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    named = toml_path or environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    default = Path(DEFAULT_FILE)
    return default if default.exists() else None


def _from_toml(path: Path | None) -> Iterator[tuple[str, Any]]:
    for key, raw in _read_toml(path).items() if path else ():
        if key not in BY_KEY:
            raise ConfigError(f"{path}: unknown key {key}{nearest(key, BY_KEY)}")
        yield key, _parse(BY_KEY[key], raw, str(path))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {' '.join(str(error).split())}") from error


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    names = {setting.variable: setting for setting in TABLE}
    for name, text in environ.items():
        if name.startswith(PREFIX) and name not in names and not _is_foreign(name, text):
            raise ConfigError(f"unknown environment variable {name}{nearest(name, names)}")
    for setting in TABLE:
        for name in setting.variables:
            if name in environ and not _is_foreign(name, environ[name]):
                yield setting.key, _parse(setting, environ[name], name)
                break


_SERVICE_LINK = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


def _is_foreign(name: str, text: str) -> bool:
    """Reserved, or put there by Kubernetes for a Service that is called stateside, http, metrics and so on."""
    if name in RESERVED_VARIABLES or _SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and text.startswith(("tcp://", "udp://", "sctp://"))


def _from_command_line(overrides: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for key, text in overrides.items():
        if key not in BY_KEY:
            raise ConfigError(f"unknown key {key}{nearest(key, BY_KEY)}")
        yield key, _parse(BY_KEY[key], text, BY_KEY[key].option)


def _parse(setting: Setting, raw: object, source: str) -> Any:
    try:
        return setting.kind.parse(raw)
    except ValueError as error:
        raise ConfigError(f"{setting.key} = {_shown(raw)} ({source}): must be {error}") from None


def _shown(raw: object) -> str:
    """What was written, on one line and not too long."""
    text = repr(raw) if isinstance(raw, str) else str(raw)
    return text if len(text) <= 100 else text[:97] + "..."


def _check_together(settings: Settings) -> None:
    """What no single setting can tell."""
    if settings.backoff_max < settings.backoff_min:
        low, high = show_duration(settings.backoff_min), show_duration(settings.backoff_max)
        raise ConfigError(f"backoff_max = {high}: must not be below backoff_min = {low}")
    _check_replica(settings)
    _check_ports(settings)
    _check_cors(settings)
    _check_tls(settings)


def _check_replica(settings: Settings) -> None:
    if settings.journal_replica and not settings.journal.startswith("lmdb:"):
        raise ConfigError(
            f"journal_replica = {_shown_url(settings.journal_replica)}: only a journal on this machine is replicated, "
            f"and journal = {_shown_url(settings.journal)}"
        )


def _shown_url(url: str) -> str:
    """Without a password."""
    return re.sub(r"//([^:/@]*):[^@]*@", r"//\1:...@", url)


def _check_cors(settings: Settings) -> None:
    if settings.cors_allow_credentials and "*" in settings.cors_allow_origins:
        raise ConfigError("cors_allow_credentials = true: must not be with cors_allow_origins = *; name the origins")


def _check_tls(settings: Settings) -> None:
    """Settings that only mean something beside another one."""
    needs = {
        "tls_key": "tls_certificate",
        "tls_client_ca": "tls_certificate",
        "user_function_tls_ca": "user_function_tls",
        "user_function_tls_certificate": "user_function_tls",
        "user_function_tls_key": "user_function_tls_certificate",
        "user_function_tls_server_name": "user_function_tls",
    }
    for key, needed in needs.items():
        if getattr(settings, key) and not getattr(settings, needed):
            raise ConfigError(f"{key} = {_shown(getattr(settings, key))}: has no effect without {needed}")
    if settings.user_function_tls and settings.user_function_socket:
        raise ConfigError("user_function_tls = true: must not be with user_function_socket")


def _check_ports(settings: Settings) -> None:
    if settings.peers and not settings.peer_port:
        raise ConfigError("peer_port = 0: with peers, a port is needed that they can reach")
    port = settings.http_port
    others = {
        "admin_port": (settings.admin_interface, settings.admin_port),
        "peer_port": (settings.peer_interface, settings.peer_port),
    }
    if settings.metrics_enabled:
        others["metrics_port"] = (settings.metrics_host, settings.metrics_port)
    for key, (interface, other) in others.items():
        if port and port == other and _same_interface(settings.http_interface, interface):
            raise ConfigError(f"{key} = {other}: must not be the main port, http_port = {port}")


def _same_interface(one: str, other: str) -> bool:
    return one == other or not {one, other}.isdisjoint({"0.0.0.0", "::"})
