"""A process that inherits its sockets."""

from __future__ import annotations

import socket
from contextlib import closing
from types import SimpleNamespace

from flowhooks.cli.process import launcher
from flowhooks.cli.process.inherited import SUPERVISOR_VARIABLE, child_environ
from flowhooks.settings import Settings
from flowhooks.web.server.sockets import open_listener


def test_each_reload_names_a_changed_address(monkeypatch, logged):
    """The process keeps its sockets, so the change needs a restart."""
    link, control = socket.socketpair()
    with closing(link), open_listener("127.0.0.1:0") as listener:
        roles = dict.fromkeys(("only", "successor", "parent_is_predecessor", "metrics_number"))
        configured = {"listen": "127.0.0.1:1"}
        environ = child_environ({}, 0, {"listen": listener}, control, None, **roles, configured=configured)
        monkeypatch.setenv(SUPERVISOR_VARIABLE, environ[SUPERVISOR_VARIABLE])
        for name in ("disable_core_dumps", "_configure_logging", "force_exit_later"):
            monkeypatch.setattr(launcher, name, lambda *_, **__: None)
        listener.detach()
        control.detach()
        read = [Settings(listen="127.0.0.1:1")]

        def work(settings, context):
            assert logged == []
            read.append(Settings(listen="127.0.0.1:2", answer_wait=1))
            assert context.reread_settings(settings).changed == ("answer_wait",)
            assert [(entry["event"], entry["settings"]) for entry in logged] == [("restart_needed", ("listen",))]
            context.inherited.control.close()
            context.inherited.sockets["listen"].close()

        launcher.run(
            SimpleNamespace(load=lambda: read[-1]), work, check=lambda _settings: None, listeners=("listen", "admin")
        )
