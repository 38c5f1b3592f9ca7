"""The variables of process instances, as JSON values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from flowhooks_camunda.rest import AnswerTooLarge
from flowhooks_camunda.row import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks_camunda.rest import RestApi
    from flowhooks_camunda.row import Row

PATH: Final = "history/variable-instance"
MAX_IDS: Final = 500
"""Maximum number of instances of a request. Each id is sent twice, and SQL Server allows 2,100 parameters."""
TOO_LARGE: Final = "?" * 65_537
"""Stands for the value of a variable that cannot be read because of its size. It exceeds the limit for an instance's
variables (`MAX_VARIABLES_BYTES` of flowhooks), so that the instance is skipped as too large."""
MAX_CHARS: Final = 70_000
"""Maximum size of the variables of an instance that are kept: `MAX_VARIABLES_BYTES`, a conclusion and a class."""
_JSON_FORMAT: Final = "application/json"


def read_variables(api: RestApi, ids: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the variables of instances, by the instance's id and the variable's name.

    Only variables of the process instance itself are read, not those of its tasks and sub-processes. One request reads
    up to 500 instances. If their variables together are too large for an answer, it is repeated with half as many. The
    variables of one instance are then read one by one, and `TOO_LARGE` stands for one that is too large by itself. It
    also stands for values beyond `MAX_CHARS`, so that a page of large ones does not fill the memory.

    Raises:
        EngineError: there is no readable answer.
    """
    found: dict[str, dict[str, Any]] = {instance_id: {} for instance_id in ids}
    sizes = dict.fromkeys(ids, 0)
    todo = [ids[start : start + MAX_IDS] for start in range(0, len(ids), MAX_IDS)] if names else []
    while todo:
        some = todo.pop()
        query = {"processInstanceIdIn": list(some), "activityInstanceIdIn": list(some), "variableNameIn": list(names)}
        count = len(some) * len(names)
        try:
            answer = api.post(PATH, query, maxResults=count, deserializeValues="false")
        except AnswerTooLarge:
            if len(some) == 1:
                found[some[0]] = _read_each(api, some[0], names)
                continue
            todo += [some[: len(some) // 2], some[len(some) // 2 :]]
            continue
        for row in rows(PATH, answer.json):
            name, instance_id = row.text("name"), row.text("processInstanceId")
            if instance_id in found and name in names and row.optional_text("activityInstanceId") == instance_id:
                value = _value(row)
                if value is not _NO_JSON:
                    sizes[instance_id] += _size(value)
                    found[instance_id][name] = value if sizes[instance_id] <= MAX_CHARS else TOO_LARGE
    return found


def _read_each(api: RestApi, instance_id: str, names: Sequence[str]) -> dict[str, Any]:
    """Read the variables of an instance one by one, because all of them together are too large."""
    if len(names) == 1:
        return {names[0]: TOO_LARGE}
    found: dict[str, Any] = {}
    for name in names:
        found |= read_variables(api, [instance_id], [name])[instance_id]
    return found


_NO_JSON: Final = object()


def _value(row: Row) -> Any:
    """Return a variable's value, or `_NO_JSON` for a file, bytes and serialized Java objects."""
    kind, value = row.optional_text("type"), row.value("value")
    if kind in {"Bytes", "File"}:
        return _NO_JSON
    if kind in {"Object", "Json"} and isinstance(value, str):
        info = row.value("valueInfo")
        serialized = info.get("serializationDataFormat") if isinstance(info, dict) else None
        if kind == "Object" and serialized != _JSON_FORMAT:
            return _NO_JSON
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return _NO_JSON
    return value


def _size(value: Any) -> int:
    try:
        return len(json.dumps(value, ensure_ascii=False))
    except (ValueError, RecursionError):
        return MAX_CHARS  # it cannot be written as JSON, so that its instance is skipped


def as_text(value: Any) -> str | None:
    """Return a variable's value as a conclusion: a text, or a number or truth value in JSON; None for all others."""
    if isinstance(value, str):
        return value or None
    return json.dumps(value) if isinstance(value, bool | int | float) else None
