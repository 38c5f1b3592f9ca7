"""The query string of the administration API, read strictly; it must not know what is asked for.

What is misspelt, empty or given twice is refused by its name: it must not come to mean every event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from flowhooks.messages import to_printable
from flowhooks.web.errors import HTTPRefusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import falcon

LONGEST: Final = 1_000
"""Characters of a value; no field of an event that can be looked for is longer."""
MOST: Final = 100
"""How often a parameter that may be repeated is given at the most."""
LONGEST_SHOWN: Final = 60
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """Something that a path takes in its query.

    Attributes:
        name: its name.
        means: what it means, in English and Chinese.
        schema: its JSON Schema.
        several: whether it may be given several times.
    """

    name: str
    means: str
    schema: Mapping[str, Any]
    several: bool = False


def read(request: falcon.Request, takes: Sequence[Parameter]) -> dict[str, list[str]]:
    """What a query says, by the names of what its path takes.

    Raises:
        HTTPRefusal: it says anything else, or something that no value can be.
    """
    by_name = {one.name: one for one in takes}
    given: dict[str, list[str]] = {}
    for part in request.query_string.encode("latin-1", "replace").split(b"&"):
        if not part:
            continue
        name, _, value = (_decoded(one) for one in part.partition(b"="))
        if name not in by_name:
            allowed = ", ".join(by_name) or "–"  # noqa: RUF001 (a dash: nothing)
            raise HTTPRefusal(400, "query_unknown", name=to_printable(name, LONGEST_SHOWN), allowed=allowed)
        if name in given and not by_name[name].several:
            raise HTTPRefusal(400, "query_twice", name=name)
        if not value.strip() or len(value) > LONGEST or "\0" in value:
            raise HTTPRefusal(422, "query_text", name=name, limit=LONGEST)
        several = given.setdefault(name, [])
        several.append(value.strip())
        if len(several) > MOST:
            raise HTTPRefusal(422, "query_many", name=name, limit=MOST)
    return given


def identity(name: str, value: str) -> str:
    """An id.

    Raises:
        HTTPRefusal: it is none.
    """
    if not _ID.fullmatch(value):
        raise HTTPRefusal(422, "query_id", name=name)
    return value


def number(name: str, value: str, *, low: int, high: int) -> int:
    """A whole number.

    Raises:
        HTTPRefusal: it is none, or out of range.
    """
    if not _NUMBER.fullmatch(value) or not low <= int(value) <= high:
        raise HTTPRefusal(422, "query_number", name=name, low=low, high=high)
    return int(value)


def truth(name: str, value: str) -> bool:
    """Whether it is `true`.

    Raises:
        HTTPRefusal: it is neither that nor `false`.
    """
    if value not in {"true", "false"}:
        raise HTTPRefusal(422, "query_truth", name=name)
    return value == "true"


def _decoded(part: bytes) -> str:
    try:
        return unquote_to_bytes(part.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise HTTPRefusal(400, "query_not_utf8") from None
