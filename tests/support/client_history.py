"""The history of a client, as `flowhooks verify --against` reads it. No tests of its own."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class ClientHistory:
    """A file to which clients append the responses that they received. All methods are thread-safe."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        file.touch()

    def add(self, instance: str, body: str, status: int | None, event_id: str | None = None) -> None:
        """Append a response; without a status, that no response arrived."""
        response = {
            "time": datetime.now(UTC).isoformat(),
            "flowInstanceId": instance,
            "body": body,
            "status": status,
            "event": event_id,
        }
        with self._lock, self.file.open("a") as file:
            file.write(json.dumps(response) + "\n")
