"""Children of forked processes that are forked, too, such as the processes of a supervisor, and successors of a server.

A process that starts flowhooks has threads and connections, so it cannot fork. Instead it has a fork server: a process
that it forks before it runs anything. `Popen` requests forks from it for commands that start flowhooks.

A fork must be a child of the process that requests it, although the fork server forks it. So the fork server forks
twice. The intermediate process exits at once, and Linux makes the orphan a child of its nearest ancestor that is a
subreaper.
"""

from __future__ import annotations

import ctypes
import fcntl
import inspect
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
LIMITS = (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE)
"""The limits that flowhooks changes, and that its children inherit."""
MAX_FILES = 200
"""The maximum number of files that come with a request."""
FLOWHOOKS = ("-m", "flowhooks")
FORK_SERVER = ("-P", "-c")
"""The first arguments of Python for the fork server of isolated handlers."""
EVALUATOR = ("-P", "-m", "flowhooks.cli.plugins.backtest.evaluator")
"""The first arguments of Python for a process of `flowhooks plugins try`."""
RUN_EVALUATOR = f"from {EVALUATOR[-1]} import main; main()"


def open_fork_server(apply_request, can_fork):
    """Fork the fork server of this process.

    Args:
        apply_request: makes a process the one that a request with its standard files describes; returns the request.
        can_fork: whether a fork would behave like a process started with an environment.

    Returns:
        None in this process; in each fork of the fork server the request.
    """
    parent = os.getpid()
    client_end, server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        server_end.close()
        _Popen.fork_server, _Popen.can_fork = _ForkServer(client_end), staticmethod(can_fork)
        subprocess.Popen = _Popen
        return None
    client_end.close()
    _detach()
    while True:
        _, files, _, _ = socket.recv_fds(server_end, 1, MAX_FILES)
        if not files:
            os._exit(0)
        if _fork(server_end):
            server_end.close()
            assert os.getppid() == parent
            return _become_child(files, apply_request)
        for file in files:
            os.close(file)


def _detach():
    """Close the standard files of the fork server, and detach it from the signals of a terminal."""
    os.setpgid(0, 0)
    null_file = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null_file, number)
    os.close(null_file)


def _fork(channel):
    """Fork an orphan and send its process id; return whether this process is the orphan, whose parent is then set."""
    pid_read, pid_write = os.pipe()
    start_read, start_write = os.pipe()
    intermediate = os.fork()
    if not intermediate:
        if pid := os.fork():
            os.write(pid_write, b"%d" % pid)
            os._exit(0)
        os.read(start_read, 1)
    else:
        pid = os.read(pid_read, 16)
        os.waitpid(intermediate, 0)
        channel.send(pid)
        os.write(start_write, b"!")
    for end in (pid_read, pid_write, start_read, start_write):
        os.close(end)
    return not intermediate


def _become_child(files, apply_request):
    request = apply_request(files[:4])
    _renumber(files[4:], request["files"])
    if request["group"] is not None:
        os.setpgid(0, request["group"])
    os.sched_setaffinity(0, request["cores"])
    for limit, values in zip(LIMITS, request["limits"], strict=True):
        resource.setrlimit(limit, values)
    if values := sys.modules.get("prometheus_client.values"):
        values.ValueClass = values.get_value_class()  # it depends on the environment
    return request


def _renumber(files, numbers):
    """Give open files the numbers that they have in the process that sent them."""
    free = max((*files, *numbers, 2)) + 1
    copies = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, free) for file in files]
    for file in files:
        os.close(file)
    for copy, number in zip(copies, numbers, strict=True):
        os.dup2(copy, number)
        os.close(copy)


class _ForkServer:
    """The connection to the fork server of this process."""

    def __init__(self, channel):
        self._channel = channel
        self._lock = threading.Lock()
        self._prctl = ctypes.CDLL(None).prctl

    def fork(self, request, files):
        """Fork the process that a request describes, with standard and further files; return its process id."""
        with self._lock, tempfile.TemporaryFile("w+") as file:
            json.dump(request, file)
            file.seek(0)
            self._prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            try:
                socket.send_fds(self._channel, [b"!"], [file.fileno(), *files])
                return int(self._channel.recv(16))
            finally:
                self._prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


class _Popen(subprocess.Popen):
    """Forks commands that start flowhooks, and starts all others."""

    fork_server = can_fork = None

    def _execute_child(self, *arguments):
        bound = inspect.signature(super()._execute_child).bind(*arguments).arguments
        if not self._may_fork(bound):
            super()._execute_child(*arguments)
            return
        command, group = bound["args"], bound["process_group"]
        code = RUN_EVALUATOR if tuple(command[1:4]) == EVALUATOR else command[3]
        request = {
            "command": command,
            "argv": command[2:] if command[1] == "-m" else ["-c", *command[4:]],
            "code": None if command[1] == "-m" else code,
            "cwd": os.fspath(bound["cwd"] or Path.cwd()),
            "env": dict(os.environ if bound["env"] is None else bound["env"]),
            "own_session": bound["start_new_session"],
            "forks_children": False,
            "files": list(bound["pass_fds"]),
            "group": None if bound["start_new_session"] else os.getpgid(0) if group < 0 else group,
            "cores": list(os.sched_getaffinity(0)),
            "limits": [resource.getrlimit(limit) for limit in LIMITS],
        }
        standard = (bound["p2cread"], bound["c2pwrite"], bound["errwrite"])
        files = [number if file < 0 else file for number, file in enumerate(standard)]
        try:
            self.pid = self.fork_server.fork(request, [*files, *bound["pass_fds"]])
            self._child_created = True
        finally:
            names = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
            self._close_pipe_fds(*(bound[name] for name in names))

    def _may_fork(self, bound):
        command = bound["args"]
        env = os.environ if bound["env"] is None else bound["env"]
        return (
            isinstance(command, list)
            and command[0] == sys.executable
            and (
                tuple(command[1:3]) == FLOWHOOKS
                or tuple(command[1:4]) == EVALUATOR
                or (tuple(command[1:3]) == FORK_SERVER and "flowhooks.execution.isolation" in command[3])
            )
            and self.can_fork({name: value for name, value in env.items() if not name.startswith("PROMETHEUS_")})
        )
