"""Asks Flowable about its finished process instances.

The history is read by end time, in milliseconds. A query has its earliest end time, which is included, and its size; it
has no offset. If the answer has not all that there is, its last end time may be incomplete: the instances that ended
then are left out, and the next query begins with them. So no row that appears or disappears can shift another one.
If all instances of a full answer ended in the same millisecond, that millisecond is read by id and offset. Each query
of it begins with the last instance of the one before, which shows whether rows have shifted meanwhile.

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
    end_state,
)
from flowhooks_flowable.position import Position
from flowhooks_flowable.rest_api import AnswerTooLarge, RestApi
from flowhooks_flowable.times import ceil_ms, floor_ms, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

HISTORY: Final = "query/historic-process-instances"
RUNTIME: Final = "query/process-instances"
VARIABLES: Final = "query/historic-variable-instances"
MAX_RESTARTS: Final = 5
"""How often reading one millisecond may begin again because its instances have changed."""
CLOCK_CHANGES_MS: Final = (-3_600_000, 3_600_000, -1_800_000, 1_800_000)
"""Milliseconds by which an end can be wrong while clocks go back: an hour, and half an hour on Lord Howe Island."""
MAX_DEFINITION_PAGES: Final = 100
DEFINITIONS_PER_PAGE: Final = 500
MAX_DEFINITIONS_CHARS: Final = 8_000_000
"""Maximum size of the texts of all definitions: they are kept together."""
SAMPLE: Final = 5
"""Number of running instances that are read to find out whether they have variables."""
SET_LEVEL: Final = (
    "set its history level to audit, in Spring Boot with flowable.history-level=audit, and restart the engine."
)
TOO_LARGE: Final = "?" * 65_537
"""Stands for the value of a variable that cannot be read because of its size. It exceeds the limit for an instance's
variables (`MAX_VARIABLES_BYTES` of flowhooks), so that the instance is skipped as too large."""
ENDS_AT_ID: Final = attrgetter("ended_at", "id")


class FlowableClient:
    """Asks one Flowable.

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
        """Return the engine's version, and whether it keeps the history that is needed."""
        try:
            version = self._api.get("management/engine").members.get("version")
        except EngineError as error:
            if error.reason == "unreachable":
                raise
            version = None  # only administrators may ask for it
        self._api.query(HISTORY, {"finished": True, "sort": "endTime", "order": "asc", "size": 1})
        return EngineInfo(
            product="Flowable", version=version if isinstance(version, str) else "", problem=self._problem()
        )

    def finished(self, since: datetime, until: datetime, cursor: str | None = None) -> FinishedPage:
        """Return a page of instances that have ended."""
        if cursor is None:
            position = Position(time=floor_ms(since), size=self._config.page_size)
        else:
            position = Position.read(cursor)
        last_ms = ceil_ms(until)
        if position.time > last_ms:
            return FinishedPage(instances=())
        if position.within:
            rows, following, engine_time = self._page_of_one_end(position)
        else:
            rows, following, engine_time = self._page(position, last_ms)
        tenants = self._config.tenants
        wanted = {row.id: row for row in rows if not tenants or row.tenant_id in tenants}
        instances = [self._finished(row) for row in wanted.values()]
        return FinishedPage(
            instances=sorted(
                (instance for instance in instances if since <= instance.ended_at <= until), key=ENDS_AT_ID
            ),
            cursor=following.cursor() if following is not None and following.time <= last_ms else None,
            engine_time=engine_time,
        )

    def instance(self, instance_id: str) -> FinishedInstance | InstanceStatus:
        """Return an instance, or why there is none."""
        rows, *_ = self._rows({"processInstanceId": instance_id}, size=1)
        if not rows:
            running = _data(self._api.query(RUNTIME, {"processInstanceId": instance_id, "size": 1}).members)
            is_running = any(row.get("id") == instance_id for row in running)
            return InstanceStatus.RUNNING if is_running else InstanceStatus.ABSENT
        if rows[0].id != instance_id:
            raise EngineError("invalid", "the engine answered with another process instance than the one asked for")
        return InstanceStatus.RUNNING if rows[0].ended_at is None else self._finished(rows[0])

    def definitions(self) -> Sequence[ProcessDefinition]:
        """Return the latest version of each deployed definition, for each tenant."""
        found: dict[str, ProcessDefinition] = {}
        query = {"latest": "true", "sort": "id", "order": "asc", "size": str(DEFINITIONS_PER_PAGE)}
        start = chars = 0
        for _ in range(MAX_DEFINITION_PAGES):
            members = self._api.get("repository/process-definitions", start=str(start), **query).members
            rows = _data(members)
            read = {str(row.get("id")): _definition(row) for row in rows}
            found |= read
            chars += sum(len(id_) + _chars(definition) for id_, definition in read.items())
            if chars > MAX_DEFINITIONS_CHARS:
                raise EngineError("invalid", "the engine's definitions are too large")
            start += len(rows)
            if not rows or start >= _total(members, start, DEFINITIONS_PER_PAGE, len(rows)):
                break
        tenants = self._config.tenants
        return [definition for definition in found.values() if not tenants or definition.tenant_id in tenants]

    def close(self) -> None:
        """Close all connections."""
        self._api.close()

    def _page(
        self, position: Position, last_ms: int
    ) -> tuple[list[HistoricInstance], Position | None, datetime | None]:
        """Read instances from a position on, by their end time."""
        query = {"finishedAfter": to_json(position.time), "finishedBefore": to_json(last_ms), "sort": "endTime"}
        rows, total, size, engine_time = self._rows(query, position.size)
        _check_order([row.end_ms for row in rows], position.time, last_ms)
        # Flowable counts after it has listed: rows may be deleted in between, so a full answer is never the last one.
        if len(rows) >= total and len(rows) < size:
            return rows, None, engine_time
        if not rows:
            raise EngineError("invalid", f"the engine says that {total} instances have ended, and lists none")
        last = rows[-1].end_ms
        complete = [row for row in rows if row.end_ms < last]
        if complete:
            # After an answer that was too large, the size grows to the configured one again.
            grown = min(self._config.page_size, size * 2) if size == position.size else size
            return complete, Position(time=last, size=grown), engine_time
        return self._page_of_one_end(Position(time=last, size=size, within=True))

    def _page_of_one_end(self, position: Position) -> tuple[list[HistoricInstance], Position | None, datetime | None]:
        """Read instances that ended in one millisecond, by their id."""
        # Some databases round to more than a millisecond: the next one is asked for, too, and left out here.
        overlap = 1 if position.offset and position.size > 1 else 0
        start = position.offset - overlap
        query = {
            "finishedAfter": to_json(position.time),
            "finishedBefore": to_json(position.time + 1),
            "sort": "processInstanceId",
            "start": start,
        }
        rows, total, size, engine_time = self._rows(query, position.size)
        if any(not position.time <= row.end_ms <= position.time + 1 for row in rows):
            raise EngineError("invalid", "the engine listed an instance with another end time than was asked for")
        if overlap and (not rows or rows[0].id != position.last_id):
            if position.restarts == MAX_RESTARTS:
                raise EngineError(
                    "invalid", f"the instances that ended at {to_json(position.time)} change while they are read"
                )
            again = replace(position, offset=0, last_id="", restarts=position.restarts + 1)
            return [], again, engine_time
        at_end = [row for row in rows[overlap:] if row.end_ms == position.time]
        read = start + len(rows)
        if read >= total and len(rows) < size:
            grown = min(self._config.page_size, size * 2) if size == position.size else size
            return at_end, Position(time=position.time + 1, size=grown), engine_time
        if len(rows) <= overlap < size:
            raise EngineError("invalid", f"the engine says that {total} instances ended at once, and lists {read}")
        return at_end, replace(position, size=size, offset=read, last_id=rows[-1].id), engine_time

    def _rows(self, query: dict[str, Any], size: int) -> tuple[list[HistoricInstance], int, int, datetime | None]:
        """Send a query of the history.

        Returns:
            The instances, the number of all that match, the size that was asked for at last, and the engine's clock.
        """
        body = {"finished": True, "order": "asc", **query}
        if "processInstanceId" in query:
            del body["finished"]
        named = {"includeProcessVariables": True, "includeProcessVariablesNames": self._names} if self._names else {}
        while True:
            try:
                answer = self._api.query(HISTORY, {**body, **named, "size": size})
                break
            except AnswerTooLarge:
                if size > 1:
                    size = max(1, size // 8)
                elif named:
                    named = {}
                else:
                    raise
        members = answer.members
        rows = [HistoricInstance.read(row) for row in _data(members)]
        if self._names and not named:
            rows = [self._with_variables(row) for row in rows]
        if len(rows) > size:
            raise EngineError("invalid", f"the engine lists {len(rows)} instances instead of {size}")
        total = _total(members, query.get("start", 0) + len(rows), size, len(rows))
        return rows, total, size, answer.engine_time

    def _with_variables(self, row: HistoricInstance) -> HistoricInstance:
        """Read the variables of an instance one by one, because all of them together are too large."""
        found: dict[str, Any] = {}
        types: dict[str, Any] = {}
        for name in self._names:
            query = {"processInstanceId": row.id, "variableName": name, "excludeTaskVariables": True, "size": 100}
            try:
                variables = _data(self._api.query(VARIABLES, query).members)
            except AnswerTooLarge:
                found[name] = TOO_LARGE
                continue
            for entry in variables:
                variable = entry.get("variable")
                own = entry.get("executionId") in {None, row.id} and entry.get("taskId") is None
                if own and isinstance(variable, dict) and variable.get("name") == name:
                    found[name], types[name] = variable.get("value"), variable.get("type")
        return replace(row, variables=found, types=types)

    def _finished(self, row: HistoricInstance) -> FinishedInstance:
        if row.ended_at is None:
            raise row.without_end()
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
            callback_class=self._class(row),
            conclusion=self._conclusion(row),
            variables={name: row.variables[name] for name in self._config.variables if name in row.variables},
            parent_id=row.parent_id,
            tenant_id=row.tenant_id,
        )

    def _end_state(self, row: HistoricInstance) -> EndState:
        own: bool | None = True
        if row.is_terminated and row.parent_id is not None:
            diagram = self._definitions.diagram(row.definition_id) if row.definition_id else None
            own = None if diagram is None else row.end_activity in diagram.terminate_events
        return end_state(row, own_terminate_event=own)

    def _class(self, row: HistoricInstance) -> str | None:
        name = self._config.class_variable
        if not name:
            return None
        if row.parent_id is None:
            return row.text_of(name, MAX_CLASS_CHARS)
        # Variables of a called instance may be copies of its caller's. Its own class is a data object of its diagram.
        diagram = self._definitions.diagram(row.definition_id) if row.definition_id else None
        return diagram.callback_class if diagram else None

    def _conclusion(self, row: HistoricInstance) -> str | None:
        source = self._config.conclusion_from
        if source == "end_event":
            return row.end_activity
        if source == "business_status":
            return row.business_status
        # As above: it may be the caller's conclusion.
        return None if row.parent_id else row.text_of(self._config.conclusion_variable, MAX_CONCLUSION_CHARS)

    def _problem(self) -> str:
        """Return why the history cannot tell how instances ended; `""` if it can, or if no instance is running.

        A definition can have a history level of its own. So only a history without any instance or variable is a
        problem.
        """
        try:
            running = _data(self._api.query(RUNTIME, {"size": SAMPLE, "includeProcessVariables": True}).members)
        except AnswerTooLarge:
            return ""
        if running and not _data(self._api.query(HISTORY, {"size": 1}).members):
            return f"Flowable does not keep the history of its instances; {SET_LEVEL}"
        has_variables = any(row.get("variables") for row in running)
        if self._names and has_variables and not _data(self._api.query(VARIABLES, {"size": 1}).members):
            return f"Flowable does not keep the variables of its instances; {SET_LEVEL}"
        return ""


