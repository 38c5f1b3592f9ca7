"""Records as lines of JSON, each with the hash of the record before it.

A line is a record in plain ASCII. Its last member is the SHA-256 of the line without it, so a record that was
changed does not fit its own hash, and one that was removed or put in does not fit its neighbours'.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_HASH: Final = b',"hash":"'
_HEX: Final = 64
MAX_RECORDS: Final = 2**63 - 1
"""The largest number that the index can store."""


class Broken(Exception):
    """A line is not the record that belongs in its place; says why."""


@dataclass(frozen=True, slots=True)
class Link:
    """Where the chain stands.

    Attributes:
        number: of the last record, from 1; 0 before the first one.
        hash: of the last record.
    """

    number: int
    hash: str

    def __str__(self) -> str:
        return f"record {self.number}, {self.hash}"


START: Final = Link(0, "0" * _HEX)
"""The predecessor of the first record."""


def write(members: Mapping[str, Any], *, after: Link) -> tuple[bytes, Link]:
    """The line of the record that follows `after`, with its line end, and where the chain then stands."""
    body = json.dumps(
        {"number": after.number + 1, "previous": after.hash, **members}, allow_nan=False, separators=(",", ":")
    ).encode("ascii")
    digest = hashlib.sha256(body).hexdigest()
    return body[:-1] + _HASH + digest.encode() + b'"}\n', Link(after.number + 1, digest)


def read(line: bytes, *, after: Link | None) -> tuple[dict[str, Any], Link]:
    """The members of a line, and where the chain stands after it.

    Args:
        line: with its line end.
        after: what it has to follow; None where that is not known.

    Raises:
        Broken: it is not that record.
    """
    if not line.endswith(b"\n"):
        raise Broken(
            "the line is incomplete: a server was killed while it wrote it, and removes it when it writes "
            "the next record"
        )
    front, mark, back = line.rpartition(_HASH)
    body, digest = front + b"}", back[:_HEX].decode("ascii", "replace")
    if not mark or back[_HEX:] != b'"}\n' or hashlib.sha256(body).hexdigest() != digest:
        raise Broken("the record was changed: it does not match its hash")
    try:
        members = json.loads(body)
        number, previous = members["number"], members["previous"]
    except (ValueError, TypeError, KeyError):
        raise Broken("this is not a record of an audit trail") from None
    if type(number) is not int or not 0 < number <= MAX_RECORDS or not isinstance(previous, str):
        raise Broken("this is not a record of an audit trail")
    link = Link(number, digest)
    if after is not None and (link.number, previous) != (after.number + 1, after.hash):
        raise Broken(f"this is record {link.number}, which does not follow {after}: records were removed or inserted")
    return members, link
