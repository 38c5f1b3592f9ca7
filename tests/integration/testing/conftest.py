"""Fixtures shared by the tests of the test kit."""

from __future__ import annotations

from support.handler_modules import module, world  # noqa: F401 (a fixture)
