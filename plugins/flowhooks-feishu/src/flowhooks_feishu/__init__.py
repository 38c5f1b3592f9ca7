"""Receives the approval events of Feishu and Lark, as a flowhooks plugin.

A source of the settings selects it with `[sources.NAME.ingress] receiver = "feishu"`; the source's secrets are in
`[plugins.feishu.sources.NAME]`.
"""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from flowhooks import hookimpl
from flowhooks_feishu.approval import interpret
from flowhooks_feishu.request import NotAuthentic, Secrets, read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flowhooks import ReceivedCallback, ReceivedRequest, ReceiverResponse

WARNING_INTERVAL: Final = 60.0
"""Seconds between two warnings with the same text: anybody can send requests that are not authentic."""

log: Final = logging.getLogger(__name__)


class Feishu:
    """The receiver. Called in several threads at a time.

    Args:
        clock: seconds that never go back; default: the machine's.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._secrets: dict[str, Secrets] = {}
        self._clock = clock
        self._warned: dict[tuple[str, str], float] = {}
        self._lock = Lock()

    @hookimpl
    def schemas(self) -> Sequence[Path]:
        """Return the schemas of the section `[plugins.feishu]` and of the kind `reverted`."""
        return [Path(__file__).with_name("schemas")]

    @hookimpl
    def configure(self, settings: Mapping[str, Any]) -> None:
        """Take the secrets of the sources. The schema has checked them."""
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
        """Authenticate a request, and return its callback, the answer to its handshake, or None."""
        secrets = self._secrets.get(source)
        if secrets is None:
            self._warn(source, f"the settings have no [plugins.feishu.sources.{source}]")
            return None
        try:
            message = read(request, secrets)
        except NotAuthentic as error:
            self._warn(source, str(error))
            return None
        return interpret(message)

    def _warn(self, source: str, why: str) -> None:
        now = self._clock()
        with self._lock:  # sources and reasons are few, so this dictionary stays small
            if now - self._warned.get((source, why), -WARNING_INTERVAL) < WARNING_INTERVAL:
                return
            self._warned[source, why] = now
        log.warning("a request to /in/%s is refused: %s", source, why)


plugin: Final = Feishu()
"""The object that the entry point names."""
