"""Encode dataclasses as JSON, with times as text."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, TypeAlias

from flowhooks.clock import to_text

TimestampJson: TypeAlias = Annotated[str, "date-time"]
"""A time in the format of `clock.to_text`."""


def is_time(name: str) -> bool:
    """Tell whether a member with this name is a time in microseconds since 1970, or None."""
    return name == "at" or name.endswith("_at")


def dataclass_to_json(instance: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, with times as text.

    Args:
        instance: a dataclass whose fields are JSON values, tuples or times.
    """
    members = {field.name: getattr(instance, field.name) for field in fields(instance)}
    return {name: to_text(value) if is_time(name) else value for name, value in members.items()}
