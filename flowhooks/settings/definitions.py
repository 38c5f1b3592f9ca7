"""All settings, one frozen dataclass per section."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from flowhooks.errors import SettingsError
from flowhooks.settings import addresses, types
from flowhooks.settings.field import setting
from flowhooks.settings.sections import HandlerSettings, OperatorSettings, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from dataclasses import Field

LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_DAY_SECONDS: Final = 86400.0
_RETENTION_DAYS: Final = types.integer(0, 36_500)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Limits of both listeners towards their clients."""

    threads: int = setting(
        16, types.integer(1, 1000), "Threads that answer call-backs; at most half of them wait for handlers."
    )
    max_body_bytes: int = setting(
        1024**2, types.integer(1, 1024**3), "Largest body taken; a larger one is answered 413.", live=True
    )
    max_header_bytes: int = setting(
        16384, types.integer(1024, 1024**2), "Largest request line and headers together; larger ones are answered 431."
    )
    read_timeout: float = setting(
        10.0, types.seconds(0, _DAY_SECONDS), "Seconds in which a whole request must arrive, however it trickles in."
    )
    idle_timeout: float = setting(
        60.0, types.seconds(0, _DAY_SECONDS), "Seconds for which an idle connection is kept open."
    )
    max_connections: int = setting(
        1000,
        types.integer(1, 100_000),
        "Connections of each listener open at a time; others queue up. Fewer where the limit of open files is low.",
    )
    trusted_proxy: str = setting(
        "",
        types.ip_address(),
        "The one address of the proxy whose word is taken for who has called: the last address in its X-Forwarded-For; "
        "empty: nobody's word is.",
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """Settings of the runner, which runs the handlers."""

    kind: Literal["embedded", "procrastinate"] = setting(
        "embedded",
        types.one_of("embedded", "procrastinate"),
        "How deliveries find their threads: by looking into the ledger, or by jobs on PostgreSQL.",
    )
    threads: int = setting(
        16, types.integer(1, 1000), "Threads that run handlers; one handler holds at most half of them."
    )
    isolation: Literal["thread", "process"] = setting(
        "thread",
        types.one_of("thread", "process"),
        "Where handlers run that do not say: in threads of the server, or each in a process of its own.",
    )
    timeout: float = setting(
        300.0,
        types.seconds(0, _DAY_SECONDS),
        "Seconds after which an attempt is overdue: killed in a process of its own, reported in a thread.",
    )
    memory_mib: int = setting(
        512, types.integer(64, 1_048_576), "Mebibytes that a handler's process may take, where it has one of its own."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerSettings:
    """Settings of the circuit breaker, which stops running a handler that keeps failing."""

    failures: int = setting(
        10,
        types.integer(0, 10_000),
        "Attempts of a handler that fail in a row after which it is held, so that nothing more is burnt; 0: never.",
    )
    retry_interval: float = setting(
        60.0,
        types.seconds(0, _DAY_SECONDS),
        "Seconds between the single attempts that try whether a held handler works again.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """Limits after which a callback is answered 503, and after which a process counts as expired."""

    max_queued_writes: int = setting(
        10_000, types.integer(1, 1_000_000), "Call-backs waiting to be written; beyond that they are answered 503."
    )
    write_timeout: float = setting(
        5.0, types.seconds(0, _DAY_SECONDS), "Seconds that a call-back waits to be stored before it is answered 503."
    )
    heartbeat_timeout: float = setting(
        30.0,
        types.seconds(0, _DAY_SECONDS),
        "On PostgreSQL: seconds without a sign of life after which the other processes take one for dead.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownSettings:
    """Settings of the server's shutdown."""

    timeout: float = setting(
        30.0, types.seconds(0, _DAY_SECONDS), "Seconds that running handlers get to finish after SIGTERM."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """Settings that decide whether two callbacks are the same."""

    ignore_pointers: tuple[str, ...] = setting(
        (),
        types.list_of(types.pointer()),
        "JSON Pointers to members of the body that do not count, such as a time stamp.",
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingSettings:
    """Settings for events that no handler takes."""

    no_handler: Literal["park", "reject"] = setting(
        "park",
        types.one_of("park", "reject"),
        "An event for which no handler is registered is stored and parked, or answered 422.",
    )
    no_name: Literal["park", "reject"] = setting(
        "park",
        types.one_of("park", "reject"),
        "An event with neither callBackProcessClass nor processDefinitionKey is stored and parked, or answered 422.",
    )
    ignore_process_keys: tuple[str, ...] = setting(
        (),
        types.list_of(types.process_key()),
        "Values of processDefinitionKey whose events need no handler and are not parked.",
        live=True,
    )
    ignore_conclusions: tuple[str, ...] = setting(
        (),
        types.list_of(types.conclusion()),
        "Conclusions for which no alert is raised when no handler takes them, such as those of rejected approvals.",
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsSettings:
    """Settings that decide when plugins are notified of alerts."""

    poll_interval: float = setting(
        10.0, types.seconds(0, 3600), "Seconds between looks for what somebody is to be told of.", live=True
    )
    parked_after: float = setting(
        3600.0,
        types.seconds(0, 10 * _DAY_SECONDS, zero=True),
        "Seconds for which an event may be parked before somebody is told; 0: told at once.",
        live=True,
    )
    waiting_after: float = setting(
        3600.0,
        types.seconds(0, 10 * _DAY_SECONDS),
        "Seconds for which a delivery that could run, or lacks its plugin, may wait before somebody is told.",
        live=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """Days to keep data, counted from its last change; 0: forever."""

    succeeded: int = setting(
        400, _RETENTION_DAYS, "Days for which events are kept that succeeded; 0: for ever.", live=True
    )
    closed: int = setting(
        400,
        _RETENTION_DAYS,
        "Days for which events are kept of which a delivery was closed and none is dead; 0: for ever.",
        live=True,
    )
    dismissed: int = setting(400, _RETENTION_DAYS, "Days for which dismissed events are kept; 0: for ever.", live=True)
    dead: int = setting(
        0, _RETENTION_DAYS, "Days for which events with a dead delivery are kept; 0: for ever.", live=True
    )
    parked: int = setting(0, _RETENTION_DAYS, "Days for which parked events are kept; 0: for ever.", live=True)
    identities: int = setting(
        400,
        _RETENTION_DAYS,
        "Days after its call-back for which an event that was purged is still known, so that the same call-back is not "
        "taken for a new one; 0: for ever.",
    )
    audit: int = setting(400, _RETENTION_DAYS, "Days for which is kept who has done what; 0: for ever.", live=True)
    alerts: int = setting(400, _RETENTION_DAYS, "Days for which alerts are kept that are over; 0: for ever.", live=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Level and format of the log."""

    level: str = setting("info", types.one_of(*LOG_LEVELS), "The least severe level that is logged.", live=True)
    format: Literal["json", "text"] = setting(
        "json", types.one_of("json", "text"), "One JSON object a line, or text for people.", live=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. `describe()` lists them with their defaults."""

    database: str = setting("flowhooks.db", types.database(), "The file that holds the ledger, or sqlite:///path.")
    listen: str = setting("127.0.0.1:8080", types.address(), "Where call-backs are taken, host:port.")
    admin: str = setting("127.0.0.1:8081", types.address(), "Where the server is administered, host:port.")
    processes: int = setting(
        1, types.integer(1, 256), "Processes that take call-backs, or of a worker; more than one needs PostgreSQL."
    )
    insecure: bool = setting(
        False,
        types.boolean(),
        "Let other machines reach a listener that asks for no credential, and start or reload without sources or "
        "operators that there were before. Off, both are refused.",
    )
    public_url: str = setting(
        "",
        types.origin(),
        "Where browsers find the console behind a proxy, such as https://ops.example.com; with https, cookies go by "
        "TLS only.",
        live=True,
    )
    answer_wait: float = setting(
        10.0,
        types.seconds(0, 60, zero=True),
        "Seconds that an answer waits for the handlers, unless its request says.",
        live=True,
    )
    plugins_dirs: tuple[str, ...] = setting(
        (), types.list_of(types.folder()), "Folders of single-file plugins, looked for from the working folder."
    )
    plugins_allow: tuple[str, ...] = setting(
        (), types.list_of(types.name()), "Names of the only plugins that are loaded; empty: all."
    )
    plugins_deny: tuple[str, ...] = setting((), types.list_of(types.name()), "Names of plugins that are not loaded.")
    safe_mode: bool = setting(False, types.boolean(), "Load no plugins at all.")
    cpu_affinity: bool = setting(
        True,
        types.boolean(),
        "Keep the server's own threads on one processor core; handlers that take longer than 5 ms may use all of them.",
    )
    schemas_dir: str = setting(
        "", types.folder(optional=True), "A folder whose schema files replace or add to those that flowhooks has."
    )
    http: HttpSettings = field(
        default_factory=HttpSettings, metadata={"doc": "How both listeners treat their clients."}
    )
    runner: RunnerSettings = field(default_factory=RunnerSettings, metadata={"doc": "Who runs handlers."})
    circuit_breaker: CircuitBreakerSettings = field(
        default_factory=CircuitBreakerSettings, metadata={"doc": "When a handler that keeps failing is no longer run."}
    )
    ledger: LedgerSettings = field(
        default_factory=LedgerSettings, metadata={"doc": "When a call-back is told to come again."}
    )
    shutdown: ShutdownSettings = field(default_factory=ShutdownSettings, metadata={"doc": "How the server stops."})
    identity: IdentitySettings = field(
        default_factory=IdentitySettings, metadata={"doc": "When two call-backs are the same."}
    )
    routing: RoutingSettings = field(
        default_factory=RoutingSettings, metadata={"doc": "What happens to events that no handler takes."}
    )
    alerts: AlertsSettings = field(
        default_factory=AlertsSettings, metadata={"doc": "When somebody is told that they should look."}
    )
    retention: RetentionSettings = field(
        default_factory=RetentionSettings, metadata={"doc": "For how long what is done with is kept."}
    )
    log: LogSettings = field(default_factory=LogSettings, metadata={"doc": "What is logged, and how."})
    sources: Mapping[str, Source] = field(
        default_factory=dict, metadata={"doc": "The engines that may call back, by name; none: any may.", "live": True}
    )
    operators: Mapping[str, OperatorSettings] = field(
        default_factory=dict,
        metadata={"doc": "Who may look after this server, by name; none: whoever is on its machine.", "live": True},
    )
    handlers: Mapping[str, HandlerSettings] = field(
        default_factory=dict, metadata={"doc": "How single handlers are run, by their ids."}
    )
    plugins: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict,
        repr=False,  # a plugin's section may hold its passwords
        metadata={
            "doc": "What each plugin is configured with, by its name; only the plugin knows what it means. In it, a "
            'table {env = "NAME"} or {file = "PATH"} stands for a secret that is there.'
        },
    )

    def public_without_credential(self) -> list[str]:
        """Return the listeners, `"listen"` and `"admin"`, that other machines reach without a credential.

        `listen` requires a credential if a source is configured, `admin` if an operator is.
        """
        asks = {"listen": self.sources, "admin": self.operators}
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


class SettingReference(NamedTuple):
    """A setting as listed in the reference.

    Attributes:
        name: dotted name; NAME is a part chosen by the user.
        type: allowed values, in words.
        default: default as written in TOML; `""` if there is none.
        variable: environment variable; `""` if only the file can set it.
        doc: description, one line.
    """

    name: str
    type: str
    default: str
    variable: str
    doc: str


def describe() -> Iterator[SettingReference]:
    """Yield all settings in the order of a settings file."""
    for name, spec in iter_settings():
        yield _reference(name, spec, variable(name))
    for spec in fields(Source):
        yield _reference(f"sources.NAME.{spec.name}", spec, "")
    for spec in fields(OperatorSettings):
        yield _reference(f"operators.NAME.{spec.name}", spec, "")
    for spec in fields(HandlerSettings):
        yield _reference(f'handlers."PLUGIN:NAME".{spec.name}', spec, "")
    whole = next(spec for spec in fields(Settings) if spec.name == "plugins")
    yield SettingReference("plugins.NAME", "a section of any shape", "", "", whole.metadata["doc"])


def _reference(name: str, spec: Field[Any], variable: str) -> SettingReference:
    default = "" if spec.default in (MISSING, None) else json.dumps(spec.default)
    return SettingReference(name, spec.metadata["kind"].allowed, default, variable, spec.metadata["doc"])


def check_binds(settings: Settings) -> None:
    """Refuse listeners that other machines reach without a credential, unless `insecure` is set.

    Raises:
        SettingsError: there are such listeners; one line per listener, which says what to do.
    """
    if settings.insecure:
        return
    remedies = {
        "listen": "takes call-backs from other machines, and no credential is configured: add [sources.NAME] to "
        "flowhooks.toml (`flowhooks sources new` makes it), listen on 127.0.0.1, or give --insecure",
        "admin": "lets other machines administer this server, and no operator is configured: add [operators.NAME] to "
        "flowhooks.toml (`flowhooks operators new` makes it), listen on 127.0.0.1, or give --insecure",
    }
    problems = [
        f"{name} = {types.format_value(getattr(settings, name))} {remedies[name]}"
        for name in settings.public_without_credential()
    ]
    if problems:
        raise SettingsError("\n".join(problems))


def check_removed(before: Settings, after: Settings) -> None:
    """Refuse new settings that have no source or no operator left, unless `insecure` is set.

    Raises:
        SettingsError: all sources or all operators were removed; one line each.
    """
    if after.insecure:
        return
    acts = {"sources": ("no source", "call back"), "operators": ("no operator", "administer this server")}
    problems = [
        f"the settings name {none} any more, and {', '.join(sorted(getattr(before, kind)))} may {act} now: without "
        f"any, everybody could. The settings file may be empty or cut off: restore its sections [{kind}.NAME], or "
        "restart with --insecure if no credential is to be needed any more"
        for kind, (none, act) in acts.items()
        if getattr(before, kind) and not getattr(after, kind)
    ]
    if problems:
        raise SettingsError("\n".join(problems))


def check_processes(settings: Settings) -> None:
    """Check that the database allows the configured number of processes.

    Raises:
        SettingsError: more than one process is configured, and the database is SQLite.
    """
    if settings.processes > 1 and database_url(settings).startswith("sqlite:"):
        raise SettingsError(
            f"processes = {settings.processes} needs PostgreSQL: only one process writes a SQLite ledger; "
            "set processes to 1, or name a database of PostgreSQL"
        )


def database_url(settings: Settings) -> str:
    """Return the SQLAlchemy URL of the ledger's database; a path becomes absolute.

    Raises:
        SettingsError: the setting is neither a SQLite file nor a PostgreSQL database. The message does not repeat it.
    """
    try:
        return addresses.database_url(settings.database)
    except ValueError as error:
        raise SettingsError(f"database: {error}") from None
