"""An engine whose history is a file, for servers in separate processes. No tests."""

from __future__ import annotations

from datetime import UTC, datetime

PLUGIN = '''
import os, time
from datetime import UTC, datetime
from pathlib import Path
from flowhooks import EndState, EngineInfo, FinishedInstance, FinishedPage, InstanceStatus, handler, hookimpl

FOLDER = Path(os.environ["JOURNAL"]).parent

class Client:
    """Reads lines of the file `history`: id and end time. A page waits as long as the file `shut` exists."""

    def __init__(self, config):
        self.size = config.page_size

    def check(self):
        return EngineInfo(product="File", version="1")

    def finished(self, since, until, cursor=None):
        with (FOLDER / "asked").open("a") as asked:
            print(os.getpid(), file=asked, flush=True)
        is_noted = False
        while (FOLDER / "shut").exists():
            if not is_noted:
                with (FOLDER / "held").open("a") as held:
                    print(os.getpid(), file=held, flush=True)
            is_noted = True
            time.sleep(0.01)
        lines = (FOLDER / "history").read_text().splitlines() if (FOLDER / "history").exists() else []
        rows = sorted((end, name) for name, end in map(str.split, lines))
        rows = [row for row in rows if since <= datetime.fromisoformat(row[0]) <= until]
        rows = [row for row in rows if cursor is None or " ".join(row) > cursor]
        page = [
            FinishedInstance(
                id=name,
                ended_at=datetime.fromisoformat(end),
                end_state=EndState.COMPLETED,
                process_definition_key="leave",
            )
            for end, name in rows[: self.size]
        ]
        more = " ".join(rows[self.size - 1]) if len(rows) > self.size else None
        return FinishedPage(instances=page, cursor=more, engine_time=datetime.now(UTC))

    def instance(self, instance_id):
        return InstanceStatus.RUNNING

    def definitions(self):
        return ()

    def close(self):
        pass

@handler(process_key="leave")
def grant(event):
    """Grant the leave."""

@hookimpl
def handlers():
    return [grant]

@hookimpl
def engine_clients():
    return {"file": Client}
'''
CONFIG = """
[sources.oa.engine]
client = "file"
url = "http://oa.invalid"
reconcile_every = 1
grace = 0
page_size = 3
"""


class FileEngine:
    """The history in the folder of a site."""

    def __init__(self, folder):
        self.folder = folder

    def finish(self, *names):
        """End instances now, in this order."""
        now = datetime.now(UTC)
        lines = [f"{name} {now.isoformat(timespec='milliseconds')}\n" for name in names]
        written = self.folder / "history.new"
        before = (self.folder / "history").read_text() if (self.folder / "history").exists() else ""
        written.write_text(before + "".join(lines))
        written.replace(self.folder / "history")

    def block(self):
        """Make each request for a page wait."""
        (self.folder / "shut").touch()

    def unblock(self):
        """Let all requests for pages continue."""
        (self.folder / "shut").unlink()

    def page_requests(self):
        """Return the process id of each request for a page."""
        return self._pids("asked")

    def blocked_requests(self):
        """Return the process id of each request for a page that had to wait."""
        return self._pids("held")

    def _pids(self, name):
        file = self.folder / name
        return [int(line) for line in file.read_text().split()] if file.exists() else []
