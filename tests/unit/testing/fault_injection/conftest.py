"""Fixtures shared by the tests of the parts of fault injection."""

from __future__ import annotations

from support.handler_modules import module  # noqa: F401 (a fixture)
