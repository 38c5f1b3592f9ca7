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
        with self.file.open("a+b", buffering=0) as out:
            end = out.seek(0, os.SEEK_END)
            out.seek(max(0, end - 1))
            if end and out.read(1) != b"\n":
                # The last line was written in part, and must not take this one in. If another thread is still writing
                # it, there will be an empty line, which is ignored.
                line = b"\n" + line
            # One write for each line, so that those of several threads do not mix.
            if out.write(line) != len(line):
                raise OSError(f"{self.file}: the message was written in part")
            os.fsync(out.fileno())

    def sent(self, message_id: str) -> bool | None:
        """Whether a message is in the outbox; None if that is not known, because a line was written in part."""
        start, in_part = f"{message_id} ".encode(), False
        if self.file.exists():
            with self.file.open("rb") as lines:
                for line in lines:
                    if line.startswith(start) and _is_json(line[len(start) :]):
                        return True
                    begun = line.rstrip(b"\n")[: len(start)]
                    in_part |= bool(begun) and start.startswith(begun)
        return None if in_part else False


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
