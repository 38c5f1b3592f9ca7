"""An environment for the commands of a page: a server, a ledger, and programs of the usual names.

The only differences from a reader's machine are addresses and paths: the programs in `bin/` replace
`http://127.0.0.1:8080` by this server, and the ids of the pages, such as `DELIVERY_ID`, by ids of its ledger.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowhooks.ledger.lock import Lock
from support import fork_server

if TYPE_CHECKING:
    from support.code_blocks import Block

COMMAND_TIMEOUT = 60.0
"""Timeout of a command in seconds, for busy machines."""
HANDLERS = {
    "leave": """\
from flowhooks import handler, hookimpl

@handler(process_key="leave_request")
def grant_leave(event):
    return f"granted: {event.business_key}"

@hookimpl
def handlers():
    return [grant_leave]
""",
    "agreements": """\
import time
from flowhooks import Reject, handler, hookimpl

@handler(callback_class="com.example.ContractSigned", process_key="contract_approval")
def archive_contract(event):
    if event.data.get("fails"):
        raise Reject("The archive has no room.")

@handler(process_key="hangs")
def announce_contract(event):
    time.sleep(600)

@hookimpl
def handlers():
    return [archive_contract, announce_contract]
""",
}
"""The plugins of a stage: handlers that the pages name."""
REPLACEMENTS = {
    "/etc/flowhooks.toml": "{folder}/flowhooks.toml",
    "/var/lib/flowhooks/": "{folder}/",
    "/backup/": "{folder}/backup/",
    "/opt/flowhooks/bin/": "",
    ".venv/bin/": "",
    "contracts:": "agreements:",  # an installed plugin has this name in the environment of these tests
}
"""Paths and names on a reader's machine, and their replacements in the environment of a stage."""
FLOWHOOKS = """\
if words[3:4] == ["send"] and "--to" not in words:
    words += ["--to", os.environ["STAGE_CALL_BACKS"]]
state = "unknown" if {{"--did", "--did-not"}} & set(words) else "dead"
for name, statement in (
    ("DELIVERY_ID", f"SELECT id FROM deliveries WHERE state = '{{state}}'"),
    ("OPERATION_ID", "SELECT id FROM operations WHERE state = 'finished'"),
    ("3f6f1e0c9a11", "SELECT substr(fingerprint, 1, 12) FROM error_groups"),
    ("019ab2c4-5d1e-7a00-8000-3f6f1e0c9a11", "SELECT event_id FROM conflicts"),
    ("3f5a9c01d2e4b687", "SELECT substr(digest, 1, 16) FROM conflicts"),
):
    if name in words:
        import sqlite3
        with sqlite3.connect("file:{folder}/flowhooks.db?mode=ro", uri=True) as ledger:
            found = ledger.execute(statement).fetchone()
        if not found:
            sys.exit(f"this stage has nothing for {{name}}: {{statement}}")
        words[words.index(name)] = found[0]
if words[3:4] == ["serve"]:
    import subprocess
    free = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--database", "{folder}/another.db"]
    server = subprocess.Popen([*words, *free], stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        sys.stderr.write(line)
        if "server_started" in line:
            server.send_signal(signal.SIGTERM)
    sys.exit(server.wait())
"""
"""The first statements of `flowhooks` in a stage: they insert addresses and ids, and stop `serve` once it serves."""
CURL = '''\
#!{python}
"""As much of curl as the pages use; it fails on a 4xx or 5xx only if --fail is given."""
import http.client, os, shlex, sys
from urllib.parse import urlsplit
servers = {{8080: os.environ["STAGE_CALL_BACKS"], 8081: os.environ["STAGE_ADMIN"]}}
words, headers, body, url, method, fail = iter(sys.argv[1:]), {{}}, None, None, None, False
for word in words:
    if word in ("-H", "--header"):
        name, _, value = next(words).partition(": ")
        headers[name] = value
    elif word in ("-d", "--data", "--data-binary", "--json"):
        body = next(words)
        body = open(body[1:], "rb").read() if body.startswith("@") else body.encode()
        if word == "--json":
            headers["Content-Type"] = "application/json"
    elif word in ("-X", "--request"):
        method = next(words)
    elif word in ("-i", "-s", "-sS", "-si", "--silent", "--show-error"):
        pass
    elif word in ("-f", "--fail"):
        fail = True
    elif word.startswith("-"):
        sys.exit(f"curl of these tests has no option {{word}}")
    else:
        url = urlsplit(word)
connection = http.client.HTTPConnection(urlsplit(servers[url.port]).netloc, timeout=30)
target = url.path + ("?" + url.query if url.query else "")
connection.request(method or ("GET" if body is None else "POST"), target, body, headers)
response = connection.getresponse()
sys.stdout.write(f"HTTP/1.1 {{response.status}} {{response.reason}}\\n\\n{{response.read().decode()}}\\n")
sys.exit(fail and response.status >= 400)
'''
SQLITE = '''\
#!{python}
"""As much of sqlite3 as the pages use, for machines without it."""
import sqlite3, sys
file, statement = (word for word in sys.argv[1:] if not word.startswith("-"))
with sqlite3.connect(file) as connection:
    for row in connection.execute(statement):
        print(*row, sep="|")
connection.close()
'''
PYTHON = '#!/bin/sh\nexec {python} "$@"\n'
QUOTED_COMMAND = re.compile(
    r"""(?!(?:case|for|function|if|select|time|until|while)\b)(?:[\w./:=,@%+ -]|\\\n|'[^']*'|"[^"$`\\]*")+"""
    r"(?:>>? [\w./-]+)?(?: +#.*)?\n"
)
"""A command of words and quoted words, without operators and keywords: complete without a check by a shell."""


