"""The Falcon middleware of the callback listener: the path that is routed, and the counts of requests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from flowhooks.observability.metrics import NO_KIND, NO_SOURCE
from flowhooks.web.callback.resource import CallbackResource
from flowhooks.web.errors import raw_path

if TYPE_CHECKING:
    import falcon

    from flowhooks.background.trends import TrendRecorder
    from flowhooks.observability.metrics import Metrics

_STARTED_AT: Final = "flowhooks.began"


class CallbackMiddleware:
    """Falcon middleware that counts requests and responses, and routes by the undecoded path: `%2F` is part of an id.

    Args:
        metrics: the metrics to update.
        trends: counts the responses by source and time.
    """

    def __init__(self, metrics: Metrics, trends: TrendRecorder) -> None:
        self._metrics = metrics
        self._trends = trends

    def process_request(self, request: falcon.Request, _response: falcon.Response) -> None:
        """Store the time of arrival, and replace the decoded path."""
        request.env[_STARTED_AT] = time.perf_counter()
        request.path = raw_path(request.env)

    def process_response(
        self,
        request: falcon.Request,
        response: falcon.Response,
        resource: object,
        _succeeded: bool,
    ) -> None:
        """Count the request and its response."""
        # A request to a fixed URL has the kind that its mapping finds.
        kind = resource.kind if isinstance(resource, CallbackResource) else getattr(request.context, "kind", NO_KIND)
        source = getattr(request.context, "source", "") or NO_SOURCE
        status, seconds = response.status_code, time.perf_counter() - request.env[_STARTED_AT]
        self._metrics.answered(kind, source, status, seconds)
        self._trends.answered(source, status, seconds)
