"""The query string of whatever lists events, as a filter and back; it must not know what is done with the filter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from flowhooks.ledger.reading import STATES, EventFilter
from flowhooks.operations.moment import moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

NAMES: Final[Mapping[str, str]] = {
    "flow": "flow_instance_id",
    "business_key": "business_key",
    "class": "callback_class",
    "key": "process_key",
    "handler": "handler",
}
"""What the options of `flowhooks events list` are called, which are the names in the address too."""
LONGEST: Final = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What somebody looks for.

    Attributes:
        given: what was filled in, by its name in the address.
        wanted: the filter; None where it makes no sense.
        wrong: the names of those that make none.
    """

    given: Mapping[str, str]
    wanted: EventFilter | None
    wrong: tuple[str, ...] = ()

    def address(self, path: str, **more: str) -> str:
        """`path` with this filter and with `more` in its query."""
        query = {name: value for name, value in {**self.given, **more}.items() if value}
        return f"{path}?{urlencode(query)}" if query else path


def asked(request: falcon.Request) -> Asked:
    """What a request looks for."""
    return understood({name: value for name in (*NAMES, "state", "since", "until") if (value := text(request, name))})


def understood(given: Mapping[str, str]) -> Asked:
    """What somebody looks for who says this, by its names in the address; pages and the administration API alike."""
    wrong = []
    times: dict[str, int | None] = {}
    for name in ("since", "until"):
        try:
            times[name] = moment(given[name]) if name in given else None
        except ValueError:
            wrong.append(name)
    if given.get("state") not in {None, *STATES}:
        wrong.append("state")
    wanted = None
    if not wrong:
        texts: dict[str, Any] = {field: given.get(name) for name, field in NAMES.items()}
        wanted = EventFilter(state=given.get("state"), since=times["since"], until=times["until"], **texts)
    return Asked(given=given, wanted=wanted, wrong=tuple(wrong))


def text(request: falcon.Request, name: str) -> str:
    """What the query says under a name, fit to be looked for: no database holds NUL, nor half a character."""
    given = request.get_param(name, default="") or ""
    return given.strip()[:LONGEST].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
