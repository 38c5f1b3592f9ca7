"""Mask the bodies of events for tests outside production: the values are replaced, and their shape stays.

A masked body still has its members, the types of its values, and their lengths and formats, so that handlers and data
schemas read it as they read the original. The members that select handlers stay. Ids become pseudonyms: equal ids of
one export get equal pseudonyms, which nobody can turn back without the export's key.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

from flowhooks.model.event import FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT_MEMBERS: Final = frozenset(FIELDS) - {"businessKey"}
"""Members of a body that stay as they are, because handlers are selected by them. They describe the process."""
MIN_KEY_BYTES: Final = 16
"""Minimum length of a key; with a shorter one, somebody could find an id by trying all keys."""
MAX_UNIQUE_DIGITS: Final = 16
"""Ids with fewer letters and digits have so few pseudonyms of the same shape that two ids could get the same one."""

_CAPITAL: Final = "A"
_SMALL: Final = "a"
_DIGIT: Final = "1"  # not 0: 1111-11-11 is a date, and a number has no leading 0
_OTHER: Final = "\N{CJK UNIFIED IDEOGRAPH-5B57}"  # 字, "character": of a script without capitals
_ISO_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:[Zz]|[+-]\d\d:?\d\d)?)?", re.ASCII
)
_DATA_IN_NAME: Final = re.compile(r"@|\d{4}")
"""A member with such a name has data as its name, such as an address or an account number."""
_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", re.ASCII)
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_HEXADECIMAL: Final = "abcdef"
_CJK: Final = range(0x4E00, 0x9FA6)


class _ShapeTable(dict[int, str]):
    """Maps code points to the character that shows their kind; filled as they occur."""

    def __missing__(self, code: int) -> str:
        self[code] = shape = _shape_of(chr(code))
        return shape


def _shape_of(character: str) -> str:
    if character.isdecimal():
        return _DIGIT
    if character.isupper():
        return _CAPITAL
    if character.islower():
        return _SMALL
    return character if character.isascii() else _OTHER


_SHAPES: Final = _ShapeTable()
_ONLY_DIGITS: Final = {ord(digit): _DIGIT for digit in "0123456789"}


def mask_shape(value: Any) -> Any:
    """Return a JSON value of the same shape without the original values.

    In a text each digit becomes `1`, each capital letter `A`, each small letter `a`, and each other character outside
    ASCII `字`; spaces and punctuation of ASCII stay, and so do the letters of an ISO 8601 time. The digits of a number
    become 1 (`-250.75` becomes `-111.11`), and a boolean becomes false. Names of members stay, except names that
    contain `@` or four digits in a row, which are masked like texts.

    Args:
        value: a JSON value, as `json.loads` returns it.

    Returns:
        A new value; the original stays unchanged.
    """
    if isinstance(value, str):
        return _mask_text(value)
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        # No change of the exponent can overflow: it has at most three digits, and 1e+111 is a float.
        return type(value)(repr(value).translate(_ONLY_DIGITS))
    if isinstance(value, list):
        return [mask_shape(item) for item in value]
    if isinstance(value, dict):
        return _with_names(value, [mask_shape(item) for item in value.values()])
    return value


def _mask_text(text: str) -> str:
    return text.translate(_ONLY_DIGITS if _ISO_TIME.fullmatch(text) else _SHAPES)


def _with_names(value: Mapping[str, Any], masked_values: list[Any]) -> dict[str, Any]:
    """Return an object of masked values, in which masked names stay different."""
    masked: dict[str, Any] = {}
    numbers: dict[str, int] = {}  # thousands of names may have one shape
    for name, masked_value in zip(value, masked_values, strict=True):
        unique_name = masked_name = _mask_text(name) if _DATA_IN_NAME.search(name) else name
        while unique_name in masked or (unique_name != name and unique_name in value):
            numbers[masked_name] = numbers.get(masked_name, 1) + 1
            unique_name = f"{masked_name}-{numbers[masked_name]}"
        masked[unique_name] = masked_value
    return masked


class EventMasker:
    """Masks the events of one export, in which equal ids get equal pseudonyms.

    Args:
        key: random bytes, different for each export, so that the ids of two exports cannot be linked.

    Raises:
        ValueError: the key has fewer than 16 bytes.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < MIN_KEY_BYTES:
            raise ValueError(f"the key must have at least {MIN_KEY_BYTES} bytes, not {len(key)}")
        self._key = key
        # Only of short ids: the pseudonyms of others are different by chance.
        self._pseudonyms: dict[str, str] = {}
        self._used: set[str] = set()

    def mask_id(self, value: str) -> str:
        """Return the pseudonym of an id, such as a process instance id or a business key: the same for equal ids.

        It has the shape of the id: letters stay letters of the same case, digits stay digits, a UUID stays a UUID.
        Two ids never get the same pseudonym, and no id with a letter or a digit is its own; if a short id would, its
        pseudonym is another or longer one.
        """
        if sum(map(str.isalnum, value)) >= MAX_UNIQUE_DIGITS:
            return self._pseudonym(value, 0)
        if value not in self._pseudonyms:
            self._pseudonyms[value] = unused = self._unused_pseudonym(value)
            self._used.add(unused)
        return self._pseudonyms[value]

    def mask_body(self, body: Mapping[str, Any], *, flow_instance_id: str) -> dict[str, Any]:
        """Return an event's body with its values masked.

        `businessKey`, and each text or whole number of the body that equals the business key or the process instance
        id, becomes a pseudonym. The other members of the contract, such as `processDefinitionKey` and `conclusion`,
        stay as they are. Everything else is masked by `mask_shape`.

        Args:
            body: the body without nulls, as `Event.data`.
            flow_instance_id: the event's process instance id, unmasked.
        """
        ids = {flow_instance_id}
        if body.get("businessKey"):
            ids.add(str(body["businessKey"]))
        kept = {name: value for name, value in body.items() if name in KEPT_MEMBERS}
        return {**self._mask(body, ids), **kept}

    def _mask(self, value: Any, ids: set[str]) -> Any:
        if isinstance(value, str):
            return self.mask_id(value) if value in ids else _mask_text(value)
        if type(value) is int and str(value) in ids:
            return int(self.mask_id(str(value)))  # its pseudonym has no 0, and so no leading one
        if isinstance(value, list):
            return [self._mask(item, ids) for item in value]
        if isinstance(value, dict):
            return _with_names(value, [self._mask(item, ids) for item in value.values()])
        return mask_shape(value)

    def _unused_pseudonym(self, value: str) -> str:
        own = value if any(map(str.isalnum, value)) else None
        attempt = 0
        while True:
            # After each fourth attempt one character longer: there may be no unused one of the same length.
            pseudonym = self._pseudonym(value + value[-1:] * (attempt // 4), attempt)
            if pseudonym != own and pseudonym not in self._used:
                return pseudonym
            attempt += 1

    def _pseudonym(self, value: str, attempt: int) -> str:
        # A keyed SHAKE needs no HMAC: unlike SHA-256, it does not allow to extend a message.
        seed = b"%d:%d:" % (len(self._key), attempt) + self._key + value.encode("utf-8", "surrogatepass")
        random = hashlib.shake_256(seed).digest(2 * len(value))
        letters = _HEXADECIMAL if _UUID.fullmatch(value) else _LETTERS
        return "".join(
            _random_like(character, int.from_bytes(random[2 * index : 2 * index + 2]), letters)
            for index, character in enumerate(value)
        )


def _random_like(character: str, number: int, letters: str) -> str:
    """Return a character of the same kind, which `number` selects."""
    if character.isdecimal():
        return str(1 + number % 9)
    if character.isupper():
        return letters[number % len(letters)].upper()
    if character.islower():
        return letters[number % len(letters)]
    return character if character.isascii() else chr(_CJK[number % len(_CJK)])
