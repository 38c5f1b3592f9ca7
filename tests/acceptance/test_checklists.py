"""The commands of both checklists, as they stand there, beside a server with the settings that the pages assume."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path

import pytest

from support.waiting import WAIT_TIMEOUT

PAGES = Path(__file__).parents[2] / "docs/how-to"
NAMES = ("production-checklist", "security-checklist")
ELSEWHERE = ("systemctl", "systemd-analyze", "journalctl", "kubectl", "nginx", "promtool", "ss", "df")
"""Programs whose commands are for a machine with this service."""
ELSEWHERE_PARTS = (
    "https://flowhooks.example.com",
    "NAMESPACE",
    "pip list --outdated",
    "SHA256SUMS",
    "/opt/flowhooks-*",
)
"""Parts of commands that need a proxy, another machine, a package registry or a release."""
FINDS_NOTHING = {"grep -nE '^[^#]*postgresql://[^/]*:[^/]*@' /etc/flowhooks.toml"}
"""Commands whose expected answer is that there is no such line."""
TOKEN = "a-token-of-the-engine-0123456789"
PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="leave")
def work(event):
    pass

@hookimpl
def handlers():
    return [work]
"""


def commands(name):
    """The commands in the column `check` of a page."""
    for line in (PAGES / f"{name}.md").read_text().splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if len(cells) > 4:
            for command in re.findall(r"`([^`]+)`", cells[2]):
                if re.match(r"(?:/opt/flowhooks/bin/)?[a-z0-9-]+ [^…]+$", command):
                    yield command


ALL = sorted({command for name in NAMES for command in commands(name)})
RUN = [
    command
    for command in ALL
    if shlex.split(command)[0] not in ELSEWHERE and not any(part in command for part in ELSEWHERE_PARTS)
]


@pytest.fixture(scope="module")
def walk(make_site):
    """Run a command of a page; return the finished process."""
    site = make_site()
    site.plugin("absence", PLUGIN)
    folder = site.folder.resolve()
    secret = folder / "flowhooks" / "erp"
    secret.parent.mkdir()
    secret.write_text(TOKEN)
    secret.chmod(0o600)
    settings = folder / "flowhooks.toml"
    operator = hashlib.sha256(b"a-token-of-an-operator-0123456789").hexdigest()
    text = f"""
public_url = "https://ops.example.com"
database = "{site.database.resolve()}"
plugins_dirs = ["{site.plugins.resolve()}"]
[sources.erp]
token_file = "{secret}"
[operators.ann]
role = "operate"
token_sha256 = ["{operator}"]
"""
    server = site.start(config=text)
    assert (
        server.post("4711", {"processDefinitionKey": "leave"}, Authorization=f"Bearer {TOKEN}").status == HTTPStatus.OK
    )
    listen, admin = ("{}:{}".format(*place) for place in (server.address, server.admin))
    settings.write_text(f'listen = "{listen}"\nadmin = "{admin}"\n{text}')
    settings.chmod(0o600)
    empty = folder / "empty"
    empty.mkdir()
    (folder / "backup").mkdir()
    body = hashlib.sha256(b'{"processDefinitionKey": "leave"}').hexdigest()
    answered = {"flowInstanceId": "4711", "status": 200, "bodySha256": body, "source": "erp"}
    (empty / "callbacks.jsonl").write_text(json.dumps(answered) + "\n")
    paths = {
        "/etc/flowhooks.toml": settings,
        "/etc/flowhooks": folder / "flowhooks",
        "/var/lib/flowhooks/flowhooks.db": site.database.resolve(),
        "/var/lib/flowhooks": site.database.resolve().parent,
        "/backup": folder / "backup",
        "/opt/flowhooks/bin": Path(sys.executable).parent,
        "/opt/flowhooks": Path(sys.prefix),
    }
    environ = {"FLOWHOOKS_CONFIG": str(settings), "PATH": f"{Path(sys.executable).parent}:{os.defpath}"}

    def run(command):
        if command.startswith("curl -s http://127.0.0.1:8081/"):
            status = server.ask("GET", f"/{command.rpartition('/')[2]}", admin=True).status
            return subprocess.CompletedProcess(command, 0 if status == HTTPStatus.OK else 22, "", "")
        for path, there in paths.items():
            command = re.sub(rf"(?<![\w/]){re.escape(path)}(?=[\s/*']|$)", str(there), command)
        return subprocess.run(
            ["sh", "-c", command],
            cwd=empty,
            env=environ,
            capture_output=True,
            text=True,
            timeout=WAIT_TIMEOUT,
            check=False,
        )

    return run


def test_the_pages_have_commands():
    """The list that is run has the commands about which the pages are, and no name of another program is misspelt."""
    assert {"flowhooks check", "flowhooks verify", "flowhooks operators list", "flowhooks audit"} <= set(RUN)
    assert set(ELSEWHERE) == {shlex.split(command)[0] for command in ALL} & set(ELSEWHERE)
    assert {shlex.split(command)[0] for command in RUN} <= {
        *("flowhooks", "/opt/flowhooks/bin/flowhooks", "/opt/flowhooks/bin/pip", "python3"),
        *("curl", "grep", "ls", "stat"),
    }


def test_every_command_succeeds(walk):
    """Each command ends with exit code 0 in an empty folder with an empty environment, in the order of the pages."""
    ordered = list(dict.fromkeys(command for name in NAMES for command in commands(name) if command in RUN))
    # Credentials are changed, and the server is replaced, after everything else.
    ordered.sort(key=lambda command: command.startswith(("flowhooks restart", "flowhooks sources rotate")))
    ended = [(command, walk(command)) for command in ordered]
    wrong = [
        (command, process.returncode, process.stdout[-500:], process.stderr[-500:])
        for command, process in ended
        if process.returncode != (1 if command in FINDS_NOTHING else 0)
    ]
    assert wrong == []
