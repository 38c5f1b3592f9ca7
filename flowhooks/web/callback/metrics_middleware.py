"""Counts requests and answers of the call-back listener."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from flowhooks.observability.metrics import NO_KIND
from flowhooks.web.callback.resource import CallbackResource

if TYPE_CHECKING:
    import falcon

    from flowhooks.observability.metrics import Metrics

_STARTED_AT: Final = "flowhooks.began"


class MetricsMiddleware:
    """Falcon middleware, the outermost one.

    Args:
        metrics: where it is counted.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def process_request(self, request: falcon.Request, _response: falcon.Response) -> None:
        """Note when it came."""
        request.env[_STARTED_AT] = time.perf_counter()

    def process_response(
        self,
        request: falcon.Request,
        response: falcon.Response,
        resource: object,
        _succeeded: bool,
    ) -> None:
        """Count it, and its answer."""
        kind = resource.kind if isinstance(resource, CallbackResource) else NO_KIND
        self._metrics.received(kind)
        self._metrics.answered(kind, response.status_code, time.perf_counter() - request.env[_STARTED_AT])
