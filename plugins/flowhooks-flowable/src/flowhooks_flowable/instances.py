"""Instances of an answer, and how they ended. Nothing here sends a request.

How an instance ended, in the history of Flowable 6 and 7:

- No `deleteReason`: it ended at the activity `endActivityId`. An error end event that nothing catches is never
  committed, so it is not in the history.
- `deleteReason` begins with "terminate end event", and `endActivityId` is that event. An instance that its caller's
  terminate end event ended has these values, too: the diagram of its own definition decides.
- `deleteReason` begins with "ERROR_EVENT": an error left the instance, and its caller caught it.
- Any other `deleteReason`: somebody deleted it, or an event of its caller interrupted it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flowhooks import EndState, EngineError
from flowhooks_flowable.times import floor_ms, from_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

MAX_CONCLUSION_CHARS: Final = 128
MAX_CLASS_CHARS: Final = 512
MAX_ID_CHARS: Final = 64
"""Length of the engine's column. An error shows no more of an id, because it is part of an answer."""
_DEFINITION_ID: Final = re.compile(r"([^:]+):([0-9]{1,9}):[^:]+")
"""The form of most definition ids: key, version, and an id. A long key is left out, and then only the id remains."""
_WITHOUT_JSON: Final = frozenset({"binary", "serializable"})
"""Types of variables whose value is not in the answer."""
_TEXT_TYPES: Final = frozenset({None, "string", "integer", "short", "long", "double", "boolean"})
"""Types of variables whose value can be a conclusion or a class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoricInstance:
    """A process instance of an answer.

    Attributes:
        id: its id.
        started_at: when it started, or None.
        ended_at: when it ended; None: it is running.
        definition_id: the id of its definition, or None.
        business_key: its business key, or None.
        business_status: its business status, or None. Flowable before 6.8 does not tell.
        end_activity: the id of the activity at which it ended, or None.
        delete_reason: why the engine removed it before its end, or None.
        parent_id: the id of the instance that called it, or None.
        tenant_id: its tenant, or None.
        variables: values of its variables by name.
        types: types of its variables by name.
    """

    id: str
    started_at: datetime | None
    ended_at: datetime | None
    definition_id: str | None
    business_key: str | None
    business_status: str | None
    end_activity: str | None
    delete_reason: str | None
    parent_id: str | None
    tenant_id: str | None
    variables: Mapping[str, Any]
    types: Mapping[str, Any]

    @classmethod
    def read(cls, row: Any) -> HistoricInstance:
        """Read an instance of an answer.

        Raises:
            EngineError: it cannot be read.
        """
        try:
            variables = [
                variable for variable in row.get("variables") or () if variable.get("type") not in _WITHOUT_JSON
            ]
            return cls(
                id=_text(row, "id", required=True) or "",
                started_at=_time(row, "startTime"),
                ended_at=_time(row, "endTime"),
                definition_id=_text(row, "processDefinitionId"),
                business_key=_text(row, "businessKey"),
                business_status=_text(row, "businessStatus"),
                end_activity=_text(row, "endActivityId"),
                delete_reason=_text(row, "deleteReason"),
                parent_id=_text(row, "superProcessInstanceId"),
                tenant_id=_text(row, "tenantId"),
                variables={variable["name"]: variable.get("value") for variable in variables},
                types={variable["name"]: variable.get("type") for variable in variables},
            )
        except (ValueError, OverflowError, AttributeError, TypeError, KeyError) as error:
            raise EngineError(
                "invalid", f"the engine answered with a process instance that cannot be read ({error})"
            ) from None

    @property
    def end_ms(self) -> int:
        """When it ended, in milliseconds since 1970."""
        if self.ended_at is None:
            raise self.without_end()
        return floor_ms(self.ended_at)

    def without_end(self) -> EngineError:
        """Return the error that a finished instance has no end time."""
        shown = self.id[:MAX_ID_CHARS]
        return EngineError("invalid", f"the engine lists the instance {shown} as finished, but without endTime")

    @property
    def is_terminated(self) -> bool:
        """Whether a terminate end event ended it, its own one or its caller's."""
        return (self.delete_reason or "").startswith("terminate end event") and self.end_activity is not None

    def text_of(self, variable: str, max_chars: int) -> str | None:
        """Return the text of a variable, or None if it has none or is too long."""
        value = self.variables.get(variable)
        if value is None or self.types.get(variable) not in _TEXT_TYPES:
            return None
        if isinstance(value, bool):
            value = "true" if value else "false"
        text = str(value)
        return text if 0 < len(text) <= max_chars else None


def end_state(instance: HistoricInstance, *, own_terminate_event: bool | None) -> EndState:
    """Return how an instance ended.

    Args:
        instance: an instance that has ended.
        own_terminate_event: whether its `end_activity` is a terminate end event of its own definition; None: its
            diagram cannot be read. Matters only if `is_terminated`.
    """
    reason = instance.delete_reason
    if reason is None:
        return EndState.UNDECIDED if instance.end_activity is None else EndState.COMPLETED
    if instance.is_terminated:
        if own_terminate_event is None:
            return EndState.UNDECIDED
        return EndState.TERMINATED if own_terminate_event else EndState.CANCELLED
    if reason.startswith("ERROR_EVENT") and instance.end_activity is not None:
        return EndState.ERROR
    return EndState.CANCELLED


def key_and_version(definition_id: str) -> tuple[str, int] | None:
    """Return the key and the version in the id of a definition; None if the id has neither."""
    match = _DEFINITION_ID.fullmatch(definition_id)
    return (match[1], int(match[2])) if match else None


def _time(row: Mapping[str, Any], name: str) -> datetime | None:
    value = row.get(name)
    try:
        return None if value is None else from_json(value)
    except (ValueError, OverflowError):
        # Without the words of the library, which repeat the value.
        raise ValueError(f"{name} is not a time with a zone") from None


def _text(row: Mapping[str, Any], name: str, *, required: bool = False) -> str | None:
    value = row.get(name)
    if value is None or value == "":
        if required:
            raise ValueError(f"no {name}")
        return None
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")  # noqa: TRY004 (caught with the others)
    return value
