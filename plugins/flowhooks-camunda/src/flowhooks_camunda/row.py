"""Members of the engine's answers, with their types checked."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from flowhooks import EngineError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Row:
    """An object of an answer.

    Args:
        path: the request's path, for errors.
        value: the JSON value.

    Raises:
        EngineError: the value is no object.
    """

    def __init__(self, path: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise EngineError("invalid", f"{path}: the answer has {type(value).__name__} instead of an object.")
        self._path = path
        self._members: Mapping[str, Any] = value

    def text(self, name: str) -> str:
        """Return a member that is a text, and that must not be missing."""
        value = self.optional_text(name)
        if value is None:
            raise EngineError("invalid", f"{self._path}: the member {name} is missing.")
        return value

    def optional_text(self, name: str) -> str | None:
        """Return a member that is a text, null or missing."""
        value = self._members.get(name)
        if value is not None and not isinstance(value, str):
            raise self._wrong(name, "a text")
        return value

    def optional_integer(self, name: str) -> int | None:
        """Return a member that is a whole number, null or missing."""
        value = self._members.get(name)
        if value is not None and type(value) is not int:
            raise self._wrong(name, "a whole number")
        return value

    def flag(self, name: str) -> bool:
        """Return a member that is true or false; null and missing are false."""
        value = self._members.get(name)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return bool(value)

    def time(self, name: str) -> datetime:
        """Return a member that is a time with a zone, and that must not be missing."""
        value = self.optional_time(name)
        if value is None:
            raise EngineError("invalid", f"{self._path}: the member {name} is missing.")
        return value

    def optional_time(self, name: str) -> datetime | None:
        """Return a member that is a time with a zone, null or missing."""
        text = self.optional_text(name)
        if text is None:
            return None
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            raise self._wrong(name, "a time such as 2013-01-23T13:42:42.000+0200") from None
        if time.tzinfo is None:
            raise self._wrong(name, "a time with a zone")
        return time

    def value(self, name: str) -> Any:
        """Return a member as it is; None if it is missing."""
        return self._members.get(name)

    def _wrong(self, name: str, expected: str) -> EngineError:
        return EngineError("invalid", f"{self._path}: the member {name} is not {expected}.")


def rows(path: str, value: Any) -> list[Row]:
    """Return the objects of an answer that is a list.

    Raises:
        EngineError: it is no list of objects.
    """
    if not isinstance(value, list):
        raise EngineError("invalid", f"{path}: the answer is {type(value).__name__} instead of a list.")
    return [Row(path, item) for item in value]
