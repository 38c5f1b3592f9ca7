"""Children of forked processes that are forked, too, such as the processes of a supervisor, and successors of a server.

A process that starts flowhooks has threads and connections, so it cannot fork. Instead it has a nursery: a process that
it forks before it runs anything. `Popen` requests forks of the nursery for commands that start flowhooks.

A fork must be a child of the process that requests it, although the nursery forks it. So the nursery forks twice. The
process in between exits at once, and Linux makes the orphan a child of its nearest ancestor that is a subreaper.
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


def open_nursery(become, is_alike):
    """Fork the nursery of this process.

    Args:
        become: makes a process what a request describes, which comes with its standard files; returns the request.
        is_alike: whether a fork would behave like a process started with an environment.

    Returns:
        None in this process; in each fork of the nursery the request.
    """
    parent = os.getpid()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        _Popen.nursery, _Popen.is_alike = _Nursery(ours), staticmethod(is_alike)
        subprocess.Popen = _Popen
        return None
    ours.close()
    _detach()
    while True:
        _, files, _, _ = socket.recv_fds(theirs, 1, MAX_FILES)
        if not files:
            os._exit(0)
        if _fork(theirs):
            theirs.close()
            assert os.getppid() == parent
            return _become_child(files, become)
        for file in files:
            os.close(file)


def _detach():
    """Let the nursery keep no standard file open, and get no signal of a terminal."""
    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nothing, number)
    os.close(nothing)


def _fork(channel):
    """Fork an orphan, and send its number; returns whether this process is the orphan, which has its parent by then."""
    reads, writes = os.pipe()
    waits, starts = os.pipe()
    between = os.fork()
    if not between:
        if pid := os.fork():
            os.write(writes, b"%d" % pid)
            os._exit(0)
        os.read(waits, 1)
    else:
        pid = os.read(reads, 16)
        os.waitpid(between, 0)
        channel.send(pid)
        os.write(starts, b"!")
    for end in (reads, writes, waits, starts):
        os.close(end)
    return not between


def _become_child(files, become):
    request = become(files[:4])
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
    """Give open files the numbers that they have in the process which passes them."""
    free = max((*files, *numbers, 2)) + 1
    copies = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, free) for file in files]
    for file in files:
        os.close(file)
    for copy, number in zip(copies, numbers, strict=True):
        os.dup2(copy, number)
        os.close(copy)


class _Nursery:
    """The connection to the nursery of this process."""

    def __init__(self, channel):
        self._channel = channel
        self._asking = threading.Lock()
        self._prctl = ctypes.CDLL(None).prctl

    def fork(self, request, files):
        """Fork what the request describes, with standard files and further ones; returns the number of this child."""
        with self._asking, tempfile.TemporaryFile("w+") as file:
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

    nursery = is_alike = None

    def _execute_child(self, *given):
        bound = inspect.signature(super()._execute_child).bind(*given).arguments
        if not self._may_fork(bound):
            super()._execute_child(*given)
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
        files = [number if given < 0 else given for number, given in enumerate(standard)]
        try:
            self.pid = self.nursery.fork(request, [*files, *bound["pass_fds"]])
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
            and self.is_alike({name: it for name, it in env.items() if not name.startswith("PROMETHEUS_")})
        )
