"""The outbox: a file in place of a mail or message gateway. A sent message cannot be withdrawn."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(slots=True)
class Outbox:
    """The sent messages. Each is one line: its id, a space, and its text as JSON.

    Attributes:
        file: the file of the messages. It is created on first use; its folder must exist.
    """

    file: Path

    def send(self, message_id: str, text: str) -> None:
        """Send a message. A second call sends it a second time."""
        line = f"{message_id} {json.dumps(text, ensure_ascii=False)}\n".encode()
        with self.file.open("a+b", buffering=0) as out:
            end = out.seek(0, os.SEEK_END)
            out.seek(max(0, end - 1))
            if end and out.read(1) != b"\n":
                # The last line is incomplete: start a new line. If another thread is still writing the last line, an
                # empty line follows, which `has_message` ignores.
                line = b"\n" + line
            # One write for each line, so the lines of several threads do not mix.
            if out.write(line) != len(line):
                raise OSError(f"{self.file}: the message was written only in part")
            os.fsync(out.fileno())

    def has_message(self, message_id: str) -> bool | None:
        """Return whether a message was sent, or None if an incomplete line may be this message."""
        prefix, may_be_incomplete = f"{message_id} ".encode(), False
        if self.file.exists():
            with self.file.open("rb") as lines:
                for line in lines:
                    if line.startswith(prefix) and _is_json(line[len(prefix) :]):
                        return True
                    line_start = line.rstrip(b"\n")[: len(prefix)]
                    may_be_incomplete |= bool(line_start) and prefix.startswith(line_start)
        return None if may_be_incomplete else False


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
