"""Events forwarded to other services as signed Standard Webhooks.

Each section `[[plugins.webhooks.endpoints]]` becomes a handler with its own deliveries, retries and dead deliveries.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowhooks import Delivery, Event, Handler, Retry, handler, hookimpl
from flowhooks_webhooks.endpoint import Endpoint
from flowhooks_webhooks.message import build_body, build_headers
from flowhooks_webhooks.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RETRY: Final = Retry()
"""The default schedule. All attempts have the same `webhook-id`, so a receiver can ignore repeated messages."""


class Webhooks:
    """Provides a handler for each endpoint.

    Args:
        now: returns the time of an attempt, in UTC. Receivers reject a time that differs by minutes from theirs.
            Default: the clock of this machine.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._endpoints: tuple[Endpoint, ...] = ()
        self.sender: Final = Sender(RETRY)

    @hookimpl
    def schemas(self) -> Sequence[Path]:
        """Return the directory with the schema of the section `[plugins.webhooks]`."""
        return [Path(__file__).with_name("schemas")]

    @hookimpl
    def configure(self, settings: Mapping[str, Any]) -> None:
        """Apply the section `[plugins.webhooks]`, after checks that its schema cannot express.

        Raises:
            ValueError: an endpoint is invalid, or two endpoints have the same name. The message has the name of the
                endpoint and never its secret.
        """
        endpoints = tuple(Endpoint.from_settings(section) for section in settings.get("endpoints", ()))
        names = [endpoint.name for endpoint in endpoints]
        if duplicates := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"[[plugins.webhooks.endpoints]] has two endpoints named {', '.join(duplicates)}")
        self._endpoints = endpoints

    @hookimpl
    def handlers(self) -> Sequence[Handler]:
        """Return a handler for each endpoint, with the name of the endpoint."""
        return [self._build_handler(endpoint) for endpoint in self._endpoints]

    def _build_handler(self, endpoint: Endpoint) -> Handler:
        def forward(event: Event, delivery: Delivery) -> dict[str, int]:
            body = build_body(event)
            headers = build_headers(
                endpoint, body, webhook_id=delivery.id, timestamp=self._now(), traceparent=event.traceparent
            )
            return {"status": self.sender.send(endpoint, body, headers, attempt=delivery.attempt)}

        forward.__doc__ = f"Forward events to {endpoint.host}."
        return handler(
            name=endpoint.name,
            callback_class=endpoint.callback_classes,
            process_key=endpoint.process_keys,
            every=endpoint.every,
            kind=endpoint.kind,
            retry=RETRY,
        )(forward)


plugin: Final = Webhooks()
"""The object to which the entry point refers."""