@dataclass(frozen=True)
class Command:
    """One command of a block.

    Attributes:
        line: the number of its first line in the page.
        text: the original text, including continuation lines.
    """

    line: int
    text: str


def commands(block: Block) -> list[Command]:
    """The commands of a shell block; continued lines, quotes and here-documents stay together."""
    complete: list[Command] = []
    unfinished = ""
    start = 0
    for number, line in enumerate(block.text.split("\n"), block.line + 1):
        if not unfinished and block.language == "console":
            if not line.startswith("$ "):
                continue  # output of a command
            line = line.removeprefix("$ ")  # noqa: PLW2901
        if not unfinished and (not line.strip() or line.lstrip().startswith("#")):
            continue
        start = start if unfinished else number
        unfinished += line + "\n"
        if _is_complete(unfinished):
            complete.append(Command(start, unfinished.rstrip("\n")))
            unfinished = ""
    if unfinished:
        raise ValueError(f"{block.where}: a command does not end: {unfinished}")
    return complete


_PLAIN_COMMAND = re.compile(r"(?!(?:case|for|function|if|select|time|until|while)\b)[\w ./:=@%+,-]+\n")
"""A command on one line without quotes, substitutions and operators."""


@cache
def _is_complete(text: str) -> bool:
    """Whether the text is a complete shell command."""
    if _PLAIN_COMMAND.fullmatch(text):  # all test processes collect the commands: avoid a shell for most of them
        return True
    if text.endswith("\\\n"):
        return False
    if QUOTED_COMMAND.fullmatch(text):
        return True
    if match := re.search(r"<<-?\s*['\"]?(\w+)['\"]?", text):
        return text.rstrip("\n").endswith(f"\n{match[1]}")
    checked = subprocess.run(["bash", "-n", "-c", text], capture_output=True, check=False)
    return checked.returncode == 0


