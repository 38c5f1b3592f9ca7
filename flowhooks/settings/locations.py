"""Locations in the settings file, for error messages that name the file and the line.

`tomllib` gives no lines, so the text is scanned a second time. The scan only follows the keys and checks nothing,
because `tomllib` has read the same text before.
"""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from flowhooks.settings.types import format_line

if TYPE_CHECKING:
    from pathlib import Path

KeyPath: TypeAlias = tuple[str, ...]
"""The keys that lead to a value or a section, such as `("sources", "oa", "ingress", "format")`."""

_TOKEN: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'  # up to two quotes may precede the closing ones
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|[\[\]{}=,.\n]"
    r"|[^\s\[\]{}=,.\"'#]+"  # a bare key, or a part of a number or date
    r"|(?P<skipped>\#[^\n]*|\s)",
    re.DOTALL,
)


class Locations:
    """The lines of the keys and sections of a settings file.

    Args:
        path: the file; None: there is none, and each location is `""`.
        text: its text, which is TOML.
    """

    def __init__(self, path: Path | None, text: str = "") -> None:
        self._path = path
        self._text = text

    def of(self, *keys: str) -> str:
        """Return the file and the line of a value or a section, to precede an error message.

        If the value is not in the file, the line is that of the innermost section around it, or is left out.
        """
        if self._path is None:
            return ""
        while keys and keys not in self._lines:
            keys = keys[:-1]
        line = f"{self._lines[keys]}: " if keys else " "
        return f"{format_line(self._path)}:{line}"

    @cached_property
    def _lines(self) -> dict[KeyPath, int]:
        try:
            return key_lines(self._text)
        except RecursionError:  # as deeply nested as tomllib can read
            return {}


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the number of the line of each value and section of a TOML text; those in arrays are left out."""
    return _Scanner(text).scan()


class _Token(NamedTuple):
    text: str
    line: int


class _Scanner:
    """Follows the keys of a TOML text."""

    def __init__(self, text: str) -> None:
        self._tokens: list[_Token] = []
        self._index = 0
        self._named: dict[KeyPath, int] = {}
        self._implied: dict[KeyPath, int] = {}
        """Sections that only the path of another key or section names."""
        line = 1
        for match in _TOKEN.finditer(text):
            if match["skipped"] is None:
                self._tokens.append(_Token(match[0], line))
            line += match[0].count("\n")
        self._tokens.append(_Token("", line))

    def scan(self) -> dict[KeyPath, int]:
        section: KeyPath = ()
        while self._text:
            if self._text == "\n":
                self._index += 1
            elif self._text == "[":
                self._skip("[")
                section = self._key(())
                self._skip("]")
            else:
                self._member(section)
        return self._implied | self._named

    @property
    def _text(self) -> str:
        return self._tokens[self._index].text

    def _skip(self, *texts: str) -> None:
        while self._text and self._text in texts:
            self._index += 1

    def _key(self, section: KeyPath) -> KeyPath:
        line = self._tokens[self._index].line
        path = (*section, self._name())
        while self._text == ".":
            self._index += 1
            self._implied.setdefault(path, line)
            path = (*path, self._name())
        self._named.setdefault(path, line)
        return path

    def _name(self) -> str:
        text = self._text
        self._index += 1
        return str(tomllib.loads(f"name = {text}")["name"]) if text[0] in "\"'" else text

    def _member(self, section: KeyPath) -> None:
        path = self._key(section)
        self._skip("=")
        self._value(path)

    def _value(self, path: KeyPath | None) -> None:
        """Skip a value; `path` is None in an array, whose keys are left out."""
        if self._text == "[":
            self._items()
        elif self._text == "{":
            self._inline_table(path)
        else:
            while self._text not in {",", "]", "}", "\n", ""}:
                self._index += 1

    def _items(self) -> None:
        self._index += 1
        self._skip("\n", ",")
        while self._text not in {"]", ""}:
            self._value(None)
            self._skip("\n", ",")
        self._index += 1

    def _inline_table(self, path: KeyPath | None) -> None:
        self._index += 1
        self._skip("\n", ",")
        while self._text not in {"}", ""}:
            if path is None:
                self._skip_key()
                self._value(None)
            else:
                self._member(path)
            self._skip("\n", ",")
        self._index += 1

    def _skip_key(self) -> None:
        while self._text not in {"=", ""}:
            self._index += 1
        self._skip("=")
