"""Read finished process instances from the history of Flowable.

The history is read by end time, in milliseconds. A query has an earliest end time, which is included, and a size, but
no offset. If a response does not have all instances, instances with its last end time may be missing. So the instances
with this end time are left out, and the next query begins with them. A row that appears or disappears cannot shift
another row. If all instances of a full response ended in the same millisecond, that millisecond is read by id and
offset. Each of these queries begins with the last instance of the previous query. So it detects whether rows have
shifted meanwhile.

Queries are sent by POST. In a GET, Flowable before 7.2 reads no fractions of seconds.
"""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from flowhooks import (
    EndState,
    EngineConfig,
    EngineError,
    EngineInfo,
    FinishedInstance,
    FinishedPage,
    InstanceStatus,
    ProcessDefinition,
)
from flowhooks_flowable.definitions import Definitions
from flowhooks_flowable.instances import (
    MAX_CLASS_CHARS,
    MAX_CONCLUSION_CHARS,
    HistoricInstance,
    decide_end_state,
)
from flowhooks_flowable.position import Position
from flowhooks_flowable.rest_api import ResponseTooLarge, RestApi
from flowhooks_flowable.times import ceil_ms, floor_ms, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

HISTORY: Final = "query/historic-process-instances"
RUNTIME: Final = "query/process-instances"
VARIABLES: Final = "query/historic-variable-instances"
MAX_RESTARTS: Final = 5
"""Maximum number of times that a millisecond is read again because its instances have changed."""
CLOCK_CHANGES_MS: Final = (-3_600_000, 3_600_000, -1_800_000, 1_800_000)
"""Milliseconds by which an end can be wrong while clocks are set back: an hour, half an hour on Lord Howe Island."""
MAX_DEFINITION_PAGES: Final = 100
DEFINITIONS_PER_PAGE: Final = 500
MAX_DEFINITIONS_CHARS: Final = 8_000_000
"""Maximum size of the texts of all definitions, which are in memory together."""
SAMPLE_SIZE: Final = 5
"""Number of running instances that are read to check whether instances have variables."""
HISTORY_LEVEL_HINT: Final = (
    "set its history level to audit, in Spring Boot with flowable.history-level=audit, and restart the engine."
)
TOO_LARGE: Final = "?" * 65_537
"""Replaces the value of a variable that is too large to be read. It exceeds the limit for an instance's variables
(`MAX_VARIABLES_BYTES` of flowhooks), so flowhooks skips the instance as too large."""
_END_TIME_AND_ID: Final = attrgetter("ended_at", "id")


