"""Processes of flowhooks, forked from a process that has loaded it, which behave like started processes.

Tests start hundreds of them, and of the 0.6 s of processor time that it takes to start one, nearly all goes into
loading the same modules again. A fork has its own folder, environment, arguments, files, failpoint and exit code.
Processes with options for Python itself are started (see `can_fork`).

Shell commands start forks, too: `program` makes an executable file that requests a fork and exits with its exit code.

`use_for` does the same for flowhooks in another environment, from a further process that has loaded it.

Forks do not show whether a module imports everything that it needs. Tests of the start itself must show that. Forks of
the same process also have the same hash seed, and share the caches of a first run, such as compiled statements. A fork
does not release its objects before it ends.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path

FLOWHOOKS = (sys.executable, "-m", "flowhooks")
ISOLATED = ("-P", "-m", "flowhooks")
"""The arguments of Python for flowhooks in another environment."""
SOCKET_VARIABLES = ("FLOWHOOKS_SUPERVISOR_FD", "FLOWHOOKS_SUPERVISOR_STATE")
"""Variables with the numbers of the sockets that a process of flowhooks inherits."""
STARTUP_PREFIXES = ("PYTHON", "LANG", "LC_", "MALLOC", "GLIBC", "LD_", "PROMETHEUS")
"""The prefixes of variables that are read while Python starts, or while flowhooks is loaded."""
LAZY_MODULES = (
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
)
"""Modules that flowhooks loads when a process first needs them."""
ORIGINAL_ENV = dict(os.environ)
"""The environment as it was before any test changed it."""


def start(
    command,
    *,
    cwd=None,
    env=None,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    own_session=False,
    forks_children=False,
    python_path="",
):
    """Start a flowhooks command without input; the result is like `Popen`, as far as tests need it.

    Args:
        command: its words; a command other than `FLOWHOOKS` and its arguments is always started.
        cwd: its folder; default this process's.
        env: its environment; default this process's.
        stdout: its output: `DEVNULL`, or a file.
        stderr: the same, or `PIPE`, to be read as bytes.
        own_session: whether it has a session of its own, which Ctrl-C does not reach.
        forks_children: whether the processes of flowhooks that a fork starts are forked, too (see `child_forks`).
        python_path: its PYTHONPATH, which `env` lacks: a folder of packages that are not loaded before a fork.
    """
    env = dict(os.environ) if env is None else env
    server = _server_for(command, env)
    env = env | ({"PYTHONPATH": python_path} if python_path else {})
    if server is not None:
        options = {"own_session": own_session, "forks_children": forks_children, "python_path": python_path}
        return Forked(server, command, cwd=cwd, env=env, stdout=stdout, stderr=stderr, **options)
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=own_session,
    )


def run(command, *, cwd=None, env=None, timeout=240, **options):
    """Run a flowhooks command to its end without input; return its exit code and its output as text."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start(command, cwd=cwd, env=env, stdout=out, stderr=err, **options)
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read().decode(), err.read().decode())


