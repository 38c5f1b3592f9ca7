"""All settings, one frozen dataclass per section."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from flowhooks.errors import SettingsError
from flowhooks.model.search_fields import MAX_FIELDS
from flowhooks.settings import addresses, types
from flowhooks.settings.access import LoginSettings, MaskingSettings, RoleSettings
from flowhooks.settings.alerts import AlertsSettings
from flowhooks.settings.field import setting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from dataclasses import Field

    from flowhooks.settings.named_sections import HandlerSettings, OperatorSettings, Source

LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_DAY_SECONDS: Final = 86400.0
_RETENTION_DAYS: Final = types.integer(0, 36_500)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Limits of both listeners towards their clients."""

    threads: int = setting(
        16,
        types.integer(1, 1000),
        "Threads that answer callbacks. A thread that waits for handlers or a receiver does not count.",
    )
    max_waiting: int = setting(
        512,
        types.integer(0, 10_000),
        "Maximum number of callbacks that wait for their handlers at a time, each in a thread of its own. Further ones "
        "are answered with 202 as soon as they are stored.",
    )
    max_body_bytes: int = setting(
        1024**2, types.integer(1, 1024**3), "Maximum size of a body. A larger body is answered with 413.", live=True
    )
    max_header_bytes: int = setting(
        16384,
        types.integer(1024, 1024**2),
        "Maximum size of the request line and headers together. Larger ones are answered with 431.",
    )
    read_timeout: float = setting(
        10.0,
        types.seconds(0, _DAY_SECONDS),
        "Seconds within which a whole request must arrive, and the first byte of a new connection.",
    )
    idle_timeout: float = setting(
        60.0, types.seconds(0, _DAY_SECONDS), "Seconds after which a connection that has been used is closed if idle."
    )
    max_connections: int = setting(
        1000,
        types.integer(1, 100_000),
        "Maximum number of open connections of each listener. For a further one the longest idle one is closed; if "
        "none is idle, it waits. The limit is lower if the limit of open files is low.",
    )
    max_connections_per_address: int = setting(
        0,
        types.integer(0, 100_000),
        "Maximum number of these connections of one client address, or of one /64 network of IPv6. It does not apply "
        "to loopback addresses and to http.trusted_proxy. 0: a quarter of http.max_connections.",
        live=True,
    )
    trusted_proxy: str = setting(
        "",
        types.ip_address(),
        "IP address of the trusted reverse proxy. The last address in its X-Forwarded-For header is the client. "
        "Empty: no proxy is trusted.",
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """Settings of the runner, which runs the handlers."""

    kind: Literal["embedded", "procrastinate"] = setting(
        "embedded",
        types.one_of("embedded", "procrastinate"),
        "How the runner finds deliveries: by polling the ledger (embedded), or through jobs on PostgreSQL "
        "(procrastinate).",
    )
    threads: int = setting(
        32, types.integer(1, 1000), "Threads that run handlers. One handler uses at most three quarters of them."
    )
    isolation: Literal["thread", "process"] = setting(
        "thread",
        types.one_of("thread", "process"),
        "Where a handler runs if it declares no isolation: in a thread of the server, or in a process of its own.",
    )
    timeout: float = setting(
        300.0,
        types.seconds(0, _DAY_SECONDS),
        "Seconds after which an attempt is overdue. An isolated attempt is then killed. An attempt in a thread is only "
        "reported.",
    )
    memory_mib: int = setting(
        512, types.integer(64, 1_048_576), "Memory limit of an isolated handler's process, in mebibytes."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerSettings:
    """Settings of the circuit breaker, which stops running a handler that keeps failing."""

    failures: int = setting(
        10,
        types.integer(0, 10_000),
        "Consecutive failed attempts in one process after which a handler's circuit opens and the handler is paused; "
        "0: never. Reject and RetryAfter do not count.",
    )
    retry_interval: float = setting(
        60.0,
        types.seconds(0, _DAY_SECONDS),
        "Seconds between the single attempts that flowhooks makes while a circuit is open.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """Limits after which a callback is answered 503, and after which a process counts as expired."""

    max_queued_writes: int = setting(
        10_000,
        types.integer(1, 1_000_000),
        "Maximum number of callbacks that wait to be stored. Further callbacks are answered with 503.",
    )
    write_timeout: float = setting(
        5.0,
        types.seconds(0, _DAY_SECONDS),
        "Seconds that a callback waits to be stored before it is answered with 503.",
    )
    heartbeat_timeout: float = setting(
        30.0,
        types.seconds(0, _DAY_SECONDS),
        "On PostgreSQL: seconds without a heartbeat after which the other processes mark a process as expired.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownSettings:
    """Settings of the server's shutdown."""

    timeout: float = setting(
        30.0, types.seconds(0, _DAY_SECONDS), "Seconds that running handlers have to finish after SIGTERM."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """Settings that decide whether two callbacks are the same."""

    ignore_pointers: tuple[str, ...] = setting(
        (),
        types.list_of(types.pointer()),
        "JSON Pointers to members of the body that are ignored when two callbacks are compared, such as a timestamp.",
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSettings:
    """Settings for events that no handler takes."""

    no_handler: Literal["park", "reject"] = setting(
        "park",
        types.one_of("park", "reject"),
        "Whether an event that matches no registered handler is stored and parked, or rejected with 422.",
    )
    no_name: Literal["park", "reject"] = setting(
        "park",
        types.one_of("park", "reject"),
        "Whether an event with neither callBackProcessClass nor processDefinitionKey is stored and parked, or "
        "rejected with 422.",
    )
    ignore_process_keys: tuple[str, ...] = setting(
        (),
        types.list_of(types.process_key()),
        "Values of processDefinitionKey whose events need no handler. They are dismissed instead of parked.",
        live=True,
    )
    ignore_conclusions: tuple[str, ...] = setting(
        (),
        types.list_of(types.conclusion()),
        "Conclusions that raise no alert if no handler matches them, such as rejected.",
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Settings of the search for events."""

    fields: tuple[str, ...] = setting(
        (),
        types.list_of(types.search_field(), max_items=MAX_FIELDS),
        "JSON Pointers to members of the body that are indexed when an event is stored, so that events can be searched "
        "by their values, such as /amount. Run flowhooks db index after a change, for the stored events.",
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """Days to keep data, counted from its last change; 0: forever."""

    succeeded: int = setting(400, _RETENTION_DAYS, "Days to keep succeeded events; 0: forever.", live=True)
    closed: int = setting(
        400,
        _RETENTION_DAYS,
        "Days to keep events with a closed delivery and no dead delivery; 0: forever.",
        live=True,
    )
    dismissed: int = setting(400, _RETENTION_DAYS, "Days to keep dismissed events; 0: forever.", live=True)
    dead: int = setting(0, _RETENTION_DAYS, "Days to keep events with a dead delivery; 0: forever.", live=True)
    parked: int = setting(0, _RETENTION_DAYS, "Days to keep parked events; 0: forever.", live=True)
    identities: int = setting(
        400,
        _RETENTION_DAYS,
        "Days to keep the identity of a purged event, counted from its callback. A repeated callback then creates no "
        "new event. 0: forever.",
    )
    audit: int = setting(400, _RETENTION_DAYS, "Days to keep the audit log; 0: forever.", live=True)
    alerts: int = setting(400, _RETENTION_DAYS, "Days to keep closed alerts; 0: forever.", live=True)
    trend_minutes: int = setting(
        8,
        _RETENTION_DAYS,
        "Days to keep the numbers of trends by the minute. Older ones are combined by the hour. 0: forever.",
        live=True,
    )
    trend_hours: int = setting(400, _RETENTION_DAYS, "Days to keep the numbers of trends; 0: forever.", live=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Level and format of the log."""

    level: str = setting("info", types.one_of(*LOG_LEVELS), "Lowest severity that is logged.", live=True)
    format: Literal["auto", "json", "text"] = setting(
        "auto",
        types.one_of("auto", "json", "text"),
        "One JSON object per line, or readable text. auto: text if standard error is a terminal, otherwise JSON.",
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. `describe()` lists them with their defaults."""

    database: str = setting(
        "flowhooks.db",
        types.database(),
        "The ledger: the path of a SQLite file, sqlite:///path, or postgresql://user@host/name.",
    )
    listen: str = setting("127.0.0.1:8080", types.address(), "Address on which callbacks are accepted, host:port.")
    admin: str = setting(
        "127.0.0.1:8081", types.address(), "Address of the console, the administration API and the metrics, host:port."
    )
    processes: int = setting(
        1, types.integer(1, 256), "Number of processes of a server or a worker. More than one needs PostgreSQL."
    )
    insecure: bool = setting(
        False,
        types.boolean(),
        "Let other machines reach a listener that requires no credential. Also allow a start or reload that removes "
        "all sources or all operators. By default both are refused.",
    )
    public_url: str = setting(
        "",
        types.origin(),
        "Origin under which browsers reach the console behind a proxy, such as https://ops.example.com. With https, "
        "cookies are sent over TLS only.",
        live=True,
    )
    answer_wait: float = setting(
        10.0,
        types.seconds(0, 60, zero=True),
        "Seconds that a response waits for handlers, unless the request has a Prefer header.",
        live=True,
    )
    plugins_dirs: tuple[str, ...] = setting(
        (),
        types.list_of(types.folder()),
        "Folders of single-file plugins.",
    )
    plugins_allow: tuple[str, ...] = setting(
        (), types.list_of(types.name()), "Names of the plugins to load; empty: all."
    )
    plugins_deny: tuple[str, ...] = setting((), types.list_of(types.name()), "Names of plugins that are not loaded.")
    safe_mode: bool = setting(False, types.boolean(), "Load no plugins.")
    cpu_affinity: bool = setting(
        True,
        types.boolean(),
        "Keep the server's own threads on one CPU core. A handler that runs for more than 5 ms may use all cores. "
        "Without effect if a control group limits the processor time, as in many containers.",
    )
    schemas_dir: str = setting(
        "", types.folder(optional=True), "Folder whose schema files replace or extend the built-in schema files."
    )
    http: HttpSettings = field(default_factory=HttpSettings, metadata={"doc": "Limits of both listeners."})
    runner: RunnerSettings = field(default_factory=RunnerSettings, metadata={"doc": "How handlers are run."})
    circuit_breaker: CircuitBreakerSettings = field(
        default_factory=CircuitBreakerSettings, metadata={"doc": "When a handler that keeps failing is paused."}
    )
    ledger: LedgerSettings = field(
        default_factory=LedgerSettings,
        metadata={"doc": "When a callback is answered with 503, and when a process expires."},
    )
    shutdown: ShutdownSettings = field(default_factory=ShutdownSettings, metadata={"doc": "How the server stops."})
    identity: IdentitySettings = field(
        default_factory=IdentitySettings, metadata={"doc": "When two callbacks are the same."}
    )
    routing: RoutingSettings = field(
        default_factory=RoutingSettings, metadata={"doc": "What happens to events that match no handler."}
    )
    search: SearchSettings = field(
        default_factory=SearchSettings, metadata={"doc": "Values of the body by which events can be searched."}
    )
    alerts: AlertsSettings = field(default_factory=AlertsSettings, metadata={"doc": "When alerts are raised."})
    login: LoginSettings = field(
        default_factory=LoginSettings, metadata={"doc": "How operators log in through an authenticating proxy."}
    )
    masking: MaskingSettings = field(
        default_factory=MaskingSettings, metadata={"doc": "Which values are hidden from masked roles."}
    )
    retention: RetentionSettings = field(
        default_factory=RetentionSettings,
        metadata={"doc": "How long finished data is kept. Age counts from the last change."},
    )
    log: LogSettings = field(default_factory=LogSettings, metadata={"doc": "Level and format of the log."})
    sources: Mapping[str, Source] = field(
        default_factory=dict,
        metadata={
            "doc": "Engines that may send callbacks, by name. If there are none, callbacks are "
            "accepted from programs on this machine only.",
            "live": True,
        },
    )
    operators: Mapping[str, OperatorSettings] = field(
        default_factory=dict,
        metadata={
            "doc": "People and programs that may operate this server, by name. If there are none, every user of its "
            "machine may operate it.",
            "live": True,
        },
    )
    roles: Mapping[str, RoleSettings] = field(
        default_factory=dict,
        metadata={"doc": "Roles of operators besides view and operate, by name.", "live": True},
    )
    handlers: Mapping[str, HandlerSettings] = field(
        default_factory=dict, metadata={"doc": "Run options of single handlers, by handler id."}
    )
    plugins: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict,
        repr=False,  # a plugin's section may hold its passwords
        metadata={
            "doc": "Settings of each plugin, by its name. The plugin defines what they mean. A table "
            '{env = "NAME"} or {file = "PATH"} in it is replaced by the secret stored there.'
        },
    )

    @property
    def calling_sources(self) -> Mapping[str, Source]:
        """The sources with a credential. If there are none, callbacks need no credential."""
        return {name: source for name, source in self.sources.items() if source.has_credential}

    @property
    def engine_intervals(self) -> dict[str, float]:
        """`reconcile_every` of each source with an engine, also by former names, which a position may still have."""
        return {
            known: source.engine.reconcile_every
            for name, source in self.sources.items()
            if source.engine is not None
            for known in self.source_names(name)
        }

    def source_name(self, name: str) -> str:
        """Return the present name of a source, by which events are stored that arrive under a former name, too.

        Args:
            name: the present name, a former one, or one that the settings do not have, which is returned.
        """
        if name in self.sources:
            return name
        return next((present for present, source in self.sources.items() if name in source.former_names), name)

    def source_names(self, name: str) -> tuple[str, ...]:
        """Return all names of a source, the present one first: events under each of them are its events.

        Args:
            name: as for `source_name`.
        """
        present = self.source_name(name)
        source = self.sources.get(present)
        return (present, *(source.former_names if source is not None else ()))

    def ignore_pointers(self, source: str) -> tuple[str, ...]:
        """Return the JSON pointers of members that are not compared between two callbacks of one identity.

        Args:
            source: the present name of the source.
        """
        own = self.sources[source].ignore_pointers if source in self.sources else None
        return self.identity.ignore_pointers if own is None else own

    @property
    def unmatched_sources(self) -> list[str]:
        """The pull-only sources whose engine can also call as `default`: an instance would become two events."""
        if self.calling_sources or any(
            "default" in (name, *source.former_names) for name, source in self.sources.items()
        ):
            return []
        return sorted(name for name, source in self.sources.items() if source.engine is not None)

    @property
    def requires_login(self) -> bool:
        """Whether the administration requires a credential: an operator's, or the header of a proxy."""
        return bool(self.operators or self.login.proxy)

    def credentials(self, kind: str) -> frozenset[str]:
        """Return the names of those who may authenticate: of the kind `"sources"` or `"operators"`.

        A proxy that logs operators in counts as an operator of the name `login.proxy`.
        """
        if kind == "sources":
            return frozenset(self.calling_sources)
        return frozenset(self.operators) | ({"login.proxy"} if self.login.proxy else frozenset())

    def public_without_credential(self) -> list[str]:
        """Return the listeners, `"listen"` and `"admin"`, that other machines reach without a credential.

        `listen` requires a credential if a source has one, `admin` if an operator is configured, or a proxy that logs
        operators in.
        """
        asks = {"listen": bool(self.calling_sources), "admin": self.requires_login}
        open_ones = [name for name, known in asks.items() if not known]
        return [
            name for name in open_ones if not addresses.is_loopback(addresses.host_and_port(getattr(self, name))[0])
        ]


def iter_settings(settings: type = Settings, prefix: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Yield each setting with its dotted name, except those in sections named by the user, such as sources."""
    for spec in fields(settings):
        if "kind" in spec.metadata:
            yield prefix + spec.name, spec
        elif is_dataclass(spec.default_factory):
            yield from iter_settings(spec.default_factory, f"{spec.name}.")


def variable(name: str) -> str:
    """Return the environment variable of a setting, such as FLOWHOOKS_HTTP_THREADS for http.threads."""
    return "FLOWHOOKS_" + name.upper().replace(".", "_")


def database_url(settings: Settings) -> str:
    """Return the SQLAlchemy URL of the ledger's database; a path becomes absolute.

    Raises:
        SettingsError: the setting is neither a SQLite file nor a PostgreSQL database. The message does not repeat it.
    """
    try:
        return addresses.database_url(settings.database)
    except ValueError as error:
        raise SettingsError(f"database: {error}") from None
