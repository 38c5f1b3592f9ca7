"""Fixtures that the tests of the test kit share."""

from __future__ import annotations

from support.handler_modules import module, world  # noqa: F401 (a fixture)
