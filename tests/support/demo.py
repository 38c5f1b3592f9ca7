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
WRONG = {"businessKey": True, "processDefinitionVersion": "one"}
CONFIG = """\
database = "demo/flowhooks.db"
plugins_allow = ["contracts"]

[log]
format = "text"

[plugins.contracts]
database = "demo/contracts.db"
outbox = "demo/contracts-outbox.txt"
"""
START_SECONDS = 120
STOP_SECONDS = 30


def say(text: str) -> None:
    """Print the title of a step."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


def shown(text: str) -> None:
    """Print the output of another program, indented."""
    print("".join(f"    {line}\n" for line in text.rstrip().splitlines()), end="", flush=True)


def start(*words: str, log: Path, sign: str, environ: Mapping[str, str] | None = None) -> tuple[Process, str]:
    """Start a long-running command; return its process, and the word after `sign` in its log once it is ready."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(FLOWHOOKS), *words],
            cwd=ROOT,
            env=kept | dict(environ or {}),
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,  # Ctrl-C is for the demonstration, which then stops the server itself
        )
    try:
        for _ in range(START_SECONDS * 20):
            for line in log.read_text().splitlines():
                if sign in line:
                    return process, line.split(sign)[1].split()[0]
            if process.poll() is not None:
                break
            time.sleep(0.05)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.kill()
    process.wait()
    shown(log.read_text())
    sys.exit(f"`flowhooks {words[0]}` did not start; its output is above.")


def post(url: str, flow: str, body: object) -> int:
    """Post a callback, print it with its response, and return the status."""
    text = json.dumps(body)
    shown(f"POST /flow/{flow}/call-back/complete\n{text}")
    request = urllib.request.Request(
        f"{url}/flow/{flow}/call-back/complete", text.encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            status, said = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            status, said = error.code, error.read().decode()
    shown(f"→ {status}\n{json.dumps(json.loads(said), indent=2, ensure_ascii=False)}")
    return status


def run(*arguments: str, environ: Mapping[str, str] | None = None) -> int:
    """Run a command of flowhooks, print its output, and return its exit code."""
    shown(f"$ flowhooks {' '.join(arguments)}")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
    done = subprocess.run(
        [str(FLOWHOOKS), *arguments],
        cwd=ROOT,
        env=kept | dict(environ or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    shown(done.stdout + done.stderr)
    return done.returncode


def work() -> list[dict[str, object]]:
    """Return the contracts in the plugin's own table."""
    with closing(sqlite3.connect(FOLDER / "contracts.db")) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM contracts")]


def main() -> None:
    """Run all steps, and exit with 0 only if each had the expected result."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    (FOLDER / "flowhooks.toml").write_text(CONFIG)
    say("1. The server starts, with the example plugin `contracts`, on a new SQLite file")
    ports = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    log = FOLDER / "server.log"
    server, url = start("serve", "--config", "demo/flowhooks.toml", *ports, log=log, sign="call_backs=")
    try:
        shown(f"$ flowhooks serve --config demo/flowhooks.toml      ({url})")
        say("2. A workflow engine calls back: process instance 1 has completed")
        right = post(url, "1", EXAMPLE)
        say("3. The plugin has done its business work: a row in its own table, demo/contracts.db")
        rows = work()
        shown(json.dumps(rows, indent=2, ensure_ascii=False))
        say("4. A wrong callback is rejected, and the answer has the reason")
        wrong = post(url, "2", WRONG)
        say("5. The event shows what happened")
        listed = run("events", "list", "--config", "demo/flowhooks.toml")
        verified = run("verify", "--config", "demo/flowhooks.toml")
        say("6. The server drains and stops")
        server.send_signal(signal.SIGTERM)
        code = server.wait(STOP_SECONDS)
        shown(log.read_text())
        shown(f"exit code {code}")
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    good = (right, len(rows), wrong, listed, verified, code) == (200, 1, 422, 0, 0, 0)
    if not good:
        sys.exit("A step above did not have the expected result.")
    say("Everything worked. To start the server permanently:")
    print(f"\n    {FLOWHOOKS.relative_to(ROOT)} serve --config demo/flowhooks.toml\n")


if __name__ == "__main__":
    main()
