"""An engine in memory, with the failures that real engines have, and a client that reads it.

The engine keeps rows, as the history tables of real engines do. A row is visible or not: the transaction that ends an
instance can commit long after the end time that it writes.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from flowhooks.clock import SECOND
from flowhooks.errors import EngineError
from flowhooks.hookspecs import hookimpl
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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flowhooks.testing.clock import ManualClock

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """An instance in the history: the part that every client sees, and what a client's settings select from it."""

    instance: FinishedInstance
    variables: Mapping[str, Any]
    end_event: str | None
    business_status: str | None
    visible: bool


@dataclass(slots=True)
class _Failure:
    """An error that calls raise."""

    error: Exception
    method: str | None
    skip: int
    times: int | None


@dataclass(slots=True)
class _History:
    """The state of the engine, behind one lock."""

    rows: list[_Row] = field(default_factory=list)
    running: dict[str, datetime] = field(default_factory=dict)
    definitions: list[ProcessDefinition] = field(default_factory=list)
    failures: list[_Failure] = field(default_factory=list)
    answers: list[FinishedPage] = field(default_factory=list)


class FakeEngine:
    """An engine in memory. It is an `EngineClient` of itself, and `client` makes clients with other settings.

    Times are cut to milliseconds, as in most engines. All methods may be called from any thread.

    Args:
        clock: the clock that the engine's clock is compared with. Default: the machine's.

    Attributes:
        skew: how far the engine's clock is ahead of `clock`.
        gives_time: whether pages have `engine_time`; default: true.
        info: the result of `check`.
        calls: each call of a client so far: the method's name, followed by the arguments.
        pages: each page that was returned, oldest first.
        before_call: called with the method's name before each call of a client, outside of any lock; it may block.
        after_page: called after each page was read, before it is returned: for instances that end between two pages.
    """

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.skew = timedelta()
        self.gives_time = True
        self.info = EngineInfo(product="FakeEngine", version="1")
        self.calls: list[tuple[Any, ...]] = []
        self.pages: list[FinishedPage] = []
        self.before_call: Callable[[str], object] | None = None
        self.after_page: Callable[[], object] | None = None
        self._clock = clock
        self._history = _History()
        self._lock = threading.RLock()
        self._made = 0

    # Events in the engine.

    def now(self) -> datetime:
        """Return the engine's time: that of `clock` plus `skew`, in whole milliseconds."""
        ours = datetime.now(UTC) if self._clock is None else _EPOCH + timedelta(seconds=self._clock.now() / SECOND)
        return _milliseconds(ours + self.skew)

    def start(self, instance_id: str | None = None) -> str:
        """Start an instance, which runs until `finish`.

        Args:
            instance_id: its id; default: a new id.

        Returns:
            The id.
        """
        with self._lock:
            self._made += 1
            name = instance_id or f"instance-{self._made}"
            self._history.running[name] = self.now()
            return name

    def finish(
        self,
        instance_id: str | None = None,
        *,
        end_state: EndState = EndState.COMPLETED,
        variables: Mapping[str, Any] | None = None,
        end_event: str | None = None,
        business_status: str | None = None,
        visible: bool = True,
        **fields: Any,
    ) -> FinishedInstance:
        """End an instance. An instance that was not started is started first.

        The same id can end again: the history then has both instances.

        Args:
            instance_id: its id; default: a new id.
            end_state: how it ends.
            variables: all its variables. Clients return those that their settings name. If the instance has a
                `parent_id`, they may be copies, so clients take neither class nor conclusion from them.
            end_event: the id of the end event, for `conclusion_from = "end_event"`.
            business_status: the business status, for `conclusion_from = "business_status"`.
            visible: false if the transaction has not committed yet. Clients see it running until `commit`.
            **fields: other fields of `FinishedInstance`; `conclusion` and `callback_class` override variables. The
                defaults of `ended_at` and `started_at` are now and the time of `start`.

        Returns:
            The instance as the fake engine itself reads it.
        """
        with self._lock:
            name = instance_id if instance_id in self._history.running else self.start(instance_id)
            started_at = self._history.running[name]
            times = {"started_at": started_at, "ended_at": self.now()} | fields
            instance = FinishedInstance(id=name, end_state=end_state, **_cut(times))
            row = _Row(
                instance=instance,
                variables=dict(variables or {}),
                end_event=end_event,
                business_status=business_status,
                visible=visible,
            )
            self._history.rows.append(row)
            if visible:
                del self._history.running[name]
            return _read(row, _DEFAULT_CONFIG)

    def commit(self, instance_id: str) -> None:
        """Make an instance visible that ended with `visible=False`. Its end time stays as it was.

        Args:
            instance_id: its id.
        """
        with self._lock:
            self._history.running.pop(instance_id, None)
            rows = self._history.rows
            rows[:] = [replace(row, visible=True) if row.instance.id == instance_id else row for row in rows]

    def delete(self, *instance_ids: str, before: datetime | None = None) -> None:
        """Delete the history of instances, as an engine's clean-up does.

        Args:
            *instance_ids: the instances; none: all instances that ended before `before`.
            before: the end of the deleted history; default: now. Not used with `instance_ids`.
        """
        with self._lock:
            end = before or self.now()
            rows = self._history.rows
            rows[:] = [
                row
                for row in rows
                if (row.instance.id not in instance_ids if instance_ids else row.instance.ended_at >= end)
            ]

    def deploy(self, key: str, version: int = 1, *, name: str = "", tenant_id: str | None = None) -> None:
        """Deploy a version of a process definition. It replaces the version before in the answer of `definitions`.

        Args:
            key: its key.
            version: its version.
            name: its name.
            tenant_id: its tenant.
        """
        with self._lock:
            others = [item for item in self._history.definitions if (item.key, item.tenant_id) != (key, tenant_id)]
            others.append(ProcessDefinition(key=key, version=version, name=name, tenant_id=tenant_id))
            self._history.definitions = others

    # Failures.

    def fail(
        self, error: Exception | None = None, *, method: str | None = None, after: int = 0, times: int | None = None
    ) -> None:
        """Make calls fail from now on, until `recover`.

        Args:
            error: the raised exception; default: an `EngineError` with the reason `"unreachable"`.
            method: the method that fails, such as `"finished"`; default: each.
            after: the number of calls that succeed before the first one that fails.
            times: the number of calls that fail; default: without a limit.
        """
        default = EngineError("unreachable", "The fake engine fails, as the test demands.")
        with self._lock:
            self._history.failures.append(_Failure(error or default, method, after, times))

    def recover(self) -> None:
        """Let all calls succeed again."""
        with self._lock:
            self._history.failures.clear()

    def answer_with(self, *pages: FinishedPage) -> None:
        """Answer the next calls of `finished` with these pages, whatever is asked: yesterday's page from a cache.

        Args:
            *pages: such as one of `pages`.
        """
        with self._lock:
            self._history.answers.extend(pages)

    # The clients.

    def client(self, config: EngineConfig) -> FakeEngineClient:
        """Return a client with these settings: the factory for the hook `engine_clients`.

        Args:
            config: the settings. `url` and the credential are not used.
        """
        return FakeEngineClient(self, config)

    def plugin(self, name: str = "fake") -> SimpleNamespace:
        """Return a plugin whose hook `engine_clients` offers clients of this engine.

        Args:
            name: the client's name in the settings.
        """
        return SimpleNamespace(engine_clients=hookimpl(lambda: {name: self.client}))

    def check(self) -> EngineInfo:
        """Return `info`."""
        return self.client(_DEFAULT_CONFIG).check()

    def finished(self, since: datetime, until: datetime, cursor: str | None = None) -> FinishedPage:
        """Return a page of finished instances. See `EngineClient`.

        Args:
            since: the earliest end.
            until: the latest end.
            cursor: the cursor of the page before.
        """
        return self.client(_DEFAULT_CONFIG).finished(since, until, cursor)

    def instance(self, instance_id: str) -> FinishedInstance | InstanceStatus:
        """Return an instance, or why there is none.

        Args:
            instance_id: its id.
        """
        return self.client(_DEFAULT_CONFIG).instance(instance_id)

    def definitions(self) -> Sequence[ProcessDefinition]:
        """Return the deployed definitions."""
        return self.client(_DEFAULT_CONFIG).definitions()

    def close(self) -> None:
        """Do nothing, because there is no connection."""

    def _enter(self, method: str, *arguments: object) -> None:
        """Record a call, and raise the error that `fail` has set for it."""
        if self.before_call is not None:
            self.before_call(method)
        with self._lock:
            self.calls.append((method, *arguments))
            for failure in self._history.failures:
                if failure.method not in {None, method}:
                    continue
                if failure.skip > 0:
                    failure.skip -= 1
                elif failure.times is None or failure.times > 0:
                    failure.times = None if failure.times is None else failure.times - 1
                    raise failure.error

    def _page(self, rows: Sequence[FinishedInstance], size: int) -> FinishedPage:
        page = FinishedPage(
            instances=tuple(rows[:size]),
            cursor=_cursor(rows[size - 1]) if len(rows) > size else None,
            engine_time=self.now() if self.gives_time else None,
        )
        with self._lock:
            if self._history.answers:
                page = self._history.answers.pop(0)
            self.pages.append(page)
        if self.after_page is not None:
            self.after_page()
        return page

    def _rows(self) -> list[_Row]:
        with self._lock:
            return [row for row in self._history.rows if row.visible]

    def _is_running(self, instance_id: str) -> bool:
        with self._lock:
            return instance_id in self._history.running

    def _definitions(self) -> list[ProcessDefinition]:
        with self._lock:
            return list(self._history.definitions)


