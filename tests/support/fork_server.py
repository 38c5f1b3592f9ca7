"""Processes of flowhooks, forked from a process that has loaded it, which behave like started processes.

Tests start hundreds of them, and of the 0.6 s of processor time that it takes to start one, nearly all goes into
loading the same modules again. A fork has its own folder, environment, arguments, files and failpoint, and its own end.
Processes with options for Python itself are started (see `is_alike`).

Shell commands start forks, too: `program` makes an executable file that asks for a fork and ends as the fork ends.

`use_for` does the same for flowhooks in another environment, of which a process of its own is forked.

Forks do not show whether a module imports everything that it needs. Tests of the start itself must show that. Forks of
the same process also have the same hash seed, and share what a first run keeps, such as compiled statements. A fork
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
INHERITING = ("FLOWHOOKS_SUPERVISOR_FD", "FLOWHOOKS_SUPERVISOR_STATE")
"""Variables with the numbers of the sockets that a process of flowhooks inherits."""
TO_PYTHON = ("PYTHON", "LANG", "LC_", "MALLOC", "GLIBC", "LD_", "PROMETHEUS")
"""The prefixes of variables that are read while Python starts, or while flowhooks is loaded."""
LATE = (
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
)
"""Modules that flowhooks loads when a process first needs them."""
OURS = dict(os.environ)
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
    stem = _stem_of(command, env)
    env = env | ({"PYTHONPATH": python_path} if python_path else {})
    if stem is not None:
        how = {"own_session": own_session, "forks_children": forks_children, "python_path": python_path}
        return Forked(stem, command, cwd=cwd, env=env, stdout=stdout, stderr=stderr, **how)
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=own_session,
    )


def run(command, *, cwd=None, env=None, timeout=240, **how):
    """Run a flowhooks command to its end without input; return its exit code and its output as text."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start(command, cwd=cwd, env=env, stdout=out, stderr=err, **how)
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
asked = {{"command": words, "cwd": os.getcwd(), "env": env, "own_session": False}}
with socket.socket(socket.AF_UNIX) as channel:
    channel.connect({address!r})
    request = os.memfd_create("request")
    os.write(request, json.dumps(asked).encode())
    os.lseek(request, 0, os.SEEK_SET)
    socket.send_fds(channel, [b"!"], [request, 0, 1, 2])
    answers = channel.makefile()
    pid = int(next(answers))
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    code = int(next(answers))
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def program(file, prepare=""):
    """Make `file` an executable that does as `flowhooks` does, in a fork, to which it passes signals on.

    Run it only in an environment that `is_alike`.

    Args:
        file: a path where no file is yet.
        prepare: statements of Python that may change `words` (from the fourth on: the arguments) and `env`.
    """
    _write_program(file, FLOWHOOKS, _stem().address, prepare)


def _write_program(file, command, address, prepare):
    file.write_text(PROGRAM.format(python=sys.executable, command=list(command), address=address, prepare=prepare))
    file.chmod(0o755)


def is_alike(env):
    """Whether a fork would behave like a process started with this environment."""
    return _to_python(env) == _to_python(OURS)


def _alike_with(wanted):
    """The same for the children of a fork, which have its PYTHONPATH."""
    path = {"PYTHONPATH": wanted["python_path"]} if wanted.get("python_path") else {}
    return lambda env: _to_python(env) == _to_python(OURS) | path


def use_for(python):
    """Fork flowhooks in another environment, too: the commands `isolated(python)`, and those that they start.

    A fork does not see what only a start of Python reads there, such as a new `.pth` file.
    """
    stem = _Stem(python, (ISOLATED[0],), {name: it for name, it in OURS.items() if not name.startswith("PYTHON")})
    _FURTHER[str(python)] = stem
    atexit.register(stem.end)


def isolated(python):
    """The words that run flowhooks in another environment."""
    return [str(python), *ISOLATED]


def _to_python(env):
    """The part of an environment that is read before a fork; faulthandler is configured there."""
    return {name: it for name, it in env.items() if name.startswith(TO_PYTHON) and name != "PYTHONFAULTHANDLER"}


