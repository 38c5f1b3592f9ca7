"""The engine client of Camunda 7, Operaton and CIB seven.

The pages of finished instances are ordered by end time and then by id. A cursor has the end time and the id of the last
instance that was read, and the number of instances with this end time that were read. So an offset is only used within
one millisecond. The first row of the next response must be that last instance again. If it is not, rows have changed,
and that millisecond is read again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from flowhooks import (
    EngineError,
    EngineInfo,
    FinishedInstance,
    FinishedPage,
    InstanceStatus,
    ProcessDefinition,
)
from flowhooks_camunda.definitions import DefinitionClasses
from flowhooks_camunda.ends import read_ends
from flowhooks_camunda.rest import ResponseTooLarge, RestApi
from flowhooks_camunda.row import Row, read_rows
from flowhooks_camunda.times import format_time
from flowhooks_camunda.variables import read_variables, to_conclusion

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks import EngineConfig
    from flowhooks_camunda.ends import End

INSTANCES: Final = "history/process-instance"
DEFINITIONS: Final = "process-definition"
PAGE_TIME_FACTOR: Final = 5
"""Time budget for requests about the ends of a page's instances, as a multiple of `timeout`. flowhooks waits ten times
`timeout` for a page, and a page of instances that started long ago needs a request for each of them."""
MAX_DEFINITION_PAGES: Final = 1000
"""Maximum number of requests for definitions. An engine that ignores the offset would have no last page."""
MAX_DEFINITIONS_CHARS: Final = 8_000_000
"""Maximum size of all definitions, which are in memory together."""
DEFINITION_OVERHEAD_CHARS: Final = 80
"""Size counted for a definition in addition to its texts. So there are at most 100,000 definitions."""
_DEFINITION_ID: Final = re.compile(r"[^:]*:([0-9]{1,9}):[^:]*")
"""The key, the version and an id."""
_ORDER: Final = [{"sortBy": "endTime", "sortOrder": "asc"}, {"sortBy": "instanceId", "sortOrder": "asc"}]


@dataclass(frozen=True, slots=True)
class _Position:
    """The position where the next page begins.

    Attributes:
        end: the end time of the last instance that was read.
        count: the number of instances with this end time that were read.
        last_id: the id of the last instance that was read.
    """

    end: datetime
    count: int
    last_id: str

    def to_cursor(self) -> str:
        return json.dumps([self.end.isoformat(), self.count, self.last_id])

    @classmethod
    def from_cursor(cls, cursor: str) -> _Position:
        end, count, last_id = json.loads(cursor)
        return cls(datetime.fromisoformat(end), count, last_id)


class CamundaClient:
    """Reads the history of one engine through its REST API.

    Args:
        config: the section `[sources.NAME.engine]`. `url` is the base URL, such as `http://localhost:8080/engine-rest`.

    Raises:
        ValueError: Camunda does not support a value of the section, or the token cannot be sent.
    """

    def __init__(self, config: EngineConfig) -> None:
        if config.conclusion_from == "business_status":
            raise ValueError('conclusion_from = "business_status": Camunda has no business status')
        self._config = config
        self._api = RestApi(config)
        self._classes = DefinitionClasses(self._api, config.class_variable)
        names = [*config.variables, config.class_variable]
        names += [config.conclusion_variable] if config.conclusion_from == "variable" else []
        self._names = tuple(dict.fromkeys(name for name in names if name))

    def check(self) -> EngineInfo:
        """Return the engine's version, and why its history is not sufficient for reconciliation, if so."""
        row = Row("version", self._api.get("version").json)
        version = row.text("version")
        product = "Camunda 7" if version.startswith("7.") else "Operaton or CIB seven"
        return EngineInfo(product=product, version=version, problem=self._find_problem())

    def finished(self, since: datetime, until: datetime, cursor: str | None = None) -> FinishedPage:
        """Return a page of finished instances. See `EngineClient`."""
        deadline = monotonic() + PAGE_TIME_FACTOR * self._config.timeout
        position = _Position.from_cursor(cursor) if cursor is not None else None
        start = since if position is None else position.end
        size, previous_count = self._config.page_size, 0
        if position is not None:
            rows, engine_time = self._read_page(start, until, first=position.count - 1, size=size + 1)
            if rows and rows[0].text("id") == position.last_id:
                rows, previous_count = rows[1:], position.count
            else:
                position = None
        if position is None:
            rows, engine_time = self._read_page(start, until, first=0, size=size)
        in_window = [row for row in rows if since <= row.time("endTime") <= until]
        ends = read_ends(self._api, in_window, is_past_deadline=lambda: monotonic() >= deadline)
        first_unread = next((row for row in in_window if row.text("id") not in ends), None)
        is_full = len(rows) >= size
        if first_unread is not None:  # the next page begins with this instance
            rows, in_window = rows[: rows.index(first_unread)], in_window[: in_window.index(first_unread)]
        next_cursor = None
        if is_full or first_unread is not None:
            end = rows[-1].time("endTime")
            count = sum(row.time("endTime") == end for row in rows) + (previous_count if end == start else 0)
            next_cursor = _Position(end, count, rows[-1].text("id")).to_cursor()
        instances = self._to_instances(in_window, ends)
        return FinishedPage(instances=instances, cursor=next_cursor, engine_time=engine_time)

    def instance(self, instance_id: str) -> FinishedInstance | InstanceStatus:
        """Return an instance, or its status if it is running or absent."""
        # The id is sent in a query, because in a path it could select another resource. Status 404 of a wrong URL then
        # does not look like an absent instance.
        response = self._api.post(INSTANCES, {"processInstanceIds": [instance_id]}, maxResults=1)
        rows = [row for row in read_rows(INSTANCES, response.json, maximum=1) if row.text("id") == instance_id][:1]
        if not rows:
            return InstanceStatus.ABSENT
        if rows[0].optional_time("endTime") is None:
            return InstanceStatus.RUNNING
        return self._to_instances(rows, read_ends(self._api, rows))[0]

    def definitions(self) -> Sequence[ProcessDefinition]:
        """Return the latest version of each deployed definition."""
        definitions: dict[tuple[str, str | None], ProcessDefinition] = {}
        size, chars = self._config.page_size, 0
        for page in range(MAX_DEFINITION_PAGES):
            response = self._api.get(
                DEFINITIONS,
                latestVersion="true",
                sortBy="id",
                sortOrder="asc",
                firstResult=page * size,
                maxResults=size,
            )
            rows = read_rows(DEFINITIONS, response.json, maximum=size)
            for row in rows:
                definition = ProcessDefinition(
                    key=row.text("key"),
                    version=row.optional_integer("version") or 0,
                    name=row.optional_text("name") or "",
                    tenant_id=row.optional_text("tenantId"),
                )
                if not self._config.tenants or definition.tenant_id in self._config.tenants:
                    definitions[definition.key, definition.tenant_id] = definition
                    texts = (definition.key, definition.name, definition.tenant_id or "")
                    chars += DEFINITION_OVERHEAD_CHARS + sum(map(len, texts))
            if chars > MAX_DEFINITIONS_CHARS:
                raise EngineError("invalid", f"{DEFINITIONS}: the definitions are too many or too large.")
            if len(rows) < size:
                return list(definitions.values())
        raise EngineError("invalid", f"{DEFINITIONS}: the list has no end; the engine seems to ignore firstResult.")

    def close(self) -> None:
        """Close the client. The next request opens a new one."""
        self._api.close()

    def _find_problem(self) -> str:
        """Return why the history is not sufficient, or `""`. The REST API has no history level, so it is inferred."""
        if self._has_rows("process-instance") and not self._has_rows(INSTANCES):
            return (
                "The engine has running instances and an empty history. Set its history level to audit or full, and "
                "give the user of the REST API the permission READ_HISTORY on all process definitions."
            )
        if self._names and self._has_rows("variable-instance") and not self._has_rows("history/variable-instance"):
            return (
                "The engine has variables and an empty history of variables, so conclusions and variables are missing. "
                "Set its history level to audit or full."
            )
        return ""

    def _has_rows(self, path: str) -> bool:
        params = {"deserializeValues": "false"} if path.endswith("variable-instance") else {}
        try:
            return bool(read_rows(path, self._api.get(path, maxResults=1, **params).json, maximum=1))
        except ResponseTooLarge:  # one row with a large value
            return True

    def _read_page(
        self, since: datetime, until: datetime, *, first: int, size: int
    ) -> tuple[list[Row], datetime | None]:
        query: dict[str, Any] = {
            "finished": True,
            "finishedAfter": format_time(since),
            "finishedBefore": format_time(until),
            "sorting": _ORDER,
        }
        if self._config.tenants:
            query["tenantIdIn"] = list(self._config.tenants)
        response = self._api.post(INSTANCES, query, firstResult=first, maxResults=size)
        return read_rows(INSTANCES, response.json, maximum=size), response.time

    def _to_instances(self, rows: Sequence[Row], ends: Mapping[str, End]) -> tuple[FinishedInstance, ...]:
        """Convert rows to instances, in order of end time and then of id."""
        ids = [row.text("id") for row in rows]
        variables = read_variables(self._api, ids, self._names)
        instances = []
        for row, instance_id in zip(rows, ids, strict=True):
            values = variables[instance_id]
            end, parent_id = ends[instance_id], row.optional_text("superProcessInstanceId")
            # Variables of a called instance may be copies of its caller's, so they tell neither class nor conclusion.
            own_values = values if parent_id is None else {}
            if self._config.conclusion_from == "end_event":
                conclusion = end.event_id
            else:
                conclusion = to_conclusion(own_values.get(self._config.conclusion_variable))
            key, version = _key_and_version(row)
            instances.append(
                FinishedInstance(
                    id=instance_id,
                    ended_at=row.time("endTime"),
                    end_state=end.state,
                    started_at=row.optional_time("startTime"),
                    process_definition_id=row.optional_text("processDefinitionId"),
                    process_definition_key=key,
                    process_definition_version=version,
                    business_key=row.optional_text("businessKey") or None,
                    callback_class=self._callback_class(row, own_values),
                    conclusion=conclusion,
                    variables={name: values[name] for name in self._config.variables if name in values},
                    parent_id=parent_id,
                    tenant_id=row.optional_text("tenantId"),
                )
            )
        return tuple(sorted(instances, key=lambda instance: (instance.ended_at, instance.id)))

    def _callback_class(self, row: Row, values: Mapping[str, Any]) -> str | None:
        """Return the variable; without it, the extension property of the process."""
        name = self._config.class_variable
        if not name:
            return None
        if name in values:
            value = values[name]
            return value if isinstance(value, str) and value else None
        return self._classes.get(row.optional_text("processDefinitionId"), row.optional_text("processDefinitionKey"))


def _key_and_version(row: Row) -> tuple[str | None, int | None]:
    """Return the key and the version of a definition. If it was deleted, its version is in its id, `key:version:id`."""
    key, version = row.optional_text("processDefinitionKey"), row.optional_integer("processDefinitionVersion")
    match = _DEFINITION_ID.fullmatch(row.optional_text("processDefinitionId") or "")
    return key, int(match[1]) if version is None and match else version
