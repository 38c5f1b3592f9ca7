"""An independent JSON reader, character by character from RFC 8259, to compare with; no tests."""

from __future__ import annotations

import re
import sys

MAX_DEPTH = 64
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_HEX = frozenset("0123456789abcdefABCDEF")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LITERALS = (("null", None), ("true", True), ("false", False))


class InvalidBody(Exception):
    """The text is no JSON, or JSON that flowhooks rejects according to its documentation."""


def parse_callback(body):
    """Parse the body of a callback: an object, whose members that are null are left out, with integers below 2**53.

    Raises:
        InvalidBody: the body breaks a rule of docs/reference/http.md about bodies.
    """
    try:
        text = body.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise InvalidBody from None
    reader = _Reader(text)
    value = reader.value(0)
    reader.space()
    if reader.position != len(text) or not isinstance(value, dict):
        raise InvalidBody
    return value


class _Reader:
    """Reads a text from its beginning to the current position."""

    def __init__(self, text):
        self.text = text
        self.position = 0

    def space(self):
        """Skip white space, of which JSON has four characters."""
        while self.text[self.position : self.position + 1] in {" ", "\t", "\n", "\r"}:
            self.position += 1

    def next(self):
        """The next character."""
        if self.position == len(self.text):
            raise InvalidBody
        return self.text[self.position]

    def take(self, character):
        """Skip a character that must be next."""
        if self.next() != character:
            raise InvalidBody
        self.position += 1

    def value(self, depth):
        """Any value."""
        self.space()
        match self.next():
            case "{":
                return self.object(depth + 1)
            case "[":
                return self.array(depth + 1)
            case '"':
                return self.string()
        for word, meaning in _LITERALS:
            if self.text.startswith(word, self.position):
                self.position += len(word)
                return meaning
        return self.number()

    def object(self, depth):
        """An object of members with different names."""
        members, names = {}, set()
        for _ in self.parts("{", "}", depth):
            self.space()
            name = self.string()
            self.space()
            self.take(":")
            value = self.value(depth)
            if name in names:
                raise InvalidBody
            names.add(name)
            if value is not None:
                members[name] = value
        return members

    def array(self, depth):
        """An array."""
        return [self.value(depth) for _ in self.parts("[", "]", depth)]

    def parts(self, opens, closes, depth):
        """Yield before each part between two brackets, which the caller reads."""
        if depth > MAX_DEPTH:
            raise InvalidBody
        self.take(opens)
        self.space()
        if self.next() != closes:
            yield
            self.space()
            while self.next() == ",":
                self.position += 1
                yield
                self.space()
        self.take(closes)

    def string(self):
        """A string without NUL and without a lone surrogate."""
        self.take('"')
        characters = []
        while (character := self.next()) != '"':
            self.position += 1
            if character < " ":
                raise InvalidBody
            characters.append(self.escaped() if character == "\\" else character)
        self.position += 1
        return "".join(characters)

    def escaped(self):
        """The meaning of an escape, after its backslash."""
        kind = self.next()
        self.position += 1
        if kind != "u":
            if kind not in _ESCAPES:
                raise InvalidBody
            return _ESCAPES[kind]
        unit = self.unit()
        if 0xD800 <= unit < 0xDC00:
            self.take("\\")
            self.take("u")
            low = self.unit()
            if not 0xDC00 <= low < 0xE000:
                raise InvalidBody
            unit = 0x10000 + (unit - 0xD800 << 10) + (low - 0xDC00)
        elif not unit or 0xDC00 <= unit < 0xE000:
            raise InvalidBody
        return chr(unit)

    def unit(self):
        """Four digits of an escape."""
        digits = self.text[self.position : self.position + 4]
        if len(digits) < 4 or not set(digits) <= _HEX:
            raise InvalidBody
        self.position += 4
        return int(digits, 16)

    def number(self):
        """A number that a double can hold, or a whole one of any size that Python reads."""
        match = _NUMBER.match(self.text, self.position)
        if not match:
            raise InvalidBody
        self.position = match.end()
        if not match[1] and not match[2]:
            if len(match[0].lstrip("-")) > sys.get_int_max_str_digits():
                raise InvalidBody
            return int(match[0])
        number = float(match[0])
        if number in (float("inf"), float("-inf")):
            raise InvalidBody
        return int(number) if number == int(number) and abs(number) < 2**53 else number