class Forked:
    """A forked process with the interface of `Popen`."""

    def __init__(self, stem, command, *, cwd, env, stdout, stderr, **how):
        self.args = command
        self.returncode = None
        self.stderr, told = None, stderr
        if stderr == subprocess.PIPE:
            reading, told = os.pipe()
            self.stderr = os.fdopen(reading, "rb")
        self._listening = threading.Lock()
        self._channel, theirs = socket.socketpair()
        wanted = {"command": list(command), "cwd": str(cwd or Path.cwd()), "env": env, **how}
        with tempfile.TemporaryFile() as request, Path(os.devnull).open("r+b") as nothing, theirs:
            request.write(json.dumps(wanted).encode())
            request.seek(0)
            files = [nothing if one == subprocess.DEVNULL else one for one in (subprocess.DEVNULL, stdout, told)]
            stem.ask(request, theirs, *files)
        if stderr == subprocess.PIPE:
            os.close(told)
        self.pid = self._hear()

    def _hear(self):
        """The next number that its parent sends about it: its id, then its exit status."""
        said = b""
        while not said.endswith(b"\n"):
            part = self._channel.recv(1)
            assert part, "the process that flowhooks is forked from has ended"
            said += part
        return int(said)

    def poll(self):
        """Its exit code if it has ended; otherwise None."""
        return self._ended(0)

    def _ended(self, within):
        with self._listening:
            if self.returncode is None and select.select([self._channel], [], [], within)[0]:
                self.returncode = self._hear()
                self._channel.close()
            return self.returncode

    def wait(self, timeout=None):
        """Wait for its end, and return its exit code."""
        if self._ended(timeout) is None:
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


class _Stem:
    """A process that has loaded flowhooks; it ends with this one.

    Attributes:
        address: the socket for requests of other processes.
        env: the environment that it was started with.
    """

    def __init__(self, python=sys.executable, options=(), env=OURS):
        self.env = env
        self._asking = threading.Lock()
        self._control, theirs = socket.socketpair()
        self._folder = tempfile.TemporaryDirectory(prefix="flowhooks-fork-")
        self.address = f"{self._folder.name}/socket"
        executable = sys.executable
        if options:
            executable = Path(self._folder.name) / "python"
            _write_program(executable, [str(python)], self.address, START_OTHERS.format(python=str(python)))
        with theirs, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self.address)
            listener.listen()
            self._process = subprocess.Popen(
                [python, *options, __file__, str(executable), str(theirs.fileno()), str(listener.fileno())],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), listener.fileno()],
                start_new_session=True,
            )

    def end(self):
        """Let it end, which it does when no process can send requests."""
        self._control.close()
        self._process.wait()
        self._folder.cleanup()

    def ask(self, *files):
        """Fork a process with the request, the socket for the answer, input, output and errors."""
        numbers = [one if isinstance(one, int) else one.fileno() for one in files]
        with self._asking:
            socket.send_fds(self._control, [b"!"], numbers)


START_OTHERS = f"""\
if tuple(words[1:4]) != {ISOLATED} or not env.keys().isdisjoint({INHERITING}):
    os.execv({{python!r}}, words)
"""
"""The first statements of the `sys.executable` of forks in another environment: it forks only flowhooks.

It starts all else, and also a flowhooks that inherits sockets, because a request for a fork does not pass them on.
"""

_STEMS = []
_FURTHER = {}
_FIRST = threading.Lock()


def _stem():
    with _FIRST:
        if not _STEMS:
            _STEMS.append(_Stem())
            atexit.register(_STEMS[0].end)
        return _STEMS[0]


def _stem_of(command, env):
    """The process that a command is forked from; None if the command has to be started."""
    if tuple(command[:3]) == FLOWHOOKS and is_alike(env):
        return _stem()
    stem = _FURTHER.get(str(command[0])) if tuple(command[1:4]) == ISOLATED else None
    return stem if stem is not None and _to_python(env) == _to_python(stem.env) else None


STANDARD_FILES = 3
"""Input, output and errors: the files that come with a request."""