class FakeEngineClient:
    """A client of a `FakeEngine`, made by its method `client`.

    Args:
        engine: the engine.
        config: the settings.

    Attributes:
        config: the settings.
        closed: whether `close` was called.
    """

    def __init__(self, engine: FakeEngine, config: EngineConfig) -> None:
        self.config = config
        self.closed = False
        self._engine = engine

    def check(self) -> EngineInfo:
        """Return the engine's `info`."""
        self._engine._enter("check")  # noqa: SLF001 (the two classes are one module)
        return self._engine.info

    def finished(self, since: datetime, until: datetime, cursor: str | None = None) -> FinishedPage:
        """Return a page, by end time and then by id. See `EngineClient`.

        Args:
            since: the earliest end.
            until: the latest end.
            cursor: the cursor of the page before.
        """
        self._engine._enter("finished", since, until, cursor)  # noqa: SLF001 (as above)
        rows = [row for row in self._engine._rows() if self._has(row.instance)]  # noqa: SLF001 (as above)
        instances = [_read(row, self.config) for row in rows if since <= row.instance.ended_at <= until]
        instances.sort(key=lambda instance: (instance.ended_at, instance.id))
        if cursor is not None:
            ended_at, last_id = json.loads(cursor)
            position = (datetime.fromisoformat(ended_at), last_id)
            instances = [instance for instance in instances if (instance.ended_at, instance.id) > position]
        return self._engine._page(instances, min(self.config.page_size, MAX_PAGE_INSTANCES))  # noqa: SLF001 (as above)

    def instance(self, instance_id: str) -> FinishedInstance | InstanceStatus:
        """Return the last instance with an id, or why there is none.

        Args:
            instance_id: its id.
        """
        self._engine._enter("instance", instance_id)  # noqa: SLF001 (as above)
        if self._engine._is_running(instance_id):  # noqa: SLF001 (as above)
            return InstanceStatus.RUNNING
        rows = [row for row in self._engine._rows() if row.instance.id == instance_id]  # noqa: SLF001 (as above)
        return _read(rows[-1], self.config) if rows else InstanceStatus.ABSENT

    def definitions(self) -> Sequence[ProcessDefinition]:
        """Return the deployed definitions of the tenants in the settings."""
        self._engine._enter("definitions")  # noqa: SLF001 (as above)
        return [item for item in self._engine._definitions() if self._has(item)]  # noqa: SLF001 (as above)

    def close(self) -> None:
        """Note that the client was closed."""
        self.closed = True

    def _has(self, item: FinishedInstance | ProcessDefinition) -> bool:
        return not self.config.tenants or item.tenant_id in self.config.tenants


