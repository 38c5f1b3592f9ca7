"""`make demo`: run flowhooks with its example plugin, from the start of the server to its end.

Everything is real: the server is a separate process, the callbacks are sent over HTTP, and the plugin writes to its own
table. The files stay in `demo/` for inspection.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

Process: TypeAlias = "subprocess.Popen[str]"

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "demo"
FLOWHOOKS = Path(sys.executable).with_name("flowhooks")
EXAMPLE = {
    "businessKey": "1",
    "callBackProcessClass": "com.cnooc.test.CallbackHandler",
    "processDefinitionId": "1",
    "processDefinitionKey": "test_flow_key",
    "processDefinitionVersion": 1,
}
"""The example of the callback's API page (which lacks the quotes around one name)."""
INVALID = {"businessKey": True, "processDefinitionVersion": "one"}
CONFIG = """\
database = "demo/flowhooks.db"
plugins_allow = ["contracts"]

[log]
format = "text"

[plugins.contracts]
database = "demo/contracts.db"
outbox = "demo/contracts-outbox.txt"
"""
START_TIMEOUT, STOP_TIMEOUT = 120, 30
"""Seconds."""


def print_title(text: str) -> None:
    """Print the title of a step."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


def print_output(text: str) -> None:
    """Print the output of another program, indented."""
    print("".join(f"    {line}\n" for line in text.rstrip().splitlines()), end="", flush=True)


def start(*words: str, log: Path, marker: str, environ: Mapping[str, str] | None = None) -> tuple[Process, str]:
    """Start a long-running command; return its process, and the word after `marker` in its log once it is ready."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(FLOWHOOKS), *words],
            cwd=ROOT,
            env=inherited | dict(environ or {}),
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,  # Ctrl-C is for the demonstration, which then stops the server itself
        )
    try:
        for _ in range(START_TIMEOUT * 20):
            for line in log.read_text().splitlines():
                if marker in line:
                    return process, line.split(marker)[1].split()[0]
            if process.poll() is not None:
                break
            time.sleep(0.05)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.kill()
    process.wait()
    print_output(log.read_text())
    sys.exit(f"`flowhooks {words[0]}` did not start; its output is above.")


def post(url: str, flow: str, body: object) -> int:
    """Post a callback, print it with its response, and return the status."""
    text = json.dumps(body)
    print_output(f"POST /flow/{flow}/call-back/complete\n{text}")
    request = urllib.request.Request(
        f"{url}/flow/{flow}/call-back/complete", text.encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            status, response_body = response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            status, response_body = error.code, error.read().decode()
    print_output(f"→ {status}\n{json.dumps(json.loads(response_body), indent=2, ensure_ascii=False)}")
    return status


def run(*arguments: str, environ: Mapping[str, str] | None = None) -> int:
    """Run a command of flowhooks, print its output, and return its exit code."""
    print_output(f"$ flowhooks {' '.join(arguments)}")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
    completed = subprocess.run(
        [str(FLOWHOOKS), *arguments],
        cwd=ROOT,
        env=inherited | dict(environ or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    print_output(completed.stdout + completed.stderr)
    return completed.returncode


def read_contracts() -> list[dict[str, object]]:
    """Return the contracts in the plugin's own table."""
    with closing(sqlite3.connect(FOLDER / "contracts.db")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM contracts")]


def main() -> None:
    """Run all steps, and exit with 0 only if each had the expected result."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    (FOLDER / "flowhooks.toml").write_text(CONFIG)
    print_title("1. The server starts, with the example plugin `contracts`, on a new SQLite file")
    ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    log = FOLDER / "server.log"
    server, url = start("serve", "--config", "demo/flowhooks.toml", *ports, log=log, marker="call_backs=")
    try:
        print_output(f"$ flowhooks serve --config demo/flowhooks.toml      ({url})")
        print_title("2. A workflow engine calls back: process instance 1 has completed")
        accepted_status = post(url, "1", EXAMPLE)
        print_title("3. The plugin has done its business work: a row in its own table, demo/contracts.db")
        rows = read_contracts()
        print_output(json.dumps(rows, indent=2, ensure_ascii=False))
        print_title("4. A wrong callback is rejected, and the answer has the reason")
        rejected_status = post(url, "2", INVALID)
        print_title("5. The event shows what happened")
        list_code = run("events", "list", "--config", "demo/flowhooks.toml")
        verify_code = run("verify", "--config", "demo/flowhooks.toml")
        print_title("6. The server drains and stops")
        server.send_signal(signal.SIGTERM)
        server_code = server.wait(STOP_TIMEOUT)
        print_output(log.read_text())
        print_output(f"exit code {server_code}")
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    results = (accepted_status, len(rows), rejected_status, list_code, verify_code, server_code)
    if results != (200, 1, 422, 0, 0, 0):
        sys.exit("A step above did not have the expected result.")
    print_title("Everything worked. To start the server permanently:")
    print(f"\n    {FLOWHOOKS.relative_to(ROOT)} serve --config demo/flowhooks.toml\n")


if __name__ == "__main__":
    main()
