"""JSON objects of the engine's responses. The type of each member that is read is checked."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from flowhooks import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Row:
    """A JSON object of a response.

    Args:
        path: the request's path, for errors.
        value: the JSON value.

    Raises:
        EngineError: the value is not a JSON object.
    """

    __slots__ = ("_members", "_path")

    def __init__(self, path: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise EngineError("invalid", f"{path}: the response has {type(value).__name__} instead of an object.")
        self._path = path
        self._members: Mapping[str, Any] = value

    def text(self, name: str) -> str:
        """Return a member that is a string. It must not be missing."""
        value = self.optional_text(name)
        if value is None:
            raise EngineError("invalid", f"{self._path}: the member {name} is missing.")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a member that is a string; None if it is null or missing."""
        value = self._members.get(name)
        if value is not None and not isinstance(value, str):
            raise self._invalid_member(name, "a string")
        return value

    def optional_integer(self, name: str) -> int | None:
        """Return a member that is an integer; None if it is null or missing."""
        value = self._members.get(name)
        if value is not None and type(value) is not int:
            raise self._invalid_member(name, "an integer")
        return value

    def time(self, name: str) -> datetime:
        """Return a member that is a time with a zone. It must not be missing."""
        value = self.optional_time(name)
        if value is None:
            raise EngineError("invalid", f"{self._path}: the member {name} is missing.")
        return value

    def optional_time(self, name: str) -> datetime | None:
        """Return a member that is a time with a zone; None if it is null or missing."""
        text = self.optional_text(name)
        if text is None:
            return None
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise self._invalid_member(name, "a time such as 2013-01-23T13:42:42.000+0200") from None
        if time.tzinfo is None:
            raise self._invalid_member(name, "a time with a zone")
        return time

    def value(self, name: str) -> Any:
        """Return a member without a check of its type; None if it is missing."""
        return self._members.get(name)

    def _invalid_member(self, name: str, expected: str) -> EngineError:
        return EngineError("invalid", f"{self._path}: the member {name} is not {expected}.")


def read_rows(path: str, value: Any, *, maximum: int) -> list[Row]:
    """Return the objects of a response that is a JSON list.

    Args:
        path: the request's path, for errors.
        value: the JSON value.
        maximum: the requested number of objects. A malicious engine could fill the memory with more.

    Raises:
        EngineError: the response is not a list of objects, or it is longer than requested.
    """
    if not isinstance(value, list):
        raise EngineError("invalid", f"{path}: the response is {type(value).__name__} instead of a list.")
    if len(value) > maximum:
        raise EngineError("invalid", f"{path}: the engine lists {len(value):,} rows instead of {maximum:,}.")
    return [Row(path, item) for item in value]
