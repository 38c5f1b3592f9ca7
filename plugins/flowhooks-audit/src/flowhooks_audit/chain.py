"""Encode records as lines of JSON, each with the hash of the previous record.

A line is one record in plain ASCII. Its last member, `hash`, is the SHA-256 of the line without this member. A changed
record does not match its own hash. If a record was removed or inserted, `number` and `previous` of the next record do
not match.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_HASH_MEMBER: Final = b',"hash":"'
_HASH_DIGITS: Final = 64
MAX_RECORDS: Final = 2**63 - 1
"""The largest record number that the index can store."""


class InvalidRecord(Exception):
    """A line is not the record that must follow the previous record. The text is the reason."""


@dataclass(frozen=True, slots=True)
class Position:
    """A position in the chain: after a record, or at the start.

    Attributes:
        number: number of the record, from 1; 0 at the start.
        hash: hash of the record, in hexadecimal digits; only zeros at the start.
    """

    number: int
    hash: str

    def __str__(self) -> str:
        return f"record {self.number}, {self.hash}"


START: Final = Position(0, "0" * _HASH_DIGITS)
"""The position before the first record."""


def encode(members: Mapping[str, Any], *, after: Position) -> tuple[bytes, Position]:
    """Return the line of the record that follows `after`, with its line end, and the position of the record."""
    body = json.dumps(
        {"number": after.number + 1, "previous": after.hash, **members}, allow_nan=False, separators=(",", ":")
    ).encode("ascii")
    digest = hashlib.sha256(body).hexdigest()
    return body[:-1] + _HASH_MEMBER + digest.encode() + b'"}\n', Position(after.number + 1, digest)


def decode(line: bytes, *, after: Position | None) -> tuple[dict[str, Any], Position]:
    """Return the members of the record in a line, without its hash, and the position of the record.

    Args:
        line: the line with its line end.
        after: the position that the record must follow; None: unknown, so not checked.

    Raises:
        InvalidRecord: the line is not the record that follows `after`.
    """
    if not line.endswith(b"\n"):
        raise InvalidRecord(
            "the line is incomplete: a server was killed while writing the line, and removes it before it writes "
            "the next record"
        )
    front, hash_member, back = line.rpartition(_HASH_MEMBER)
    body, digest = front + b"}", back[:_HASH_DIGITS].decode("ascii", "replace")
    if not hash_member or back[_HASH_DIGITS:] != b'"}\n' or hashlib.sha256(body).hexdigest() != digest:
        raise InvalidRecord("the record was changed: it does not match its hash")
    try:
        members = json.loads(body)
        number, previous = members["number"], members["previous"]
    except (ValueError, TypeError, KeyError):
        raise InvalidRecord("this is not a record of an audit trail") from None
    if type(number) is not int or not 0 < number <= MAX_RECORDS or not isinstance(previous, str):
        raise InvalidRecord("this is not a record of an audit trail")
    if after is not None and (number, previous) != (after.number + 1, after.hash):
        raise InvalidRecord(f"this is record {number}, which does not follow {after}: records were removed or inserted")
    return members, Position(number, digest)
