"""The register of completed flows, a table in a SQLite file. Replace it with your own work.

It does not import flowhooks: business code stays independent.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_TABLE = """
CREATE TABLE IF NOT EXISTS flows (
    number       INTEGER PRIMARY KEY,
    delivery_id  TEXT NOT NULL UNIQUE,
    flow         TEXT NOT NULL,
    business_key TEXT NOT NULL
)
"""


@dataclass(slots=True)
class Register:
    """Flows that have completed, numbered. Any number of threads may use one register at once.

    Attributes:
        database: the SQLite file; created at the first use; its folder must exist.
    """

    database: Path

    def enter(self, *, delivery_id: str, flow: str, business_key: str) -> int:
        """Enter a flow once for each `delivery_id`, even if this is called repeatedly.

        Returns:
            The number of the entry, which is the same for each call.
        """
        with closing(sqlite3.connect(self.database, timeout=10)) as connection, connection:
            connection.execute(_TABLE)
            connection.execute(
                "INSERT INTO flows (delivery_id, flow, business_key) VALUES (?, ?, ?)"
                " ON CONFLICT (delivery_id) DO NOTHING",
                (delivery_id, flow, business_key),
            )
            found = connection.execute("SELECT number FROM flows WHERE delivery_id = ?", (delivery_id,))
            return int(found.fetchone()[0])

    def flows(self) -> list[tuple[str, str]]:
        """Every entry, the oldest first: the flow and its business key."""
        with closing(sqlite3.connect(self.database, timeout=10)) as connection, connection:
            connection.execute(_TABLE)
            return connection.execute("SELECT flow, business_key FROM flows ORDER BY number").fetchall()