PROGRAM = """\
#!{python} -IS
import json, os, signal, socket, sys
words, env = {command!r} + sys.argv[1:], dict(os.environ)
{prepare}
request = {{"command": words, "cwd": os.getcwd(), "env": env, "own_session": False}}
with socket.socket(socket.AF_UNIX) as channel:
    channel.connect({address!r})
    request_file = os.memfd_create("request")
    os.write(request_file, json.dumps(request).encode())
    os.lseek(request_file, 0, os.SEEK_SET)
    socket.send_fds(channel, [b"!"], [request_file, 0, 1, 2])
    replies = channel.makefile()
    pid = int(next(replies))
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    code = int(next(replies))
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def program(file, prepare=""):
    """Make `file` an executable that runs `flowhooks` in a fork, to which it forwards signals.

    Run it only in an environment for which `can_fork` is true.

    Args:
        file: a path where no file is yet.
        prepare: statements of Python that may change `words` (from the fourth on: the arguments) and `env`.
    """
    _write_program(file, FLOWHOOKS, _default_server().address, prepare)


def _write_program(file, command, address, prepare):
    file.write_text(PROGRAM.format(python=sys.executable, command=list(command), address=address, prepare=prepare))
    file.chmod(0o755)


def can_fork(env):
    """Whether a fork would behave like a process started with this environment."""
    return _startup_variables(env) == _startup_variables(ORIGINAL_ENV)


def _can_fork_with(request):
    """Return `can_fork` for the children of a fork, which have its PYTHONPATH."""
    path = {"PYTHONPATH": request["python_path"]} if request.get("python_path") else {}
    return lambda env: _startup_variables(env) == _startup_variables(ORIGINAL_ENV) | path


def use_for(python):
    """Fork flowhooks in another environment, too: its `isolated_command(python)`, and commands that this one starts.

    A fork does not see files that Python reads only when it starts, such as a new `.pth` file.
    """
    server = _ForkServer(
        python, (ISOLATED[0],), {name: value for name, value in ORIGINAL_ENV.items() if not name.startswith("PYTHON")}
    )
    _OTHER_SERVERS[str(python)] = server
    atexit.register(server.end)


def isolated_command(python):
    """The words that run flowhooks in another environment."""
    return [str(python), *ISOLATED]


def _startup_variables(env):
    """The part of an environment that is read before a fork; faulthandler is configured there."""
    return {
        name: value for name, value in env.items() if name.startswith(STARTUP_PREFIXES) and name != "PYTHONFAULTHANDLER"
    }


class Forked:
    """A forked process with the interface of `Popen`."""

    def __init__(self, server, command, *, cwd, env, stdout, stderr, **options):
        self.args = command
        self.returncode = None
        self.stderr, error_file = None, stderr
        if stderr == subprocess.PIPE:
            read_end, error_file = os.pipe()
            self.stderr = os.fdopen(read_end, "rb")
        self._receive_lock = threading.Lock()
        self._channel, server_end = socket.socketpair()
        request = {"command": list(command), "cwd": str(cwd or Path.cwd()), "env": env, **options}
        with tempfile.TemporaryFile() as request_file, Path(os.devnull).open("r+b") as null_file, server_end:
            request_file.write(json.dumps(request).encode())
            request_file.seek(0)
            files = [
                null_file if file == subprocess.DEVNULL else file for file in (subprocess.DEVNULL, stdout, error_file)
            ]
            server.request_fork(request_file, server_end, *files)
        if stderr == subprocess.PIPE:
            os.close(error_file)
        self.pid = self._receive_number()

    def _receive_number(self):
        """Receive the next number that the fork server sends about the process: its id, then its exit code."""
        received = b""
        while not received.endswith(b"\n"):
            part = self._channel.recv(1)
            assert part, "the process that flowhooks is forked from has ended"
            received += part
        return int(received)

    def poll(self):
        """Its exit code if it has ended; otherwise None."""
        return self._poll(0)

    def _poll(self, timeout):
        with self._receive_lock:
            if self.returncode is None and select.select([self._channel], [], [], timeout)[0]:
                self.returncode = self._receive_number()
                self._channel.close()
            return self.returncode

    def wait(self, timeout=None):
        """Wait for its end, and return its exit code."""
        if self._poll(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number):
        """Send it a signal, if it exists."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # the process has ended since
                os.kill(self.pid, number)

    def terminate(self):
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self):
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _ForkServer:
    """A process that has loaded flowhooks; it ends with this one.

    Attributes:
        address: the socket for requests of other processes.
        env: the environment that it was started with.
    """

    def __init__(self, python=sys.executable, options=(), env=ORIGINAL_ENV):
        self.env = env
        self._lock = threading.Lock()
        self._control, child_end = socket.socketpair()
        self._folder = tempfile.TemporaryDirectory(prefix="flowhooks-fork-")
        self.address = f"{self._folder.name}/socket"
        executable = sys.executable
        if options:
            executable = Path(self._folder.name) / "python"
            _write_program(executable, [str(python)], self.address, EXEC_OTHERS.format(python=str(python)))
        with child_end, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen()
            self._process = subprocess.Popen(
                [python, *options, __file__, str(executable), str(child_end.fileno()), str(listener.fileno())],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[child_end.fileno(), listener.fileno()],
                start_new_session=True,
            )

    def end(self):
        """Close the control socket: the process ends when no process can send requests."""
        self._control.close()
        self._process.wait()
        self._folder.cleanup()

    def request_fork(self, *files):
        """Fork a process with the request, the socket for the replies, input, output and errors."""
        descriptors = [file if isinstance(file, int) else file.fileno() for file in files]
        with self._lock:
            socket.send_fds(self._control, [b"!"], descriptors)


