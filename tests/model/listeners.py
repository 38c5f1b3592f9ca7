"""The handlers of the model: selectors and options, from which both sides are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

SECOND: Final = 1_000_000
IGNORED: Final = "ignored"
"""The process key whose events are ignored."""


class Retries(NamedTuple):
    """The number of attempts, and the delays in seconds."""

    attempts: int
    delays: tuple[int, ...]

    def delay_after(self, attempts: int) -> int | None:
        """Microseconds to the next attempt; None if there is none."""
        return None if attempts >= self.attempts else self.delays[min(attempts, len(self.delays)) - 1] * SECOND


DEFAULT_RETRY: Final = Retries(8, (5, 300, 1800, 7200, 18000, 36000, 36000))
"""The retry options of a handler without `retry=`, if an attempt must be repeated."""


class Conditions(NamedTuple):
    """The conditions of a handler; `when` has JSON Pointers with the expected values."""

    conclusions: tuple[str, ...] = ()
    when: Mapping[str, Any] = {}


class Listener(NamedTuple):
    """A handler with selectors and options. Its conditions differ from release to release."""

    keys: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    every: bool = False
    least_version: int | None = None
    retry: Retries | None = None
    probes: bool = False


HANDLERS: Final = {
    "p:once": Listener(keys=("leave",)),
    "p:again": Listener(keys=("leave", "trip"), classes=("C",), retry=Retries(3, (10, 100))),
    "p:asks": Listener(keys=("trip",), probes=True),
    "q:late": Listener(keys=("late",), retry=Retries(2, (1,))),
    "q:every": Listener(every=True),
    "r:books": Listener(keys=("loan",)),
    "r:large": Listener(keys=("loan",), classes=("C",), retry=Retries(3, (10, 100))),
    "r:newer": Listener(keys=("loan", "trip"), least_version=2),
    "r:watch": Listener(every=True),
}

RELEASES: Final[tuple[Mapping[str, Conditions], ...]] = (
    {"r:books": Conditions(("approved",)), "r:large": Conditions(when={"/amount": {"minimum": 10}})},
    {
        "r:books": Conditions(("rejected",)),
        "r:large": Conditions(("approved", "Approved"), {"/amount": {"minimum": 100}}),
        "r:newer": Conditions(),
        "r:watch": Conditions(("approved",)),
    },
    {
        "r:books": Conditions(),
        "r:large": Conditions(when={"/amount": [20, None]}),
        "r:watch": Conditions(when={"/amount": 20}),
    },
    {"r:books": Conditions(("approved", "rejected")), "r:newer": Conditions(("approved",))},
)
"""The handlers of each release of the plugin `r`, with their conditions. No other plugin has any."""


def handlers_of(plugins: str, release: int) -> dict[str, Conditions]:
    """The handlers that these plugins have, each with its conditions."""
    return {
        handler: RELEASES[release].get(handler, Conditions())
        for handler in HANDLERS
        if handler[0] in plugins and (handler[0] != "r" or handler in RELEASES[release])
    }
