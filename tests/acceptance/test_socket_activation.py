"""A service manager opens the sockets of a server, as systemd does for a socket unit."""

from __future__ import annotations

import http.client
import json
import signal
import sys
from contextlib import closing

from support.waiting import WAIT_TIMEOUT, until

PLUGIN = """
from flowhooks import handler, hookimpl

@handler(process_key="a")
def work(event):
    pass

@hookimpl
def handlers():
    return [work]
"""
MANAGER = """
import fcntl, os, pathlib, socket, sys

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
copies = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 50) for sock in sockets]
for number, copy in enumerate(copies):
    os.dup2(copy, 3 + number)
    os.close(copy)
pathlib.Path("port").write_text(str(sockets[1].getsockname()[1]) + "\\n")
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "admin:listen"}
os.execv(sys.executable, [sys.executable, "-m", "flowhooks", *sys.argv[1:]])
"""
"""Opens two sockets, writes the port of the second one, and becomes the server."""
GOOD = {"processDefinitionKey": "a"}


def test_the_server_uses_the_sockets_of_the_service_manager(site):
    """A callback that was sent before the start is answered; a reload and a replacement keep the sockets."""
    site.plugin("p", PLUGIN)
    port_file, config = site.folder / "port", site.folder / "flowhooks.toml"
    config.write_text('listen = "192.0.2.1:1"\nadmin = "192.0.2.1:2"\n')
    command = [sys.executable, "-c", MANAGER, "serve", "--database", site.database, "--plugins-dir", site.plugins]
    server = site.launch(list(map(str, command)), site._environ({"plugins_allow": "p"}))
    port = int(until(lambda: port_file.exists() and port_file.read_text().strip()))
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_TIMEOUT)) as early:
        early.request("POST", "/flow/early/call-back/complete", json.dumps(GOOD))
        assert early.getresponse().status == 200
    assert server.address == ("127.0.0.1", port)
    assert server.ask("GET", "/healthz", admin=True).status == 200
    config.write_text(config.read_text() + "answer_wait = 20\n")
    assert server.reload()["changed"] == ["answer_wait"]
    server.signal(signal.SIGUSR2)
    server.until_logged("ledger_taken_over")
    assert server.post("later", GOOD).status == 200
    assert not server.logged("restart_needed")
    server.stop()
    site.until(lambda ledger: ledger.verify().deliveries == {"succeeded": 2})
