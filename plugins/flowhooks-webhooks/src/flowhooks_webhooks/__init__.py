"""Events forwarded to other services as signed Standard Webhooks.

Each `[[plugins.webhooks.endpoints]]` becomes a handler of its own, with its own deliveries, retries and dead letters.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowhooks import Delivery, Event, Handler, Retry, handler, hookimpl
from flowhooks_webhooks.endpoint import Endpoint
from flowhooks_webhooks.message import headers, payload
from flowhooks_webhooks.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RETRY: Final = Retry()
"""The receiver sees the same `webhook-id` in every attempt, so sending twice does no harm."""


class Webhooks:
    """Makes a handler for each endpoint.

    Args:
        now: the time of an attempt, with UTC as its zone; receivers refuse one that is minutes off. Default: the
            machine's clock.
    """

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._endpoints: tuple[Endpoint, ...] = ()
        self.sender: Final = Sender(RETRY)

    @hookimpl
    def schemas(self) -> Sequence[Path]:
        """Give the schema of the section `[plugins.webhooks]`."""
        return [Path(__file__).with_name("schemas")]

    @hookimpl
    def configure(self, settings: Mapping[str, Any]) -> None:
        """Take `[plugins.webhooks]`; what the schema cannot say is checked here.

        Raises:
            ValueError: an endpoint cannot be used; names it, and never shows its secret.
        """
        endpoints = tuple(Endpoint.read(one) for one in settings.get("endpoints", ()))
        names = [one.name for one in endpoints]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"[[plugins.webhooks.endpoints]] has two endpoints named {', '.join(twice)}")
        self._endpoints = endpoints

    @hookimpl
    def handlers(self) -> Sequence[Handler]:
        """Give a handler for each endpoint, named like it."""
        return [self._handler(one) for one in self._endpoints]

    def _handler(self, endpoint: Endpoint) -> Handler:
        def forward(event: Event, delivery: Delivery) -> dict[str, int]:
            body = payload(event)
            signed = headers(endpoint, body, id=delivery.id, at=self._now(), traceparent=event.traceparent)
            return {"status": self.sender.send(endpoint, body, signed, attempt=delivery.attempt)}

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
"""The object that the entry point names."""
