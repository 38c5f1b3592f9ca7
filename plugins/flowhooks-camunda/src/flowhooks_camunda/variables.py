"""The variables of process instances, as JSON values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from flowhooks_camunda.rest import ResponseTooLarge
from flowhooks_camunda.row import read_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowhooks_camunda.rest import RestApi
    from flowhooks_camunda.row import Row

PATH: Final = "history/variable-instance"
MAX_IDS: Final = 500
"""Maximum number of instances in a request. Each id is sent twice, and SQL Server allows 2,100 parameters."""
TOO_LARGE: Final = "?" * 65_537
"""Replaces the value of a variable that is too large to be read. It exceeds the limit for an instance's variables
(`MAX_VARIABLES_BYTES` of flowhooks), so flowhooks skips the instance as too large."""
MAX_INSTANCE_CHARS: Final = 70_000
"""Maximum size of the variables that are kept for an instance: `MAX_VARIABLES_BYTES`, a conclusion and a class."""
_JSON_FORMAT: Final = "application/json"


def read_variables(api: RestApi, ids: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the variables of instances, by the instance's id and the variable's name.

    Only variables of the process instance itself are read, not those of its tasks and sub-processes. One request reads
    the variables of up to `MAX_IDS` instances. If the response is too large, the request is repeated with each half of
    the instances. If the response is too large for a single instance, its variables are read one by one. `TOO_LARGE`
    replaces a variable that alone exceeds the limit of a response. `TOO_LARGE` also replaces each value with which the
    variables of an instance exceed `MAX_INSTANCE_CHARS`, so a page of large values does not fill the memory.

    Raises:
        EngineError: the engine sent no valid response.
    """
    variables: dict[str, dict[str, Any]] = {instance_id: {} for instance_id in ids}
    chars = dict.fromkeys(ids, 0)
    batches = [ids[start : start + MAX_IDS] for start in range(0, len(ids), MAX_IDS)] if names else []
    while batches:
        batch = batches.pop()
        query = {"processInstanceIdIn": list(batch), "activityInstanceIdIn": list(batch), "variableNameIn": list(names)}
        max_results = len(batch) * len(names)
        try:
            response = api.post(PATH, query, maxResults=max_results, deserializeValues="false")
        except ResponseTooLarge:
            if len(batch) == 1:
                variables[batch[0]] = _read_one_by_one(api, batch[0], names)
                continue
            batches += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
            continue
        for row in read_rows(PATH, response.json, maximum=max_results):
            name, instance_id = row.text("name"), row.text("processInstanceId")
            if instance_id in variables and name in names and row.optional_text("activityInstanceId") == instance_id:
                value = _parse_value(row)
                if value is not _NOT_JSON:
                    chars[instance_id] += _count_chars(value)
                    variables[instance_id][name] = value if chars[instance_id] <= MAX_INSTANCE_CHARS else TOO_LARGE
    return variables


def _read_one_by_one(api: RestApi, instance_id: str, names: Sequence[str]) -> dict[str, Any]:
    """Read the variables of an instance one by one, because they are too large for one response."""
    if len(names) == 1:
        return {names[0]: TOO_LARGE}
    variables: dict[str, Any] = {}
    for name in names:
        variables |= read_variables(api, [instance_id], [name])[instance_id]
    return variables


_NOT_JSON: Final = object()


def _parse_value(row: Row) -> Any:
    """Return a variable's value; `_NOT_JSON` for a file, bytes or a serialized Java object."""
    variable_type, value = row.optional_text("type"), row.value("value")
    if variable_type in {"Bytes", "File"}:
        return _NOT_JSON
    if variable_type in {"Object", "Json"} and isinstance(value, str):
        info = row.value("valueInfo")
        data_format = info.get("serializationDataFormat") if isinstance(info, dict) else None
        if variable_type == "Object" and data_format != _JSON_FORMAT:
            return _NOT_JSON
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return _NOT_JSON
    return value


def _count_chars(value: Any) -> int:
    try:
        return len(json.dumps(value, ensure_ascii=False))
    except (ValueError, RecursionError):
        return MAX_INSTANCE_CHARS  # it cannot be written as JSON, so flowhooks skips the instance


def to_conclusion(value: Any) -> str | None:
    """Convert a variable's value to a conclusion: a text, or a number or boolean as JSON; None for other values."""
    if isinstance(value, str):
        return value or None
    return json.dumps(value) if isinstance(value, bool | int | float) else None