class Stage:
    """A folder with a running server, in which the commands of one page are run."""

    def __init__(self, folder: Path, *, handlers: dict[str, str] | None = None, settings: str = "") -> None:
        """Make the folder.

        Args:
            folder: a folder that does not exist.
            handlers: further plugins, each a file's text by its name.
            settings: further lines at the top of `flowhooks.toml`.
        """
        self.folder = folder
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("FLOWHOOKS_", "PYTEST_"))
        } | {
            "FLOWHOOKS_PLUGINS_DENY": ",".join(entry_point.name for entry_point in entry_points(group="flowhooks")),
            "FLOWHOOKS_CONFIG": str(folder / "flowhooks.toml"),
            "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        for name in ("handlers", "backup", "bin"):
            (folder / name).mkdir(parents=True)
        for name, text in (HANDLERS | (handlers or {})).items():
            (folder / f"handlers/{name}.py").write_text(text)
        (folder / "flowhooks.toml").write_text(
            f'database = "{folder}/flowhooks.db"\nplugins_dirs = ["{folder}/handlers"]\n{settings}\n'
            "[runner]\nthreads = 8\n"
        )
        for name, text in (("curl", CURL), ("sqlite3", SQLITE), ("python3", PYTHON)):
            program = folder / "bin" / name
            program.write_text(text.format(python=sys.executable, folder=folder))
            program.chmod(0o755)
        fork_server.program(folder / "bin/flowhooks", prepare=FLOWHOOKS.format(folder=folder))
        self._server: fork_server.Forked | None = None

    def start(self) -> None:
        """Start the server."""
        self._server = fork_server.start(
            [*fork_server.FLOWHOOKS, "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
            cwd=self.folder,
            env=self.environment,
        )
        output = b""
        for line in self._server.stderr:
            output += line
            record = json.loads(line)
            if record["event"] == "server_started":
                self.environment |= {"STAGE_CALL_BACKS": record["call_backs"], "STAGE_ADMIN": record["admin"]}
                return
        raise RuntimeError(output.decode())

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Stop the server, and the process that has replaced it."""
        if self._server:
            owner = Lock(self.folder / "flowhooks.db").owner()
            self._server.send_signal(signal_number)
            # A server that is killed before it has become the supervisor of its successor leaves the successor running.
            if signal_number == signal.SIGKILL and owner is not None and owner.pid != self._server.pid:
                with suppress(ProcessLookupError):
                    os.kill(owner.pid, signal_number)
            with self._server.stderr as errors:
                errors.read()
            self._server.wait(COMMAND_TIMEOUT)
            self._server = None

    def seed(self) -> None:
        """Store an event 4711 with a dead delivery and a conflict, and two events with unknown deliveries."""
        body = {"processDefinitionKey": "contract_approval", "businessKey": "C-2026-17"}
        self.post("4711", body | {"fails": True})
        self.post("4711", body | {"fails": False})
        for flow in ("4712", "4713"):
            self.post(flow, {"processDefinitionKey": "hangs"}, Prefer="respond-async")
        deadline = time.monotonic() + COMMAND_TIMEOUT
        with closing(sqlite3.connect(f"file:{self.folder}/flowhooks.db?mode=ro", uri=True)) as ledger:
            while ledger.execute("SELECT count(*) FROM deliveries WHERE state = 'running'").fetchone() != (2,):
                assert time.monotonic() < deadline, "the two deliveries never ran"
                time.sleep(0.01)
        self.stop(signal.SIGKILL)
        self.start()

    def next_record(self, logger: str) -> dict[str, Any]:
        """Wait for the next record of a logger in the server's log."""
        assert self._server
        for line in self._server.stderr:
            record: dict[str, Any] = json.loads(line)
            if record["logger"] == logger:
                return record
        raise RuntimeError(f"the server has ended without a record of {logger}")

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run one command of a page at a terminal; answer its questions with yes."""
        keyboard, terminal = pty.openpty()
        try:
            os.write(keyboard, b"y\n")
            return subprocess.run(
                ["bash", "-euo", "pipefail", "-c", self._localize(text)],
                cwd=self.folder,
                env=self.environment,
                stdin=terminal,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT,
                check=False,
            )
        finally:
            os.close(terminal)
            os.close(keyboard)

    def _localize(self, text: str) -> str:
        for original, replacement in REPLACEMENTS.items():
            text = text.replace(original, replacement.format(folder=self.folder))
        return text

    def post(self, flow: str, body: dict[str, object], **headers: str) -> None:
        """Send a callback."""
        request = urllib.request.Request(
            f"{self.environment['STAGE_CALL_BACKS']}/flow/{flow}/call-back/complete",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", **headers},
        )
        try:
            urllib.request.urlopen(request, timeout=COMMAND_TIMEOUT).close()
        except urllib.error.HTTPError as error:
            error.close()  # 500: the handler fails on purpose; 409: the conflict
