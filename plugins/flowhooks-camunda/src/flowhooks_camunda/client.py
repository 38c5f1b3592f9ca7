"""The engine client of Camunda 7, Operaton and CIB seven.

The pages of finished instances are ordered by end time and then by id. A cursor names the last instance that was read,
and how many instances of its end time were read. So an offset is only used within one millisecond, and the first row of
the next answer must be that last instance again: otherwise rows have changed, and that millisecond is read again.
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
from flowhooks_camunda.ends import read_ends
from flowhooks_camunda.rest import RestApi
from flowhooks_camunda.row import rows
from flowhooks_camunda.times import format_time
from flowhooks_camunda.variables import as_text, read_variables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowhooks import EngineConfig
    from flowhooks_camunda.ends import End
    from flowhooks_camunda.row import Row

INSTANCES: Final = "history/process-instance"
DEFINITIONS: Final = "process-definition"
PAGE_TIME_FACTOR: Final = 5
"""How many times `timeout` the instances of a page are asked about one by one. flowhooks waits ten times `timeout` for
a page, and a page of instances that started long ago needs a request for each of them."""
MAX_DEFINITION_PAGES: Final = 1000
"""Limit of the requests for definitions: an engine that ignores the offset would have no last page."""
MAX_DEFINITIONS_CHARS: Final = 8_000_000
"""Maximum size of all definitions: they are kept together."""
DEFINITION_CHARS: Final = 80
"""Size of a definition without its texts. So there are at most 100,000."""
_DEFINITION_ID: Final = re.compile(r"[^:]*:([0-9]{1,9}):[^:]*")
"""Key, version, and an id."""
_ORDER: Final = [{"sortBy": "endTime", "sortOrder": "asc"}, {"sortBy": "instanceId", "sortOrder": "asc"}]


@dataclass(frozen=True, slots=True)
class _Position:
    """Where a page continues.

    Attributes:
        end: the end time of the last instance that was read.
        count: the number of instances with this end time that were read.
        last_id: the last of them.
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
    """Asks one engine through its REST API.

    Args:
        config: the section `[sources.NAME.engine]`. `url` is the base URL, such as `http://localhost:8080/engine-rest`.

    Raises:
        ValueError: a value of the section cannot be used with Camunda.
    """

    def __init__(self, config: EngineConfig) -> None:
        if config.conclusion_from == "business_status":
            raise ValueError('conclusion_from = "business_status": Camunda has no business status')
        self._config = config
        self._api = RestApi(config)
        names = [*config.variables, config.class_variable]
        names += [config.conclusion_variable] if config.conclusion_from == "variable" else []
        self._names = tuple(dict.fromkeys(name for name in names if name))

    def check(self) -> EngineInfo:
        """Return the engine's version, and whether its history has what reconciliation needs."""
        (version,) = rows("version", [self._api.get("version").json])
        number = version.text("version")
        product = "Camunda 7" if number.startswith("7.") else "Operaton or CIB seven"
        return EngineInfo(product=product, version=number, problem=self._problem())

    def finished(self, since: datetime, until: datetime, cursor: str | None = None) -> FinishedPage:
        """Return a page of finished instances. See `EngineClient`."""
        deadline = monotonic() + PAGE_TIME_FACTOR * self._config.timeout
        position = _Position.from_cursor(cursor) if cursor is not None else None
        start = since if position is None else position.end
        size, count = self._config.page_size, 0
        if position is not None:
            listed, engine_time = self._page(start, until, first=position.count - 1, size=size + 1)
            if listed and listed[0].text("id") == position.last_id:
                listed, count = listed[1:], position.count
            else:
                position = None
        if position is None:
            listed, engine_time = self._page(start, until, first=0, size=size)
        wanted = [row for row in listed if since <= row.time("endTime") <= until]
        ends = read_ends(self._api, wanted, is_late=lambda: monotonic() >= deadline)
        undecided = next((row for row in wanted if row.text("id") not in ends), None)
        is_full = len(listed) >= size
        if undecided is not None:  # the next page begins with it
            listed, wanted = listed[: listed.index(undecided)], wanted[: wanted.index(undecided)]
        following = None
        if is_full or undecided is not None:
            end = listed[-1].time("endTime")
            same = sum(row.time("endTime") == end for row in listed)
            following = _Position(end, same + (count if end == start else 0), listed[-1].text("id")).to_cursor()
        instances = self._instances(wanted, ends)
        return FinishedPage(instances=instances, cursor=following, engine_time=engine_time)

    def instance(self, instance_id: str) -> FinishedInstance | InstanceStatus:
        """Return an instance, or why there is none."""
        # A query, because an id in a path could lead elsewhere, and because a wrong URL must not be an absent instance.
        answer = self._api.post(INSTANCES, {"processInstanceIds": [instance_id]}, maxResults=1)
        found = [row for row in rows(INSTANCES, answer.json) if row.text("id") == instance_id][:1]
        if not found:
            return InstanceStatus.ABSENT
        if found[0].optional_time("endTime") is None:
            return InstanceStatus.RUNNING
        return self._instances(found, read_ends(self._api, found))[0]

    def definitions(self) -> Sequence[ProcessDefinition]:
        """Return the latest version of each deployed definition."""
        found: dict[tuple[str, str | None], ProcessDefinition] = {}
        size, chars = self._config.page_size, 0
        for page in range(MAX_DEFINITION_PAGES):
            answer = self._api.get(
                DEFINITIONS,
                latestVersion="true",
                sortBy="id",
                sortOrder="asc",
                firstResult=page * size,
                maxResults=size,
            )
            listed = rows(DEFINITIONS, answer.json)
            for row in listed:
                definition = ProcessDefinition(
                    key=row.text("key"),
                    version=row.optional_integer("version") or 0,
                    name=row.optional_text("name") or "",
                    tenant_id=row.optional_text("tenantId"),
                )
                if not self._config.tenants or definition.tenant_id in self._config.tenants:
                    found[definition.key, definition.tenant_id] = definition
                    texts = (definition.key, definition.name, definition.tenant_id or "")
                    chars += DEFINITION_CHARS + sum(map(len, texts))
            if chars > MAX_DEFINITIONS_CHARS:
                raise EngineError("invalid", f"{DEFINITIONS}: the definitions are too many, or too large.")
            if len(listed) < size:
                return list(found.values())
        raise EngineError("invalid", f"{DEFINITIONS}: the list has no end: is firstResult ignored?")

    def close(self) -> None:
        """Close the connection."""
        self._api.close()

    def _problem(self) -> str:
        """Return why the history is not sufficient. The REST API does not give the history level: it is inferred."""
        if self._has("process-instance") and not self._has(INSTANCES):
            return (
                "The engine has running instances and an empty history. Set its history level to audit or full, and "
                "give the user of the REST API the permission READ_HISTORY on all process definitions."
            )
        if self._names and self._has("variable-instance") and not self._has("history/variable-instance"):
            return (
                "The engine has variables and none in its history, so conclusions and variables are missing. Set its "
                "history level to audit or full."
            )
        return ""

    def _has(self, path: str) -> bool:
        more = {"deserializeValues": "false"} if path.endswith("variable-instance") else {}
        return bool(rows(path, self._api.get(path, maxResults=1, **more).json))

    def _page(self, since: datetime, until: datetime, *, first: int, size: int) -> tuple[list[Row], datetime | None]:
        query: dict[str, Any] = {
            "finished": True,
            "finishedAfter": format_time(since),
            "finishedBefore": format_time(until),
            "sorting": _ORDER,
        }
        if self._config.tenants:
            query["tenantIdIn"] = list(self._config.tenants)
        answer = self._api.post(INSTANCES, query, firstResult=first, maxResults=size)
        listed = rows(INSTANCES, answer.json)
        if len(listed) > size:
            raise EngineError("invalid", f"{INSTANCES}: the engine lists {len(listed):,} instances instead of {size}.")
        return listed, answer.time

    def _instances(self, listed: Sequence[Row], ends: Mapping[str, End]) -> tuple[FinishedInstance, ...]:
        """Return the instances of rows, by end time and then by id."""
        ids = [row.text("id") for row in listed]
        variables = read_variables(self._api, ids, self._names)
        instances = []
        for row, instance_id in zip(listed, ids, strict=True):
            values = variables[instance_id]
            callback_class = values.get(self._config.class_variable)
            end = ends[instance_id]
            if self._config.conclusion_from == "end_event":
                conclusion = end.event_id
            else:
                conclusion = as_text(values.get(self._config.conclusion_variable))
            key, version = _definition(row)
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
                    callback_class=callback_class if isinstance(callback_class, str) and callback_class else None,
                    conclusion=conclusion,
                    variables={name: values[name] for name in self._config.variables if name in values},
                    parent_id=row.optional_text("superProcessInstanceId"),
                    tenant_id=row.optional_text("tenantId"),
                )
            )
        return tuple(sorted(instances, key=lambda instance: (instance.ended_at, instance.id)))


def _definition(row: Row) -> tuple[str | None, int | None]:
    """Return the key and the version; the version of a deleted definition is in its id, `key:version:id`."""
    key, version = row.optional_text("processDefinitionKey"), row.optional_integer("processDefinitionVersion")
    match = _DEFINITION_ID.fullmatch(row.optional_text("processDefinitionId") or "")
    return key, int(match[1]) if version is None and match else version
