"""Write the log records of a handler into the log of its attempt, one line each."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from flowhooks.model.invocation import current_invocation
from flowhooks.model.traceback_text import parse_chain

if TYPE_CHECKING:
    from collections.abc import Mapping

    import structlog

_HEAD: Final = frozenset({"time", "level", "logger", "event", "traceback"})


def add_to_attempt(_: Any, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add a record to the log of the attempt in which it is logged, if any; a processor that changes nothing.

    Args:
        fields: the record's fields as plain values, with secrets masked.
    """
    invocation = current_invocation()
    if invocation is not None:
        invocation.log.add(_to_line(fields, invocation.log_fields()))
    return fields


def _to_line(fields: Mapping[str, Any], of_attempt: Mapping[str, Any]) -> str:
    words = [f"{fields['time']} {fields['level']} {fields['logger']}: {fields['event']}"]
    for name, value in fields.items():
        # The attempt's own fields are the same in all of its records.
        if name in _HEAD or (name in of_attempt and of_attempt[name] == value) or (name, value) == ("pid", os.getpid()):
            continue
        words.append(f"{name}={value_text(value)}")
    if chain := parse_chain(fields.get("traceback", "")):
        words.append(f"exception={value_text(chain[-1].error)}")
    return " ".join(words)


def value_text(value: Any) -> str:
    """Return a value as a plain word if possible, otherwise as a quoted and escaped string."""
    bare = isinstance(value, str) and value and value.isprintable() and not set(value) & set(" ='\"")
    return str(value) if bare else repr(value)
