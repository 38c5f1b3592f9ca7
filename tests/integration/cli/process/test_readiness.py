"""When a server says that it is ready."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys

from flowhooks.ledger.lock import Lock
from support.ports import free_ports
from support.waiting import until

SLOW = """
import time
from flowhooks.cli import main, serve

publish = serve.publish_admin_address

def slowly(*arguments, **named):
    time.sleep(1)
    publish(*arguments, **named)

serve.publish_admin_address = slowly
main.main()
"""


def test_a_ready_server_can_be_operated(tmp_path):
    """When `/readyz` answers 200, commands find the address and the token in the lock file."""
    database = tmp_path / "f.db"
    listen, admin = free_ports(2)
    address = f"127.0.0.1:{admin}"
    command = [sys.executable, "-c", SLOW, "serve", "--database", database]
    command += ["--listen", f"127.0.0.1:{listen}", "--admin", address]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("FLOWHOOKS_")}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _is_ready(address))
            owner = Lock(database).owner()
        finally:
            process.terminate()
    assert owner.admin == f"http://{address}"
    assert owner.token


def _is_ready(address):
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
