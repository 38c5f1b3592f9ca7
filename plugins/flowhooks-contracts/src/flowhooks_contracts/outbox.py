"""The outbox, a file that stands for any mail or message gateway: a sent message cannot be taken back."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(slots=True)
class Outbox:
    """Messages, one line each: its id, a space and its text as JSON.

    Attributes:
        file: created on first use, its folder must exist.
    """

    file: Path

    def send(self, message_id: str, text: str) -> None:
        """Send a message; sent twice, it arrives twice."""
        line = f"{message_id} {json.dumps(text, ensure_ascii=False)}\n".encode()
        with self.file.open("ab", buffering=0) as out:
            # One write for each line, so that those of several threads do not mix.
            if out.write(line) != len(line):
                raise OSError(f"{self.file}: the message was written in part")
            os.fsync(out.fileno())

    def sent(self, message_id: str) -> bool | None:
        """Whether a message is in the outbox; None if that is not known, because its last line was written in part."""
        line = b"\n"
        if self.file.exists():
            with self.file.open("rb") as lines:
                for line in lines:
                    if line.endswith(b"\n") and line.startswith(f"{message_id} ".encode()):
                        return True
        return False if line.endswith(b"\n") else None
