"""What was done, said once on the page to which the browser goes from there; it must not know how it was done.

It travels in a cookie, for it belongs to one browser, and to nobody who is sent the address of the page.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from flowhooks.web.admin.console.actions import ACTIONS
from flowhooks.web.admin.origin_check import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

COOKIE: Final = "flowhooks_done"
KEPT: Final = 60
"""Seconds after which nobody is told any more."""
LONGEST: Final = 1_000
_LARGEST: Final = 10**15
FIGURES: Final = (
    "events",
    "deliveries",
    "delivered",
    "dismissed",
    "parked",
    "handlers",
    "alerts",
    "waiting",
    "passed_over",
    "moved_on",
    "out_of_order",
)
"""The figures of operations of which the console has a text; of others it says nothing."""

_LEFT: Final = ("passed_over", "moved_on", "out_of_order")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What was done.

    Attributes:
        name: the action.
        count: how much it changed.
        anything: whether it changed anything.
        others: further figures, as pairs of a name and a number.
    """

    name: str
    count: int
    anything: bool
    others: tuple[tuple[str, int], ...]


def figures(answer: Mapping[str, Any]) -> dict[str, int]:
    """The figures of an operation's answer; of what it lists, how many there are."""
    found = {}
    for name in FIGURES:
        value = answer.get(name)
        if type(value) is int:
            found[name] = value
        elif isinstance(value, tuple | list):
            found[name] = len(value)
    return found


def plain_figures(given: Mapping[str, Any]) -> dict[str, int]:
    """The figures out of what a browser has sent: numbers that are shown, and nothing else."""
    found = {}
    for name in FIGURES:
        value = str(given.get(name, ""))
        if value.isascii() and value.isdecimal() and len(value) < len(str(_LARGEST)):
            found[name] = int(value)
    return found


def done(name: str, sums: Mapping[str, int]) -> Done:
    """What an action did, out of the figures of its operation."""
    what = ACTIONS[name]
    count = sums.get(what.counts, 0) if what.counts else 1
    others = tuple((one, sums[one]) for one in (*what.also, *_LEFT) if sums.get(one))
    return Done(name=name, count=count, anything=bool(count or any(map(sums.get, what.also))), others=others)


def remember(response: falcon.Response, name: str, sums: Mapping[str, int]) -> None:
    """Have the next page say it."""
    value = urlsafe_b64encode(json.dumps([name, sums]).encode()).decode().rstrip("=")
    # Not `secure`: a cookie that is not sent back where there is no TLS would leave people without an answer.
    response.set_cookie(COOKIE, value, max_age=KEPT, path=ROOT, http_only=True, same_site="Strict", secure=False)


def recall(request: falcon.Request, response: falcon.Response) -> Done | None:
    """What was done just now, and has not been said yet."""
    values = request.get_cookie_values(COOKIE)
    if not values:
        return None
    response.unset_cookie(COOKIE, path=ROOT)
    try:
        name, sums = json.loads(urlsafe_b64decode(values[0][:LONGEST] + "==="))
        return done(name, plain_figures(sums)) if name in ACTIONS else None
    except (ValueError, TypeError, AttributeError):
        return None
