"""Fixtures that the tests of the parts of fault injection share."""

from __future__ import annotations

from support.handler_modules import module  # noqa: F401 (a fixture)
