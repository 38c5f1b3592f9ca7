"""A server for single requests."""

from __future__ import annotations

import pytest


@pytest.fixture
def server(start):
    """A server with small limits and long timeouts."""
    return start(max_body_bytes=1000, max_header_bytes=8192, read_timeout=20)