class FlowableClient:
    """Reads the history of one Flowable through its REST API.

    Args:
        config: the section `[sources.NAME.engine]`.

    Raises:
        ValueError: the URL or the credential cannot be used. The message shows neither.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config: Final = config
        self._api: Final = RestApi(config)
        self._definitions: Final = Definitions(self._api, config.class_variable)
        conclusion = (config.conclusion_variable,) if config.conclusion_from == "variable" else ()
        names = (*config.variables, *conclusion, config.class_variable)
        self._names: Final = [name for name in dict.fromkeys(names) if name]

    def __repr__(self) -> str:
        return f"FlowableClient(source={self._config.source!r})"

    def check(self) -> EngineInfo:
        """Return the engine's version, and why its history is not sufficient for reconciliation, if so."""
        try:
            version = self._api.get("management/engine").members.get("version")
        except EngineError as error:
            if error.reason == "unreachable":
                raise
            version = None  # only administrators may read it
        self._api.query(HISTORY, {"finished": True, "sort": "endTime", "order": "asc", "size": 1})
        return EngineInfo(
            product="Flowable", version=version if isinstance(version, str) else "", problem=self._find_problem()
        )

    def finished(self, since: datetime, until: datetime, cursor: str | None = None) -> FinishedPage:
        """Return a page of finished instances. See `EngineClient`."""
        if cursor is None:
            position = Position(time=floor_ms(since), size=self._config.page_size)
        else:
            position = Position.from_cursor(cursor)
        last_ms = ceil_ms(until)
        if position.time > last_ms:
            return FinishedPage(instances=())
        if position.within:
            rows, next_position, engine_time = self._read_millisecond(position)
        else:
            rows, next_position, engine_time = self._read_page(position, last_ms)
        tenants = self._config.tenants
        selected = {row.id: row for row in rows if not tenants or row.tenant_id in tenants}
        instances = [self._to_finished_instance(row) for row in selected.values()]
        return FinishedPage(
            instances=sorted(
                (instance for instance in instances if since <= instance.ended_at <= until), key=_END_TIME_AND_ID
            ),
            cursor=next_position.to_cursor() if next_position is not None and next_position.time <= last_ms else None,
            engine_time=engine_time,
        )

    def instance(self, instance_id: str) -> FinishedInstance | InstanceStatus:
        """Return an instance, or its status if it is running or absent."""
        rows, *_ = self._query_history({"processInstanceId": instance_id}, size=1)
        if not rows:
            running = _read_results(self._api.query(RUNTIME, {"processInstanceId": instance_id, "size": 1}).members)
            is_running = any(row.get("id") == instance_id for row in running)
            return InstanceStatus.RUNNING if is_running else InstanceStatus.ABSENT
        if rows[0].id != instance_id:
            raise EngineError("invalid", "the engine returned another process instance than requested")
        return InstanceStatus.RUNNING if rows[0].ended_at is None else self._to_finished_instance(rows[0])

    def definitions(self) -> Sequence[ProcessDefinition]:
        """Return the latest version of each deployed definition, for each tenant."""
        definitions: dict[str, ProcessDefinition] = {}
        query = {"latest": "true", "sort": "id", "order": "asc", "size": str(DEFINITIONS_PER_PAGE)}
        start = chars = 0
        for _ in range(MAX_DEFINITION_PAGES):
            members = self._api.get("repository/process-definitions", start=str(start), **query).members
            rows = _read_results(members)
            page = {str(row.get("id")): _read_definition(row) for row in rows}
            definitions |= page
            chars += sum(len(id_) + _count_chars(definition) for id_, definition in page.items())
            if chars > MAX_DEFINITIONS_CHARS:
                raise EngineError("invalid", "the engine's definitions are too large")
            start += len(rows)
            if not rows or start >= _count_results(members, start, DEFINITIONS_PER_PAGE, len(rows)):
                break
        tenants = self._config.tenants
        return [definition for definition in definitions.values() if not tenants or definition.tenant_id in tenants]

    def close(self) -> None:
        """Close the client. The next request opens a new one."""
        self._api.close()

    def _read_page(
        self, position: Position, last_ms: int
    ) -> tuple[list[HistoricInstance], Position | None, datetime | None]:
        """Read a page of instances by end time, from a position on."""
        query = {"finishedAfter": to_json(position.time), "finishedBefore": to_json(last_ms), "sort": "endTime"}
        rows, total, size, engine_time = self._query_history(query, position.size)
        _check_order([row.end_ms for row in rows], position.time, last_ms)
        # Flowable counts the rows after it has listed them, and rows may be deleted in between. So a full response is
        # never treated as the last one.
        if len(rows) >= total and len(rows) < size:
            return rows, None, engine_time
        if not rows:
            raise EngineError("invalid", f"the engine counts {total} finished instances, and lists none")
        last = rows[-1].end_ms
        complete = [row for row in rows if row.end_ms < last]
        if complete:
            # After a response that was too large, the size grows to the configured size again.
            next_size = min(self._config.page_size, size * 2) if size == position.size else size
            return complete, Position(time=last, size=next_size), engine_time
        return self._read_millisecond(Position(time=last, size=size, within=True))

    def _read_millisecond(self, position: Position) -> tuple[list[HistoricInstance], Position | None, datetime | None]:
        """Read a page of instances that ended in one millisecond, by id."""
        # Some databases round to more than a millisecond. So the query includes the next one, which is left out here.
        overlap = 1 if position.offset and position.size > 1 else 0
        start = position.offset - overlap
        query = {
            "finishedAfter": to_json(position.time),
            "finishedBefore": to_json(position.time + 1),
            "sort": "processInstanceId",
            "start": start,
        }
        rows, total, size, engine_time = self._query_history(query, position.size)
        if any(not position.time <= row.end_ms <= position.time + 1 for row in rows):
            raise EngineError("invalid", "the engine listed an instance with another end time than requested")
        if overlap and (not rows or rows[0].id != position.last_id):
            if position.restarts == MAX_RESTARTS:
                raise EngineError(
                    "invalid", f"the instances that ended at {to_json(position.time)} change while they are read"
                )
            restarted = replace(position, offset=0, last_id="", restarts=position.restarts + 1)
            return [], restarted, engine_time
        ended_at_time = [row for row in rows[overlap:] if row.end_ms == position.time]
        count = start + len(rows)
        if count >= total and len(rows) < size:
            next_size = min(self._config.page_size, size * 2) if size == position.size else size
            return ended_at_time, Position(time=position.time + 1, size=next_size), engine_time
        if len(rows) <= overlap < size:
            raise EngineError("invalid", f"the engine counts {total} instances that ended at once, and lists {count}")
        return ended_at_time, replace(position, size=size, offset=count, last_id=rows[-1].id), engine_time

    def _query_history(
        self, query: dict[str, Any], size: int
    ) -> tuple[list[HistoricInstance], int, int, datetime | None]:
        """Send a query of the history. If the response is too large, send it again with a smaller size.

        Returns:
            The instances, the number of all instances that match, the size of the last query, and the engine's clock.
        """
        body = {"finished": True, "order": "asc", **query}
        if "processInstanceId" in query:
            del body["finished"]
        variable_options = (
            {"includeProcessVariables": True, "includeProcessVariablesNames": self._names} if self._names else {}
        )
        while True:
            try:
                response = self._api.query(HISTORY, {**body, **variable_options, "size": size})
                break
            except ResponseTooLarge:
                if size > 1:
                    size = max(1, size // 8)
                elif variable_options:
                    variable_options = {}
                else:
                    raise
        members = response.members
        rows = [HistoricInstance.from_row(row) for row in _read_results(members)]
        if self._names and not variable_options:
            rows = [self._with_variables(row) for row in rows]
        if len(rows) > size:
            raise EngineError("invalid", f"the engine lists {len(rows)} instances instead of {size}")
        total = _count_results(members, query.get("start", 0) + len(rows), size, len(rows))
        return rows, total, size, response.engine_time

    def _with_variables(self, row: HistoricInstance) -> HistoricInstance:
        """Read the variables of an instance one by one, because they are too large for one response."""
        values: dict[str, Any] = {}
        types: dict[str, Any] = {}
        for name in self._names:
            query = {"processInstanceId": row.id, "variableName": name, "excludeTaskVariables": True, "size": 100}
            try:
                variables = _read_results(self._api.query(VARIABLES, query).members)
            except ResponseTooLarge:
                values[name] = TOO_LARGE
                continue
            for entry in variables:
                variable = entry.get("variable")
                is_own = entry.get("executionId") in {None, row.id} and entry.get("taskId") is None
                if is_own and isinstance(variable, dict) and variable.get("name") == name:
                    values[name], types[name] = variable.get("value"), variable.get("type")
        return replace(row, variables=values, types=types)

    def _to_finished_instance(self, row: HistoricInstance) -> FinishedInstance:
        if row.ended_at is None:
            raise row.missing_end_error()
        key, version = self._definitions.identity(row.definition_id) if row.definition_id else (None, None)
        return FinishedInstance(
            id=row.id,
            ended_at=row.ended_at,
            end_state=self._end_state(row),
            started_at=row.started_at,
            process_definition_id=row.definition_id,
            process_definition_key=key,
            process_definition_version=version,
            business_key=row.business_key,
            callback_class=self._callback_class(row),
            conclusion=self._conclusion(row),
            variables={name: row.variables[name] for name in self._config.variables if name in row.variables},
            parent_id=row.parent_id,
            tenant_id=row.tenant_id,
        )

    def _end_state(self, row: HistoricInstance) -> EndState:
        is_own: bool | None = True
        if row.is_terminated and row.parent_id is not None:
            diagram = self._definitions.diagram(row.definition_id) if row.definition_id else None
            is_own = None if diagram is None else row.end_activity in diagram.terminate_events
        return decide_end_state(row, own_terminate_event=is_own)

    def _callback_class(self, row: HistoricInstance) -> str | None:
        name = self._config.class_variable
        if not name:
            return None
        if row.parent_id is None:
            return row.variable_text(name, MAX_CLASS_CHARS)
        # Variables of a called instance may be copies of its caller's. The class of the instance is in its own diagram.
        diagram = self._definitions.diagram(row.definition_id) if row.definition_id else None
        return diagram.callback_class if diagram else None

    def _conclusion(self, row: HistoricInstance) -> str | None:
        source = self._config.conclusion_from
        if source == "end_event":
            return row.end_activity
        if source == "business_status":
            return row.business_status
        # A variable of a called instance may be a copy of its caller's conclusion.
        return None if row.parent_id else row.variable_text(self._config.conclusion_variable, MAX_CONCLUSION_CHARS)

    def _find_problem(self) -> str:
        """Return why the history is not sufficient; `""` if it is, or if no instance is running.

        A definition can have its own history level. So only a history without any instance or variable is a problem.
        """
        try:
            running = _read_results(
                self._api.query(RUNTIME, {"size": SAMPLE_SIZE, "includeProcessVariables": True}).members
            )
        except ResponseTooLarge:
            return ""
        if running and not _read_results(self._api.query(HISTORY, {"size": 1}).members):
            return f"Flowable does not keep the history of its instances; {HISTORY_LEVEL_HINT}"
        has_variables = any(row.get("variables") for row in running)
        if self._names and has_variables and not _read_results(self._api.query(VARIABLES, {"size": 1}).members):
            return f"Flowable does not keep the variables of its instances; {HISTORY_LEVEL_HINT}"
        return ""


def _read_results(members: dict[str, Any]) -> list[dict[str, Any]]:
    data = members.get("data")
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise EngineError(
            "invalid", "the engine responded without a list of results; check that url is Flowable's REST API"
        )
    return data


def _count_results(members: dict[str, Any], n_read: int, size: int, n_rows: int) -> int:
    """Return the number of all results. If the engine does not send it, a full response counts as incomplete."""
    total = members.get("total")
    return total if isinstance(total, int) else n_read + (n_rows == size)


def _read_definition(row: dict[str, Any]) -> ProcessDefinition:
    key, version, name = row.get("key"), row.get("version"), row.get("name") or ""
    tenant = row.get("tenantId") or None
    if not (isinstance(key, str) and isinstance(version, int) and isinstance(name, str)):
        raise EngineError("invalid", "the engine returned a process definition that cannot be read")
    return ProcessDefinition(key=key, version=version, name=name, tenant_id=tenant)


def _count_chars(definition: ProcessDefinition) -> int:
    return len(definition.key) + len(definition.name) + len(definition.tenant_id or "")


def _check_order(ends: list[int], first_ms: int, last_ms: int) -> None:
    """Check that a response matches its query. A cache or a proxy may return the response of an earlier query."""
    if ends != sorted(ends):
        raise EngineError("invalid", "the engine listed instances in another order than by end time")
    if not all(_is_in_window(end, first_ms, last_ms) for end in (*ends[:1], *ends[-1:])):
        raise EngineError("invalid", "the engine listed an instance with another end time than requested")


def _is_in_window(end: int, first_ms: int, last_ms: int) -> bool:
    """Return whether an end time is in the window of a query, also if a clock change makes it wrong.

    Flowable stores local times. While clocks are set back, a local time exists twice. Flowable then finds an instance
    by its true end time, and returns the other end time.
    """
    return any(first_ms <= end + change <= last_ms for change in (0, *CLOCK_CHANGES_MS))
