"""Loggers of modules that commands import. The first record imports structlog, not the module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger


def get_logger(name: str) -> BoundLogger:
    """Return the logger of a module, as `structlog.get_logger` does."""
    return cast("BoundLogger", _Logger(name))


class _Logger:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        # Most commands log nothing, and structlog takes a tenth of a second, because it imports rich. Servers have
        # imported it when they configure logging.
        import structlog  # noqa: PLC0415 (as above)

        return getattr(structlog.get_logger(self._name), method)
