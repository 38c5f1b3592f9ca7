"""When a plugin that raised is called again for the same alerts.

A plugin may have several receivers, and raise because one of them is down. So it is called for other alerts meanwhile.
The alerts for which it raised are repeated one at a time: a mail server that is down does not get a request per second,
and the log does not fill up. When the plugin accepts one of them, all are due.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flowhooks.clock import SECOND

if TYPE_CHECKING:
    from collections.abc import Collection

RETRY_DELAYS: Final = (30, 60, 120, 300, 600)
"""Seconds until a plugin that raised is called again for one of these alerts; the last delay repeats."""


@dataclass(slots=True)
class _Backoff:
    """The back-off of one plugin.

    Attributes:
        alert_ids: the alerts for which it raised; the one that is repeated next comes first.
        failures: number of its consecutive failures in repeated calls, and the first one.
        until: end of the back-off, in microseconds since 1970.
    """

    alert_ids: list[str]
    failures: int
    until: int


class Backoffs:
    """The back-offs of all plugins."""

    def __init__(self) -> None:
        self._by_plugin: dict[str, _Backoff] = {}

    def retain(self, alert_ids: Collection[str]) -> None:
        """Forget all other alerts."""
        for plugin, backoff in list(self._by_plugin.items()):
            backoff.alert_ids = [alert_id for alert_id in backoff.alert_ids if alert_id in alert_ids]
            if not backoff.alert_ids:
                del self._by_plugin[plugin]

    def is_due(self, plugin: str, alert_id: str, now: int) -> bool:
        """Tell whether a plugin may be called for an alert now."""
        backoff = self._by_plugin.get(plugin)
        if backoff is None or alert_id not in backoff.alert_ids:
            return True
        # A back-off that is longer than the longest began while the clock was ahead.
        return not now < backoff.until <= now + RETRY_DELAYS[-1] * SECOND

    def rank(self, plugin: str, alert_id: str) -> tuple[bool, int]:
        """Return a key by which calls are sorted: plugins that raised, and their repeated alerts, come last."""
        backoff = self._by_plugin.get(plugin)
        if backoff is None:
            return False, 0
        return True, backoff.alert_ids.index(alert_id) + 1 if alert_id in backoff.alert_ids else 0

    def record(self, plugin: str, alert_id: str, now: int, *, accepted: bool) -> None:
        """Record the result of a call."""
        backoff = self._by_plugin.get(plugin)
        is_repeated = backoff is not None and alert_id in backoff.alert_ids
        if accepted:
            if is_repeated:
                del self._by_plugin[plugin]
        elif backoff is None:
            self._by_plugin[plugin] = _Backoff([alert_id], 1, now + RETRY_DELAYS[0] * SECOND)
        elif not is_repeated:
            backoff.alert_ids.append(alert_id)
        else:
            backoff.alert_ids.remove(alert_id)
            backoff.alert_ids.append(alert_id)
            backoff.until = now + RETRY_DELAYS[min(backoff.failures, len(RETRY_DELAYS) - 1)] * SECOND
            backoff.failures += 1
