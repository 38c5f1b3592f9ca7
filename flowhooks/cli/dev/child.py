"""The server process of `flowhooks dev`."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from flowhooks.cli import output

if TYPE_CHECKING:
    from collections.abc import Sequence

KILL_AFTER: Final = 60.0
"""Seconds after SIGTERM after which the server is killed. Its own limit, `shutdown.timeout`, is 30 by default."""


class ServerProcess:
    """A `flowhooks serve` that can be restarted.

    Args:
        arguments: further arguments of `serve`.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        # -P: a file in the current folder must not replace a module of the same name.
        self._command = [sys.executable, "-P", "-m", "flowhooks", "serve", *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server."""
        environ = {"FLOWHOOKS_LOG_FORMAT": "text"} | os.environ
        # A session of its own: Ctrl-C at the terminal reaches this process only, which then stops the server.
        self._process = subprocess.Popen(self._command, env=environ, start_new_session=True)  # noqa: S603 (our own command)

    def restart(self) -> None:
        """Stop the server if it runs, and start it again."""
        self.close()
        self.start()

    def report_exit(self) -> None:
        """Print once that the server has exited by itself; the next saved file starts it again."""
        if self._process is not None and (code := self._process.poll()) is not None:
            self._process = None
            output.print_line(
                f"The server has exited with {code}. It starts again when a file is saved.", err=True, style="red"
            )

    def close(self) -> None:
        """Stop the server, and wait until it has exited."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(KILL_AFTER)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
