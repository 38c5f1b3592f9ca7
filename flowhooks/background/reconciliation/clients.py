"""The engine clients of the sources. Each call is bounded in time, and each result is checked.

A client is code of a plugin: it may raise anything, never return, or return something else than it should. A call runs
in a thread of its own. If it does not return in time, the caller gets an error, and no further call is made before it
has returned, because a client is called from one thread at a time.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import structlog

from flowhooks.background.reconciliation.pace import Pace
from flowhooks.errors import EngineError, SettingsError
from flowhooks.model.engine import (
    MAX_PAGE_INSTANCES,
    EndState,
    EngineConfig,
    EngineInfo,
    FinishedInstance,
    FinishedPage,
    InstanceStatus,
    ProcessDefinition,
)
from flowhooks.settings.secrets import read_engine_secrets, redactor
from flowhooks.settings.types import did_you_mean
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.model.engine import EngineClient
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import EngineSettings

CALL_LIMIT_FACTOR: Final = 10
"""How many requests of `timeout` seconds one call of a client may take: a page can need several."""
MAX_ERROR_CHARS: Final = 1000
MAX_DEFINITIONS: Final = 100_000
MAX_DEFINITIONS_CHARS: Final = 8_000_000
"""Maximum size of the texts of all definitions: each look at the position of the source reads them."""
MAX_NAMED: Final = 10
"""Maximum number of plugins that an error names."""
_TEXTS: Final = (
    "process_definition_id",
    "process_definition_key",
    "business_key",
    "callback_class",
    "conclusion",
    "parent_id",
    "tenant_id",
)
_REASONS: Final = frozenset({"unreachable", "refused", "invalid"})

log = structlog.get_logger(__name__)


class CallCancelled(Exception):
    """The process stops, so nobody waits for the call any more."""


class _Call(NamedTuple):
    """A call that the client's thread makes.

    Attributes:
        function: makes the call.
        result: receives one item: the value or the exception; None if it was cancelled.
        returned: set when the client has returned.
        begun_at: when it was requested, in seconds.
    """

    function: Callable[[], Any]
    result: queue.SimpleQueue[tuple[Any, BaseException | None] | None]
    returned: threading.Event
    begun_at: float


class BoundedClient:
    """A client whose calls end within a limit, raise only `EngineError` or `CallCancelled`, and return valid results.

    Args:
        client: the plugin's client.
        source: the name of the source.
        limit: the maximum seconds of one call.
        secrets: the secrets that it was created with, which errors do not show.

    Attributes:
        secrets: as given.
        calls: the number of calls so far.
        pace: measures the processor time of the calls.
    """

    def __init__(self, client: EngineClient, *, source: str, limit: float, secrets: Mapping[str, str]) -> None:
        self.secrets = secrets
        self.calls = 0
        self.pace = Pace()
        self._client = client
        self._source = source
        self._limit = limit
        self._redact = redactor(secrets.values())
        self._queue: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._latest: _Call | None = None
        self._is_cancelled = False
        self._thread: threading.Thread | None = None

    def check(self) -> EngineInfo:
        """Return what the engine says about itself."""
        info = self._call("check")
        if not isinstance(info, EngineInfo) or not all(
            isinstance(text, str) for text in (info.product, info.version, info.problem)
        ):
            raise _invalid("check", f"a {type(info).__name__}, not an EngineInfo of texts")
        return info

    def finished(self, since: datetime, until: datetime, cursor: str | None = None) -> FinishedPage:
        """Return a page of finished instances; see `EngineClient`."""
        page = self._call("finished", since, until, cursor)
        if not isinstance(page, FinishedPage) or not isinstance(page.instances, Sequence):
            raise _invalid("finished", f"a {type(page).__name__}, not a FinishedPage with a sequence of instances")
        if len(page.instances) > MAX_PAGE_INSTANCES:
            raise _invalid("finished", f"{len(page.instances):,} instances; at most {MAX_PAGE_INSTANCES:,} are allowed")
        if page.cursor is not None and not isinstance(page.cursor, str):
            raise _invalid("finished", f"a {type(page.cursor).__name__} as cursor, not a text")
        if page.engine_time is not None and not _is_aware(page.engine_time):
            raise _invalid("finished", "an engine_time that is not an aware datetime")
        for instance in page.instances:
            _check_instance("finished", instance)
        return page

    def instance(self, instance_id: str) -> FinishedInstance | InstanceStatus:
        """Return an instance, or why there is none."""
        found = self._call("instance", instance_id)
        if isinstance(found, InstanceStatus):
            return found
        _check_instance("instance", found)
        if found.id != instance_id:
            raise _invalid("instance", f"the instance {escape_control(found.id, 100)}, which was not asked for")
        return found  # type: ignore[no-any-return]  # its type was checked above

    def definitions(self) -> Sequence[ProcessDefinition]:
        """Return the latest version of each deployed definition."""
        found = self._call("definitions")
        if not isinstance(found, Sequence) or len(found) > MAX_DEFINITIONS:
            raise _invalid("definitions", f"a {type(found).__name__}, or more than {MAX_DEFINITIONS:,} definitions")
        for item in found:
            if (
                not isinstance(item, ProcessDefinition)
                or not all(isinstance(text, str) for text in (item.key, item.name, item.tenant_id or ""))
                or type(item.version) is not int
            ):
                raise _invalid("definitions", "an item that is not a ProcessDefinition of texts and a number")
        if sum(len(item.key) + len(item.name) + len(item.tenant_id or "") for item in found) > MAX_DEFINITIONS_CHARS:
            raise _invalid("definitions", f"definitions with more than {MAX_DEFINITIONS_CHARS:,} characters")
        return found

    def cancel(self) -> None:
        """End the wait for the call in progress, and refuse further calls."""
        with self._lock:
            self._is_cancelled = True
            if self._latest is not None:
                self._latest.result.put(None)

    def close(self) -> None:
        """Close the client once the call in progress has returned; do not wait for that."""
        self.cancel()
        with self._lock:
            if self._thread is None:
                self._thread = self._start_thread()
            self._queue.put(None)

    def _call(self, method: str, *arguments: object) -> Any:
        if not self._turn.acquire(timeout=self._limit):
            raise EngineError("unreachable", f"{method}() of the engine client waited for another call for too long")
        try:
            return self._call_in_turn(method, *arguments)
        finally:
            self._turn.release()

    def _call_in_turn(self, method: str, *arguments: object) -> Any:
        with self._lock:
            if self._is_cancelled:
                raise CallCancelled
            if self._latest is not None and not self._latest.returned.is_set():
                seconds = time.monotonic() - self._latest.begun_at
                raise EngineError("unreachable", f"a call of the engine client has not returned for {seconds:.0f} s")
            if self._thread is None:
                self._thread = self._start_thread()
            call = self._latest = _Call(
                lambda: getattr(self._client, method)(*arguments),
                queue.SimpleQueue(),
                threading.Event(),
                time.monotonic(),
            )
            self.calls += 1
            self._queue.put(call)
        try:
            result = call.result.get(timeout=self._limit)
        except queue.Empty:
            raise EngineError(
                "unreachable", f"{method}() of the engine client has not returned within {self._limit:g} s"
            ) from None
        if result is None:
            raise CallCancelled
        value, error = result
        if error is not None:
            raise self._to_engine_error(method, error) from None
        return value

    def _start_thread(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name=f"engine-{self._source}", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        while (call := self._queue.get()) is not None:
            try:
                with self.pace.measured():
                    value, error = call.function(), None
            except BaseException as raised:  # noqa: BLE001 (also SystemExit: a client must not end the thread)
                value, error = None, raised
            call.returned.set()
            call.result.put((value, error))
            del call, value, error  # a page must not stay in memory until the next call
        with suppress(BaseException):
            self._client.close()

    def _to_engine_error(self, method: str, error: BaseException) -> EngineError:
        if isinstance(error, EngineError) and error.reason in _REASONS:
            return EngineError(error.reason, self._to_line(str(error.why)))
        log.error(
            "engine_client_failed",
            source=self._source,
            method=method,
            exc_info=error,
            next="report this to the author of the client's plugin; the next round tries again",
        )
        return EngineError("invalid", self._to_line(f"{method}() raised {_describe(error)}"))

    def _to_line(self, text: str) -> str:
        return escape_control(self._redact(text), MAX_ERROR_CHARS)


class _RefusedClient:
    """Has the place of a client that cannot be created: each call says why."""

    def __init__(self, why: str) -> None:
        self._why = why

    def _refuse(self, *_arguments: object, **_named: object) -> NoReturn:
        raise EngineError("invalid", self._why)

    check = finished = instance = definitions = _refuse

    def close(self) -> None:
        """Do nothing, because there is no connection."""


def create_client(source: str, engine: EngineSettings, plugins: Plugins, environ: Mapping[str, str]) -> BoundedClient:
    """Create the engine client of a source.

    Args:
        source: the name of the source.
        engine: its section `engine`.
        plugins: offer the factories.
        environ: the environment from which secrets are read.

    Raises:
        SettingsError: no plugin offers such a client, a secret cannot be read, the client refuses the settings, or it
            is not created within `timeout`.
    """
    client = create_clients({source: engine}, plugins, environ)[source]
    if isinstance(client, SettingsError):
        raise client
    return client


def create_clients(
    engines: Mapping[str, EngineSettings], plugins: Plugins, environ: Mapping[str, str]
) -> dict[str, BoundedClient | SettingsError]:
    """Create engine clients at the same time, so that factories that hang hold up the caller together.

    Args:
        engines: the section `engine` of each source, by the name of the source.
        plugins: offer the factories.
        environ: the environment from which secrets are read.

    Returns:
        The client of each source, or why it cannot be created, as with `create_client`.
    """
    begun_at = time.monotonic()
    creations = {source: _begin(source, engine, plugins, environ) for source, engine in engines.items()}
    clients: dict[str, BoundedClient | SettingsError] = {}
    for source, created in creations.items():
        engine = engines[source]
        wait([created], max(0.0, begun_at + engine.timeout - time.monotonic()))
        if created.cancel():
            clients[source] = SettingsError(
                f"sources.{source}.engine: the client {engine.client} was not created within {engine.timeout:g} seconds"
            )
        else:
            clients[source] = created.result()
    return clients


def _begin(
    source: str, engine: EngineSettings, plugins: Plugins, environ: Mapping[str, str]
) -> Future[BoundedClient | SettingsError]:
    """Begin to create a client in a thread of its own. If the result is cancelled, the client is closed."""
    created: Future[BoundedClient | SettingsError] = Future()

    def create() -> None:
        client: BoundedClient | SettingsError
        try:
            client = _create(source, engine, plugins, environ)
        except SettingsError as error:
            client = error
        try:
            created.set_result(client)
        except InvalidStateError:  # it was cancelled
            if isinstance(client, BoundedClient):
                client.close()

    threading.Thread(target=create, name=f"engine-{source}-new", daemon=True).start()
    return created


def _create(source: str, engine: EngineSettings, plugins: Plugins, environ: Mapping[str, str]) -> BoundedClient:
    factory = plugins.engine_clients.get(engine.client)
    if factory is None:
        raise SettingsError(_unknown_client(source, engine.client, plugins))
    try:
        secrets = read_engine_secrets(engine, environ)
    except ValueError as error:
        raise SettingsError(f"sources.{source}.engine.{error}") from None
    config = EngineConfig(
        source=source,
        url=engine.url,
        username=engine.username,
        password=secrets.get("password", ""),
        token=secrets.get("token", ""),
        variables=engine.variables,
        conclusion_from=engine.conclusion_from,
        conclusion_variable=engine.conclusion_variable,
        class_variable=engine.class_variable,
        tenants=engine.tenants,
        page_size=engine.page_size,
        timeout=engine.timeout,
    )
    try:
        client = factory(config)
    except BaseException as error:  # noqa: BLE001 (a plugin may raise anything, also SystemExit)
        why = escape_control(redactor(secrets.values())(_describe(error)), MAX_ERROR_CHARS)
        raise SettingsError(f"sources.{source}.engine: the client {engine.client} refuses it: {why}") from None
    return BoundedClient(client, source=source, limit=call_limit(engine), secrets=secrets)


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 (an exception whose text cannot be made)
        return f"{type(error).__name__}: "


def is_unloaded(client: str, plugins: Plugins, *, safe_mode: bool) -> bool:
    """Return whether no plugin offers a client, but one that is not loaded may: it is denied or quarantined.

    Args:
        client: the name of the client.
        plugins: offer the factories.
        safe_mode: whether no plugin is loaded.
    """
    return client not in plugins.engine_clients and (safe_mode or bool(plugins.unloaded))


def create_refused_client(source: str, engine: EngineSettings, why: str) -> BoundedClient:
    """Return a client in place of one that cannot be created: each call raises an `EngineError`.

    Args:
        source: the name of the source.
        engine: its section `engine`.
        why: the text of the error.
    """
    return BoundedClient(_RefusedClient(why), source=source, limit=call_limit(engine), secrets={})


def call_limit(engine: EngineSettings) -> float:
    """Return the maximum seconds of one call of a client."""
    return CALL_LIMIT_FACTOR * engine.timeout


def _unknown_client(source: str, client: str, plugins: Plugins) -> str:
    text = f"sources.{source}.engine.client is {client}, but no loaded plugin offers an engine client of this name"
    text += did_you_mean(client, plugins.engine_clients)
    if names := ", ".join(sorted(plugins.engine_clients)):
        text += f"; the loaded engine clients are: {names}"
    if unloaded := sorted(set(plugins.unloaded)):
        more = ", …" if len(unloaded) > MAX_NAMED else ""
        return f"{text}; a plugin that is not loaded may offer it: {', '.join(unloaded[:MAX_NAMED])}{more}"
    return f"{text}; install the plugin that offers it, such as flowhooks-{client}; `flowhooks check` lists the plugins"


def _check_instance(method: str, instance: object) -> None:
    if not isinstance(instance, FinishedInstance):
        raise _invalid(method, f"a {type(instance).__name__}, not a FinishedInstance")
    if not isinstance(instance.id, str):
        raise _invalid(method, f"an instance whose id is a {type(instance.id).__name__}, not a text")
    wrong = next(_wrong_members(instance), None)
    if wrong is not None:
        raise _invalid(method, f"an instance with a wrong {wrong}: {escape_control(instance.id, 100)}")


def _wrong_members(instance: FinishedInstance) -> Any:
    if not _is_aware(instance.ended_at):
        yield "ended_at, which is not an aware datetime"
    if instance.started_at is not None and not _is_aware(instance.started_at):
        yield "started_at, which is not an aware datetime"
    if not isinstance(instance.end_state, EndState):
        yield "end_state, which is not an EndState"
    for name in _TEXTS:
        if not isinstance(getattr(instance, name), str | None):
            yield f"{name}, which is not a text"
    if type(instance.process_definition_version) not in {int, type(None)}:
        yield "process_definition_version, which is not a number"
    if not isinstance(instance.variables, Mapping):
        yield "variables, which is not a mapping"


def _is_aware(value: object) -> bool:
    # The first and the last year cannot be converted to UTC from every time zone.
    return isinstance(value, datetime) and value.utcoffset() is not None and 1970 <= value.year < 2200  # noqa: PLR2004 (within 2**53 microseconds)


def _invalid(method: str, what: str) -> EngineError:
    return EngineError("invalid", f"{method}() of the engine client returned {what}")
