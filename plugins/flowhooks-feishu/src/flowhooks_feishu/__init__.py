"""Receive the approval events of Feishu and Lark: a flowhooks plugin.

The settings of a source select this plugin with `[sources.NAME.ingress] receiver = "feishu"`. The secrets of the source
are in `[plugins.feishu.sources.NAME]`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from flowhooks import hookimpl
from flowhooks_feishu.approval import convert
from flowhooks_feishu.request import NotAuthentic, Secrets, authenticate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flowhooks import ReceivedCallback, ReceivedRequest, ReceiverResponse

WARNING_INTERVAL: Final = 60.0
"""Seconds between two equal warnings. The limit is needed because any client can cause a warning."""

log: Final = logging.getLogger(__name__)


class Feishu:
    """The receiver. Several threads may call its hooks at the same time.

    Args:
        clock: returns the monotonic time in seconds; default: the machine's clock.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._secrets: dict[str, Secrets] = {}
        self._clock = clock
        self._last_warnings: dict[tuple[str, str], float] = {}
        self._lock = Lock()

    @hookimpl
    def schemas(self) -> Sequence[Path]:
        """Return the folder with the schemas of the section `[plugins.feishu]` and of the kind `reverted`."""
        return [Path(__file__).with_name("schemas")]

    @hookimpl
    def configure(self, settings: Mapping[str, Any]) -> None:
        """Apply the secrets of the sources, which flowhooks has validated against the schema."""
        self._secrets = {name: Secrets(**section) for name, section in settings.get("sources", {}).items()}
        for name, secrets in self._secrets.items():
            if not secrets.encrypt_key:
                log.warning(
                    "requests to /in/%s are not signed: set an Encrypt Key in Feishu, and encrypt_key in "
                    "[plugins.feishu.sources.%s]",
                    name,
                    name,
                )

    @hookimpl
    def receive_request(self, source: str, request: ReceivedRequest) -> ReceivedCallback | ReceiverResponse | None:
        """Return the callback of an authentic request, or the response to it. None: the request is rejected."""
        secrets = self._secrets.get(source)
        if secrets is None:
            self._warn(source, f"the settings have no [plugins.feishu.sources.{source}]")
            return None
        try:
            message = authenticate(request, secrets)
        except NotAuthentic as error:
            self._warn(source, str(error))
            return None
        return convert(message)

    def _warn(self, source: str, reason: str) -> None:
        now = self._clock()
        with self._lock:  # sources and reasons are few, so this dictionary stays small
            if now - self._last_warnings.get((source, reason), -WARNING_INTERVAL) < WARNING_INTERVAL:
                return
            self._last_warnings[source, reason] = now
        log.warning("a request to /in/%s was rejected: %s", source, reason)


plugin: Final = Feishu()
"""The plugin object that the entry point names."""
