"""A server for single requests."""

from __future__ import annotations

import time

import pytest


@pytest.fixture
def server(start):
    """A server with small limits and long timeouts."""
    return start(max_body_bytes=1000, max_header_bytes=8192, read_timeout=20)


@pytest.fixture
def step_clock(monkeypatch):
    """A function that sets the clock of the time limits forward. A busy machine does not exceed long limits itself."""
    now = time.monotonic

    def step(seconds):
        monkeypatch.setattr(time, "monotonic", lambda: now() + seconds)

    return step
