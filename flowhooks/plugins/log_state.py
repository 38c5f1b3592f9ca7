"""The configuration of this process's log, which a plugin may replace when it is imported, as if it were a program."""

from __future__ import annotations

import logging
import sys
from typing import Any, NamedTuple, Self


class LogState(NamedTuple):
    """The configuration of `logging` and structlog at one time.

    Attributes:
        handlers: handlers of the root logger.
        level: level of the root logger.
        disabled_level: level up to which `logging.disable` disables all records.
        enabled: the loggers that are not disabled, as `logging.config.dictConfig` does by default.
        structlog: configuration of structlog; None if it is not imported.
    """

    handlers: tuple[logging.Handler, ...]
    level: int
    disabled_level: int
    enabled: tuple[logging.Logger, ...]
    structlog: dict[str, Any] | None

    @classmethod
    def read(cls) -> Self:
        """Return the current configuration."""
        root = logging.getLogger()
        loggers = [logger for logger in root.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
        structlog = sys.modules.get("structlog")  # short commands do not import it
        return cls(
            tuple(root.handlers),
            root.level,
            root.manager.disable,
            tuple(logger for logger in loggers if not logger.disabled),
            None if structlog is None else structlog.get_config(),
        )

    def restore(self) -> bool:
        """Undo changes that take records away; return whether there were any. An added handler stays."""
        root, structlog = logging.getLogger(), sys.modules.get("structlog")
        has_changed = False
        if not set(self.handlers) <= set(root.handlers):
            root.handlers[:] = self.handlers
            has_changed = True
        if root.level != self.level:
            root.setLevel(self.level)
            has_changed = True
        if root.manager.disable != self.disabled_level:
            logging.disable(self.disabled_level)
            has_changed = True
        for logger in self.enabled:
            has_changed |= logger.disabled
            logger.disabled = False
        if structlog is not None and self.structlog is not None and structlog.get_config() != self.structlog:
            structlog.configure(**self.structlog)
            has_changed = True
        return has_changed