EXEC_OTHERS = f"""\
if tuple(words[1:4]) != {ISOLATED} or not env.keys().isdisjoint({SOCKET_VARIABLES}):
    os.execv({{python!r}}, words)
"""
"""The first statements of the `sys.executable` of forks in another environment: it forks only flowhooks.

It starts all other programs, and a flowhooks that inherits sockets, because a request for a fork does not pass them on.
"""

_DEFAULT_SERVERS = []
_OTHER_SERVERS = {}
_START_LOCK = threading.Lock()


def _default_server():
    with _START_LOCK:
        if not _DEFAULT_SERVERS:
            _DEFAULT_SERVERS.append(_ForkServer())
            atexit.register(_DEFAULT_SERVERS[0].end)
        return _DEFAULT_SERVERS[0]


def _server_for(command, env):
    """Return the process from which a command is forked; None if the command has to be started."""
    if tuple(command[:3]) == FLOWHOOKS and can_fork(env):
        return _default_server()
    server = _OTHER_SERVERS.get(str(command[0])) if tuple(command[1:4]) == ISOLATED else None
    return server if server is not None and _startup_variables(env) == _startup_variables(server.env) else None


STANDARD_FILES = 3
"""Input, output and errors: the files that come with a request."""


def main(executable, control, listener):
    """Load flowhooks, and fork a process for each request until there are no requesters."""
    sys.executable = executable
    bind_failpoint, child_forks = _load()
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    os.set_blocking(wakeup_read, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    channels = {}
    while True:
        ready, _, _ = select.select([control, listener, wakeup_read], [], [])
        if wakeup_read in ready:
            os.read(wakeup_read, 512)
            _report_ended(channels)
        channel, files = _receive_request(control, listener, ready)
        if not files:
            if control in ready:
                return None
            continue
        if not (pid := os.fork()):
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (control, listener, channel, *channels.values()):
                inherited.close()
            for descriptor in (wakeup_read, wakeup_write):
                os.close(descriptor)
            request = _apply_request(files)
            if request.get("forks_children"):
                request = child_forks.open_fork_server(_apply_request, _can_fork_with(request)) or request
            bind_failpoint()
            return request
        channels[pid] = channel
        _send_number(channel, pid)
        for file in files:
            os.close(file)


def _load():
    """Load all of flowhooks; return a function that binds the environment's failpoint, and `child_forks`."""
    flowhooks = import_module("flowhooks")
    failpoints = import_module("flowhooks.failpoints")
    bound = [failpoints.hit]

    def hit(name):
        bound[0](name)

    def bind():
        bound[0] = failpoints.bind(os.environ)

    failpoints.hit = hit  # before any module imports it
    for module in pkgutil.walk_packages(flowhooks.__path__, "flowhooks."):
        if module.name not in {
            "flowhooks.__main__",
            "flowhooks.ledger.migrations.env",
        }:  # some code runs when modules are imported
            import_module(module.name)
    for name in LAZY_MODULES:
        import_module(name)
    child_forks = _warm_up()
    gc.collect()
    gc.freeze()
    return bind, child_forks


def _warm_up():
    """Run flowhooks once, so that all forks share its caches, such as schemas; return `child_forks`."""
    sys.path.append(str(Path(__file__).parents[1]))
    import_module("support.postgresql_facts").share()
    child_forks = import_module("support.child_forks")
    sys.path.pop()
    for name in [name for name in sys.modules if name.partition(".")[0] == "support"]:
        del sys.modules[name]  # a plugin may have this name
    app_module, callback, settings_module, structlog = map(
        import_module, ("flowhooks.app", "flowhooks.intake.callback", "flowhooks.settings", "structlog")
    )
    with tempfile.TemporaryDirectory(prefix="flowhooks-fork-") as folder, structlog.testing.capture_logs():
        app = app_module.App(settings_module.Settings(database=f"{folder}/flowhooks.db", plugins_allow=("none",)))
        app.start()
        body = {"processDefinitionKey": "none"}
        app.intake.accept(
            callback.Callback(
                source="default", kind="complete", flow_instance_id="1", body=body, text=json.dumps(body)
            ),
            wait=0,
        )
        app.ledger.verify()
        app.close()
    return child_forks


def _receive_request(control, listener, ready):
    """Receive the next request: the channel for the replies, and files; no files if there is none."""
    if control in ready:
        _, files, _, _ = socket.recv_fds(control, 1, 2 + STANDARD_FILES)
        return (socket.socket(fileno=files.pop(1)) if files else None), files
    if listener in ready:
        channel, _ = listener.accept()
        _, files, _, _ = socket.recv_fds(channel, 1, 1 + STANDARD_FILES)
        return channel, files
    return None, []


def _report_ended(channels):
    """Report all processes that have ended."""
    while channels:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with channels.pop(pid) as channel:
            _send_number(channel, os.waitstatus_to_exitcode(status))


def _send_number(channel, number):
    with suppress(OSError):  # no parent waits for it any more
        channel.sendall(b"%d\n" % number)


def _apply_request(files):
    """Make this fork the process that the request describes; return the request."""
    request_file, *standard = files
    with os.fdopen(request_file, "rb") as file:
        request = json.load(file)
    if request["own_session"]:
        os.setsid()
    for number, (name, descriptor) in enumerate(zip(("stdin", "stdout", "stderr"), standard, strict=True)):
        os.dup2(descriptor, number)
        os.close(descriptor)
        setattr(sys, name, _open_stream(number, getattr(sys, name)))
        setattr(sys, f"__{name}__", getattr(sys, name))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv[:] = request.get("argv") or request["command"][request["command"].index("flowhooks") :]
    sys.orig_argv[:] = request["command"]
    if not sys.flags.safe_path:
        sys.path[:1] = [] if request.get("code") else [request["cwd"]]
        if request.get("python_path"):
            sys.path.insert(1, request["python_path"])
    if os.environ.get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
    return request


def _open_stream(number, before):
    """Open a standard stream as Python does: the previous stream has cached whether its file could be a pipe."""
    line_by_line = 1 if number == STANDARD_FILES - 1 else -1
    stream = open(  # noqa: SIM115 (until the end)
        number, before.mode, line_by_line, encoding=before.encoding, errors=before.errors, closefd=False
    )
    stream.reconfigure(write_through=before.write_through)
    return stream


def _run(code):
    """Run flowhooks, or the code that starts a part of it, and end at once.

    Python would first release every object, which copies all the memory that forks share. That costs more processor
    time than a short command itself.
    """
    status = 0
    try:
        if code:
            exec(code, {"__name__": "__main__"})
        else:
            runpy.run_module("flowhooks", run_name="__main__", alter_sys=True)
    except SystemExit as exit_error:
        if isinstance(exit_error.code, str):
            raise  # Python prints it
        status = exit_error.code or 0
    # Python itself begins its shutdown with these two calls.
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(status)  # Python reports the error
    os._exit(status & 0xFF)


if __name__ == "__main__" and (
    request := main(sys.argv[1], *(socket.socket(fileno=int(number)) for number in sys.argv[2:]))
):
    _run(request.get("code"))
