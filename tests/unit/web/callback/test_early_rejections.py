"""The log of requests that are rejected before the callback app is called."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from flowhooks.web.callback.early_rejections import EarlyRejectionLog, is_callback
from flowhooks.web.errors import LocalizedHTTPError
from flowhooks.web.server.channel import Rejection


def rejection(status, key, path="/flow/1/call-back/complete", **params):
    """A rejected request."""
    return Rejection(LocalizedHTTPError(status, key, **params), "POST", path, "192.0.2.1")


class Neighbours:
    """A log with fakes of its neighbours."""

    def __init__(self):
        self.counted, self.recorded = [], []
        app = SimpleNamespace(
            metrics=SimpleNamespace(refused=self.counted.append),
            rejected_requests=SimpleNamespace(record=lambda **given: self.recorded.append(given)),
        )
        self.log = EarlyRejectionLog(app)


def test_each_rejection_is_counted_and_recorded():
    """Metrics count it, and the log of rejected requests gets it with its reason in both languages."""
    neighbours = Neighbours()
    neighbours.log.record(rejection(413, "too_large", limit=1)._replace(user_agent="Engine/1"))
    neighbours.log.record(rejection(408, "request_timeout"))
    assert neighbours.counted == [413, 408]
    first, second = neighbours.recorded
    assert (first["status"], first["method"], first["user_agent"]) == (413, "POST", "Engine/1")
    assert (second["status"], second["user_agent"]) == (408, "")
    assert "1" in first["english"]
    assert first["chinese"] != first["english"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/flow/1", True),
        ("//flow/1", True),
        ("/in/oa", True),
        ("/in", False),
        ("/inbox/", False),
        ("", False),
        ("*", False),
        ("/favicon.ico", False),
        ("/flowers", False),
    ],
)
def test_only_callbacks_are_listed(path, expected):
    """A request to any other path is counted and logged, but is not listed among the rejected requests."""
    neighbours = Neighbours()
    neighbours.log.record(rejection(404, "path_slashes", path))
    assert is_callback(path) == expected
    assert [given["is_callback"] for given in neighbours.recorded] == [expected]
    assert neighbours.counted == [404]
