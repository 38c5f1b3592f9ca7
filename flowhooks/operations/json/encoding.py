"""Dataclasses as JSON has them, their times as text."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, TypeAlias

from flowhooks.clock import to_text

TimestampJson: TypeAlias = Annotated[str, "date-time"]
"""A time as `clock.to_text` writes it."""


def is_time(name: str) -> bool:
    """Whether a member of this name is a time, in microseconds since 1970, or None."""
    return name == "at" or name.endswith("_at")


def dataclass_to_json(instance: Any) -> dict[str, Any]:
    """Every member of a dataclass by its name.

    Args:
        instance: a dataclass of values that JSON has, tuples, and times.
    """
    members = {field.name: getattr(instance, field.name) for field in fields(instance)}
    return {name: to_text(value) if is_time(name) else value for name, value in members.items()}