def main(executable, control, listener):
    """Load flowhooks, and fork a process for each request until there are no requesters."""
    sys.executable = executable
    bind_failpoint, child_forks = _load()
    waking, woken = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waking, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    told = {}
    while True:
        ready, _, _ = select.select([control, listener, waking], [], [])
        if waking in ready:
            os.read(waking, 512)
            _tell(told)
        channel, files = _request(control, listener, ready)
        if not files:
            if control in ready:
                return None
            continue
        if not (pid := os.fork()):
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for one in (control, listener, channel, *told.values()):
                one.close()
            for one in (waking, woken):
                os.close(one)
            wanted = _become(files)
            if wanted.get("forks_children"):
                wanted = child_forks.open_nursery(_become, _alike_with(wanted)) or wanted
            bind_failpoint()
            return wanted
        told[pid] = channel
        _say(channel, pid)
        for one in files:
            os.close(one)


def _load():
    """Load all of flowhooks; returns a function that binds the environment's failpoint, and `child_forks`."""
    flowhooks = import_module("flowhooks")
    failpoints = import_module("flowhooks.failpoints")
    bound = [failpoints.hit]

    def hit(name):
        bound[0](name)

    def bind():
        bound[0] = failpoints.bind(os.environ)

    failpoints.hit = hit  # before any module imports it
    for one in pkgutil.walk_packages(flowhooks.__path__, "flowhooks."):
        if one.name not in {
            "flowhooks.__main__",
            "flowhooks.ledger.migrations.env",
        }:  # some code runs when modules are imported
            import_module(one.name)
    for name in LATE:
        import_module(name)
    child_forks = _warm_up()
    gc.collect()
    gc.freeze()
    return bind, child_forks


def _warm_up():
    """Run flowhooks once, so that all forks share what it then keeps, such as schemas; returns `child_forks`."""
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


def _request(control, listener, ready):
    """The next request: the channel for the answer, and files; no files if there is none."""
    if control in ready:
        _, files, _, _ = socket.recv_fds(control, 1, 2 + STANDARD_FILES)
        return (socket.socket(fileno=files.pop(1)) if files else None), files
    if listener in ready:
        channel, _ = listener.accept()
        _, files, _, _ = socket.recv_fds(channel, 1, 1 + STANDARD_FILES)
        return channel, files
    return None, []


def _tell(told):
    """Report all processes that have ended."""
    while told:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with told.pop(pid) as channel:
            _say(channel, os.waitstatus_to_exitcode(status))


def _say(channel, number):
    with suppress(OSError):  # no parent waits for it any more
        channel.sendall(b"%d\n" % number)


def _become(files):
    """Make this fork what the request describes; return the arguments."""
    request, *standard = files
    with os.fdopen(request, "rb") as file:
        wanted = json.load(file)
    if wanted["own_session"]:
        os.setsid()
    for number, (name, one) in enumerate(zip(("stdin", "stdout", "stderr"), standard, strict=True)):
        os.dup2(one, number)
        os.close(one)
        setattr(sys, name, _opened(number, getattr(sys, name)))
        setattr(sys, f"__{name}__", getattr(sys, name))
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    sys.argv[:] = wanted.get("argv") or wanted["command"][wanted["command"].index("flowhooks") :]
    sys.orig_argv[:] = wanted["command"]
    if not sys.flags.safe_path:
        sys.path[:1] = [] if wanted.get("code") else [wanted["cwd"]]
        if wanted.get("python_path"):
            sys.path.insert(1, wanted["python_path"])
    if os.environ.get("PYTHONFAULTHANDLER"):
        faulthandler.enable()
    return wanted


def _opened(number, before):
    """A standard stream as Python opens it: the one from before has remembered whether its file could be a pipe."""
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
    except SystemExit as ended:
        if isinstance(ended.code, str):
            raise  # Python prints it
        status = ended.code or 0
    # This is how Python begins to end.
    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.exit(status)  # Python reports it, in its own words
    os._exit(status & 0xFF)


if __name__ == "__main__" and (
    wanted := main(sys.argv[1], *(socket.socket(fileno=int(number)) for number in sys.argv[2:]))
):
    _run(wanted.get("code"))
