"""The log of requests that are rejected before the callback app is called."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from flowhooks.web.callback.early_rejections import LOG_INTERVAL, EarlyRejectionLog, is_callback
from flowhooks.web.errors import LocalizedHTTPError
from flowhooks.web.server.channel import Rejection


def rejection(status, key, path="/flow/1/call-back/complete", **params):
    """A rejected request."""
    return Rejection(LocalizedHTTPError(status, key, **params), "POST", path, "192.0.2.1")


class Times:
    """A log with a clock that is moved by hand, and fakes of its neighbours."""

    def __init__(self):
        self.now = 0.0
        self.counted, self.recorded = [], []
        app = SimpleNamespace(
            metrics=SimpleNamespace(refused=self.counted.append),
            rejected_requests=SimpleNamespace(record=lambda **given: self.recorded.append(given)),
        )
        self.log = EarlyRejectionLog(app, monotonic=lambda: self.now)


def test_a_flood_is_logged_once_a_minute_for_each_status():
    """Each rejection is counted and recorded; the log has one line for each status in a minute, with the number."""
    times = Times()
    with capture_logs() as logs:
        for _ in range(100):
            times.log.record(rejection(413, "too_large", limit=1))
            times.log.record(rejection(408, "request_timeout"))
        times.now += LOG_INTERVAL
        times.log.record(rejection(413, "too_large", "/flow/last" + "\n" * 1000, limit=1))
    assert [(one["status"], one["count"]) for one in logs] == [(413, 1), (408, 1), (413, 100)]
    assert logs[-1]["path"].startswith("/flow/last\\n")
    assert len(logs[-1]["path"]) <= 200
    assert len(times.counted) == len(times.recorded) == 201
    assert {"path", "address", "status", "english", "chinese"} == times.recorded[0].keys()


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/flow/1", True), ("//flow/1", True), ("", False), ("*", False), ("/favicon.ico", False), ("/flowers", False)],
)
def test_only_callbacks_are_recorded(path, expected):
    """A request to any other path is counted and logged, but is not listed among the rejected requests."""
    times = Times()
    times.log.record(rejection(404, "path_slashes", path))
    assert is_callback(path) == bool(times.recorded) == expected
    assert times.counted == [404]
