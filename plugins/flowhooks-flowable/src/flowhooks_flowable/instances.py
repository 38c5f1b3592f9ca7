"""Process instances of a response, and how they ended. This module sends no requests.

How an instance ended, in the history of Flowable 6.3 or later:

- No `deleteReason`: the instance ended at the activity `endActivityId`. An error end event that nothing catches is
  never committed, so it is not in the history.
- `deleteReason` begins with "terminate end event", and `endActivityId` is that event. An instance that its caller's
  terminate end event ended has these values, too. The diagram of its own definition decides between the two cases.
- `deleteReason` begins with "ERROR_EVENT": an error left the instance, and its caller caught it.
- Any other `deleteReason`: a user deleted the instance, or an event of its caller interrupted it.
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
"""Length of the engine's column. An error shows at most this part of an id, because the engine sent it."""
_DEFINITION_ID: Final = re.compile(r"([^:]+):([0-9]{1,9}):[^:]+")
"""The format of most definition ids: key, version, and an id. If the key is long, only the last part remains."""
_TYPES_WITHOUT_JSON: Final = frozenset({"binary", "serializable"})
"""Types of variables whose value is not in the response."""
_TEXT_TYPES: Final = frozenset({None, "string", "integer", "short", "long", "double", "boolean"})
"""Types of variables whose value can be a conclusion or a callback class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoricInstance:
    """A process instance of a response.

    Attributes:
        id: its id.
        started_at: when it started, or None.
        ended_at: when it ended; None if it is running.
        definition_id: the id of its definition, or None.
        business_key: its business key, or None.
        business_status: its business status, or None. Flowable before 6.8 does not return it.
        end_activity: the id of the activity where it ended, or None.
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
    def from_row(cls, row: Any) -> HistoricInstance:
        """Read an instance of a response.

        Raises:
            EngineError: the row is invalid.
        """
        try:
            variables = [
                variable for variable in row.get("variables") or () if variable.get("type") not in _TYPES_WITHOUT_JSON
            ]
            return cls(
                id=_read_text(row, "id", required=True) or "",
                started_at=_read_time(row, "startTime"),
                ended_at=_read_time(row, "endTime"),
                definition_id=_read_text(row, "processDefinitionId"),
                business_key=_read_text(row, "businessKey"),
                business_status=_read_text(row, "businessStatus"),
                end_activity=_read_text(row, "endActivityId"),
                delete_reason=_read_text(row, "deleteReason"),
                parent_id=_read_text(row, "superProcessInstanceId"),
                tenant_id=_read_text(row, "tenantId"),
                variables={variable["name"]: variable.get("value") for variable in variables},
                types={variable["name"]: variable.get("type") for variable in variables},
            )
        except (ValueError, OverflowError, AttributeError, TypeError, KeyError) as error:
            raise EngineError(
                "invalid", f"the engine returned a process instance that cannot be read ({error})"
            ) from None

    @property
    def end_ms(self) -> int:
        """The end time, in milliseconds since 1970."""
        if self.ended_at is None:
            raise self.missing_end_error()
        return floor_ms(self.ended_at)

    def missing_end_error(self) -> EngineError:
        """Return an error, because the engine lists a finished instance without an end time."""
        id_text = self.id[:MAX_ID_CHARS]
        return EngineError("invalid", f"the engine lists the instance {id_text} as finished, but without endTime")

    @property
    def is_terminated(self) -> bool:
        """Whether a terminate end event of this instance or of its caller ended the instance."""
        return (self.delete_reason or "").startswith("terminate end event") and self.end_activity is not None

    def variable_text(self, variable: str, max_chars: int) -> str | None:
        """Return the value of a variable as text; None if it cannot be a text, is empty or is too long."""
        value = self.variables.get(variable)
        if value is None or self.types.get(variable) not in _TEXT_TYPES:
            return None
        if isinstance(value, bool):
            value = "true" if value else "false"
        text = str(value)
        return text if 0 < len(text) <= max_chars else None


def decide_end_state(instance: HistoricInstance, *, own_terminate_event: bool | None) -> EndState:
    """Return how an instance ended.

    Args:
        instance: an instance that has ended.
        own_terminate_event: whether its `end_activity` is a terminate end event of its own definition; None if its
            diagram cannot be read. Used only if `is_terminated`.
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


def _read_time(row: Mapping[str, Any], name: str) -> datetime | None:
    value = row.get(name)
    try:
        return None if value is None else from_json(value)
    except (ValueError, OverflowError):
        # The message of the library is left out, because it contains the value.
        raise ValueError(f"{name} is not a time with a zone") from None


def _read_text(row: Mapping[str, Any], name: str, *, required: bool = False) -> str | None:
    value = row.get(name)
    if value is None or value == "":
        if required:
            raise ValueError(f"{name} is missing")
        return None
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a string")  # noqa: TRY004 (handled like other invalid values)
    return value