def _data(members: dict[str, Any]) -> list[dict[str, Any]]:
    data = members.get("data")
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise EngineError(
            "invalid", "the engine answered without a list of results; check that url is Flowable's REST API"
        )
    return data


def _total(members: dict[str, Any], read: int, size: int, rows: int) -> int:
    """Return the number of all results. If the engine does not tell it, a full answer has further ones."""
    total = members.get("total")
    return total if isinstance(total, int) else read + (rows == size)


def _definition(row: dict[str, Any]) -> ProcessDefinition:
    key, version, name = row.get("key"), row.get("version"), row.get("name") or ""
    tenant = row.get("tenantId") or None
    if not (isinstance(key, str) and isinstance(version, int) and isinstance(name, str)):
        raise EngineError("invalid", "the engine answered with a process definition that cannot be read")
    return ProcessDefinition(key=key, version=version, name=name, tenant_id=tenant)


def _chars(definition: ProcessDefinition) -> int:
    return len(definition.key) + len(definition.name) + len(definition.tenant_id or "")


def _check_order(ends: list[int], first_ms: int, last_ms: int) -> None:
    """Check that an answer has what was asked for: a cache or a proxy may have answered an earlier query."""
    if ends != sorted(ends):
        raise EngineError("invalid", "the engine listed instances in another order than by their end time")
    if not all(_is_in(end, first_ms, last_ms) for end in (*ends[:1], *ends[-1:])):
        raise EngineError("invalid", "the engine listed an instance with another end time than was asked for")


def _is_in(end: int, first_ms: int, last_ms: int) -> bool:
    """Return whether an end was asked for, also if Flowable's local time mistakes it.

    Flowable stores local times. While clocks go back, a local time exists twice. Flowable then finds an instance by its
    true end, and tells the other one.
    """
    return any(first_ms <= end + change <= last_ms for change in (0, *CLOCK_CHANGES_MS))