_DEFAULT_CONFIG: Final = EngineConfig(source="default", url="http://127.0.0.1:0", page_size=MAX_PAGE_INSTANCES)


def _milliseconds(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


def _cut(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _milliseconds(value) if isinstance(value, datetime) else value for name, value in fields.items()}


def _cursor(last: FinishedInstance) -> str:
    return json.dumps([last.ended_at.isoformat(), last.id])


def _conclusion(value: Any) -> str | None:
    if isinstance(value, str):
        return value or None
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def _read(row: _Row, config: EngineConfig) -> FinishedInstance:
    """Return an instance as a client with these settings sees it."""
    # Variables of a called instance may be copies of its caller's, so they tell neither class nor conclusion.
    own_variables = row.variables if row.instance.parent_id is None else {}
    callback_class = own_variables.get(config.class_variable)
    conclusions = {
        "variable": _conclusion(own_variables.get(config.conclusion_variable)),
        "end_event": row.end_event,
        "business_status": row.business_status,
    }
    instance = row.instance
    return replace(
        instance,
        conclusion=instance.conclusion or conclusions[config.conclusion_from],
        callback_class=instance.callback_class or (callback_class if isinstance(callback_class, str) else "") or None,
        variables={name: row.variables[name] for name in config.variables if name in row.variables},
    )
