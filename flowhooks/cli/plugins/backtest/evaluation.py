"""Start processes that evaluate events with the plugins of an environment, and ask them."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final, Self

from flowhooks.cli.plugins.inspection import InspectionFailed
from flowhooks.operations.backtest import EventOutcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

EVALUATOR: Final = "flowhooks.cli.plugins.backtest.evaluator"
STOP_TIMEOUT: Final = 5.0
"""Seconds for a process to exit after its input has ended; then it is killed: a plugin's thread may keep it."""


class Evaluation:
    """A process that evaluates events. It is started at once, and loads its plugins meanwhile.

    Args:
        what: names its plugins in an error, such as `"the installed plugins"`.
        python: interpreter of its environment.
        arguments: options of flowhooks that name the settings.
        environ: its environment variables; None: those of this process.

    Attributes:
        process: the process.
    """

    def __init__(
        self, what: str, python: str | Path, arguments: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> None:
        self._what = what
        # -P: import nothing from the working folder, as for the command itself.
        self.process = subprocess.Popen(  # noqa: S603 (flowhooks itself)
            [python, "-P", "-m", EVALUATOR, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=environ,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(OSError):  # it may have exited before it read everything
            self._stream(self.process.stdin).close()
        self._wait()
        self._stream(self.process.stdout).close()

    def _wait(self) -> int:
        """Wait until the process exits, or kill it; return its exit code."""
        try:
            return self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def plugins(self) -> list[dict[str, Any]]:
        """Return its plugins, as `flowhooks plugins list --json` prints them. Call it first, and once.

        Raises:
            InspectionFailed: the plugins could not be loaded.
        """
        plugins: list[dict[str, Any]] = self._receive()["plugins"]
        return plugins

    def request(self, line: str) -> None:
        """Send an event, a JSON document without line feeds. Receive its outcome before the next request."""
        stream = self._stream(self.process.stdin)
        try:
            stream.write(line + "\n")
            stream.flush()
        except OSError:
            self._receive()  # it has exited, and may have said why
            raise self._failure() from None

    def outcome(self) -> EventOutcome:
        """Return the outcome of the requested event.

        Raises:
            InspectionFailed: the event could not be evaluated.
        """
        return EventOutcome.from_json(self._receive())

    def _receive(self) -> dict[str, Any]:
        line = self._stream(self.process.stdout).readline()
        if not line.endswith("\n"):
            raise self._failure()
        document: dict[str, Any] = json.loads(line)
        if error := document.get("error"):
            raise InspectionFailed(f"{self._what} cannot be evaluated: {error}")
        return document

    def _failure(self) -> InspectionFailed:
        return InspectionFailed(
            f"{self._what} cannot be evaluated: their process ended with exit code {self._wait()}; a plugin may have "
            "ended it"
        )

    def _stream(self, stream: IO[str] | None) -> IO[str]:
        if stream is None:
            raise AssertionError("the process has pipes")
        return stream
