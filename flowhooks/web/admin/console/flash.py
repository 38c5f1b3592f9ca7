"""The result of an action, shown once on the next page.

It is stored in a cookie, so that only this browser shows it, and no other one that opens the page's URL.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from flowhooks.web.admin.console.actions import ACTIONS
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

COOKIE: Final = "flowhooks_done"
COOKIE_MAX_AGE: Final = 60
"""Seconds after which the result is not shown any more."""
MAX_COOKIE_CHARS: Final = 1_000
_MAX_FIGURE: Final = 10**15
FIGURES: Final = (
    "events",
    "deliveries",
    "delivered",
    "dismissed",
    "parked",
    "handlers",
    "alerts",
    "instances",
    "gaps",
    "waiting",
    "skipped",
    "changed_meanwhile",
)
"""Figures of operations for which the console has a text. Other figures are not shown."""

_ID: Final = re.compile(r"[0-9a-f-]{36}", re.ASCII)
_SKIPPED_FIGURES: Final = ("skipped", "changed_meanwhile")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flash:
    """The result of an action.

    Attributes:
        name: the action's name.
        count: the number of items that it changed.
        anything: whether it changed anything.
        others: further figures, as pairs of a name and a number.
        operation: id of the operation that it started; `""` if it was executed at once.
    """

    name: str
    count: int
    anything: bool
    others: tuple[tuple[str, int], ...]
    operation: str = ""


def figures(answer: Mapping[str, Any]) -> dict[str, int]:
    """Return the figures in an operation's result; a list counts as its length."""
    numbers = {}
    for name in FIGURES:
        value = answer.get(name)
        if type(value) is int:
            numbers[name] = value
        elif isinstance(value, tuple | list):
            numbers[name] = len(value)
    return numbers


def parse_figures(values: Mapping[str, Any]) -> dict[str, int]:
    """Return the figures in values that a browser sent. Anything that is not a known figure is dropped."""
    numbers = {}
    for name in FIGURES:
        value = str(values.get(name, ""))
        if value.isascii() and value.isdecimal() and len(value) < len(str(_MAX_FIGURE)):
            numbers[name] = int(value)
    return numbers


def to_flash(name: str, sums: Mapping[str, int]) -> Flash:
    """Return the result of an action from the figures of its operation."""
    action = ACTIONS[name]
    count = sums.get(action.counts, 0) if action.counts else 1
    others = tuple((figure, sums[figure]) for figure in (*action.also, *_SKIPPED_FIGURES) if sums.get(figure))
    return Flash(name=name, count=count, anything=bool(count or any(map(sums.get, action.also))), others=others)


def set_flash(response: falcon.Response, name: str, sums: Mapping[str, int], *, operation: str = "") -> None:
    """Show the result on the next page."""
    value = urlsafe_b64encode(json.dumps([name, sums, operation]).encode()).decode().rstrip("=")
    # Not `secure`, because without TLS the browser would not send the cookie back, and the result would not be shown.
    response.set_cookie(
        COOKIE, value, max_age=COOKIE_MAX_AGE, path=CONSOLE_ROOT, http_only=True, same_site="Strict", secure=False
    )


def pop_flash(request: falcon.Request, response: falcon.Response) -> Flash | None:
    """Return the result of the last action if it has not been shown yet, and remove it; otherwise None."""
    values = request.get_cookie_values(COOKIE)
    if not values:
        return None
    response.unset_cookie(COOKIE, path=CONSOLE_ROOT)
    try:
        name, sums, operation = json.loads(urlsafe_b64decode(values[0][:MAX_COOKIE_CHARS] + "==="))
        if name not in ACTIONS:
            return None
        return replace(to_flash(name, parse_figures(sums)), operation=operation if _is_id(operation) else "")
    except (ValueError, TypeError, AttributeError):
        return None


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None
