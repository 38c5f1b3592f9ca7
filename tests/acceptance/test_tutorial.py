"""The tutorial, typed word for word into a shell with an empty folder, environment and home."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from support.ports import free_ports

CHECKOUT = Path(__file__).parents[2]
ENGLISH, CHINESE = CHECKOUT / "docs/tutorial.md", CHECKOUT / "docs/tutorial.zh-CN.md"
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COUNTS = {
    ENGLISH: r"\*\*(\d+) (?:more )?commands\*\*",
    CHINESE: r"\*\*(?:再用 )?(\d+) 条命令\*\*",
}
ALL_TIME = 300.0
"""The maximum processor time of all commands in seconds: the five minutes that the tutorial states.

A machine that also does other work takes longer.
"""
WAIT_TIMEOUT = 1500.0
"""Timeout of the tutorial in seconds."""
PORTS = (8080, 8081)
"""The listening ports of the tutorial's server."""


class Block(NamedTuple):
    """A code block of the page."""

    language: str
    text: str


def blocks(page):
    """The code blocks of a page in order."""
    return [Block(*match) for match in FENCED.findall(page.read_text("utf-8"))]


def commands(several):
    """The typed commands; a command that continues on the next line is one."""
    return [line for block in several if block.language == "sh" for line in block.text.replace("\\\n", "").splitlines()]


class Shell:
    """A shell into which commands are typed, and its output.

    A background command ends with the shell, because both are in one process group.
    """

    def __init__(self, folder, environ):
        self._until = time.monotonic() + WAIT_TIMEOUT
        self._said = ""
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self):
        for line in self._process.stdout:
            with self._changed:
                self._said += line
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def type(self, command):
        """Type one command; return its exit code and its output."""
        with self._changed:
            before = len(self._said)
        self._process.stdin.write(f'{command}\necho "ended:$?"\n')
        match = self.until(r"^ended:(\d+)\n", since=before)
        with self._changed:
            return int(match[1]), self._said[before : match.start()]

    def until(self, pattern, *, since=0):
        """Wait until the output matches `pattern`."""
        wanted = re.compile(pattern, re.MULTILINE)
        with self._changed:
            while not (match := wanted.search(self._said, since)):
                left = self._until - time.monotonic()
                assert left > 0, f"not within {WAIT_TIMEOUT:.0f} s: {pattern}\n{self._said[-3000:]}"
                assert self._listener.is_alive(), f"the shell has ended before {pattern}\n{self._said[-3000:]}"
                self._changed.wait(left)
            return match

    @property
    def length(self):
        """The length of the output so far."""
        with self._changed:
            return len(self._said)

    def close(self):
        """End the shell and its background processes."""
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            if self._listener.is_alive():
                with suppress(ProcessLookupError):  # all have ended, and the listener is late
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._listener.join(30)
            self._process.stdout.close()


class Ports(NamedTuple):
    """The ports of the server: those of the tutorial, or others if a program uses them."""

    web: int
    admin: int

    @classmethod
    def free(cls):
        """The tutorial's own ports, or two others if one of them is used."""
        with ExitStack() as stack:
            try:
                for port in PORTS:
                    probe = stack.enter_context(socket.socket())
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
            except OSError:
                return cls(*free_ports(len(PORTS)))  # which nobody takes until the server starts, a minute later
        return cls(*PORTS)

    @property
    def environ(self):
        """The environment for these ports."""
        if self == PORTS:
            return {}
        return {"FLOWHOOKS_LISTEN": f"127.0.0.1:{self.web}", "FLOWHOOKS_ADMIN": f"127.0.0.1:{self.admin}"}

    def at(self, command):
        """The command of the page, with its address replaced if the port differs."""
        if self == PORTS or not command.startswith("flowhooks send "):
            return command
        return f"{command} --to http://127.0.0.1:{self.web}"


@pytest.fixture(scope="module")
def wheel(built):
    """The wheel of flowhooks as it is published."""
    return built(CHECKOUT)


@pytest.fixture
def newcomer(tmp_path, wheel):
    """The environment of a user who has only Python; pip finds flowhooks in this checkout's wheel."""
    programs, home = tmp_path / "bin", tmp_path / "home"
    programs.mkdir()
    home.mkdir()
    (programs / "python3").symlink_to(Path(sys._base_executable).resolve())
    kept = {
        name: value
        for name, value in os.environ.items()
        if not re.match(r"FLOWHOOKS_|PYTHON|PYTEST|COV_|VIRTUAL_ENV|COLUMNS$|BASH_ENV$|XDG_", name)
    }
    return kept | {
        "HOME": str(home),
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        "PIP_FIND_LINKS": f"{wheel.parent} {os.environ.get('PIP_FIND_LINKS', '')}".strip(),
        "PIP_CACHE_DIR": _pip("cache", "dir"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "LC_ALL": "C.UTF-8",
        **_pip_configuration(),
    }


def _pip(*words):
    return subprocess.run(
        [sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=True
    ).stdout.strip()


def _pip_configuration():
    """The user's own pip settings, such as a mirror, which an empty home does not have."""
    for file in (Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf"):
        if file.is_file() and "PIP_CONFIG_FILE" not in os.environ:
            return {"PIP_CONFIG_FILE": str(file)}
    return {}


def shown(text, said):
    """Check that the output has the page's lines in order; `…` stands for any text."""
    place = 0
    for line in filter(None, text.splitlines()):
        pattern = ".*".join(re.escape(part) for part in line.split("…"))
        match = re.compile(pattern if "…" in line else f"^{pattern}$", re.MULTILINE).search(said, place)
        assert match, f"{line!r} was not said:\n{said}"
        place = match.end()


@pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=lambda page: page.name)
def test_the_page_states_the_number_of_commands_correctly(page):
    """The page states the number of commands before the first response and after it correctly."""
    first, more = map(int, re.findall(COUNTS[page], page.read_text("utf-8")))
    typed = commands(blocks(page))
    assert len(typed) == first + more
    assert typed[first - 1].startswith("flowhooks send ")
    assert not any(command.startswith("flowhooks send ") for command in typed[: first - 1])


def test_both_languages_have_the_same_code():
    """The commands, outputs and files are the same in English and in Chinese."""
    assert blocks(ENGLISH) == blocks(CHINESE)


@pytest.mark.timeout(WAIT_TIMEOUT + 60)
def test_every_command_works_as_the_tutorial_shows(newcomer, wheel, tmp_path, record_property, capsys):
    """Every command does what the page shows, up to a failure and a replay, in less than five minutes."""
    if shutil.which("bash") is None:
        pytest.skip("the tutorial's shell, bash, is not here")
    folder = tmp_path / "empty"
    folder.mkdir()
    ports = Ports.free()
    began = time.monotonic()
    answered = None
    before_all = processor_time()
    shell = Shell(folder, newcomer | ports.environ)
    try:
        last = ""
        for block in blocks(ENGLISH):
            if block.language == "sh":
                last = ""
                for command in commands([block]):
                    before = shell.length
                    code, said = shell.type(ports.at(command))
                    last += said
                    if command == "flowhooks serve &":
                        shell.until(r"server_started", since=before)
                    failed = command.endswith("--conclusion approved") and "send 4712" in command
                    assert code == (1 if failed else 0), f"{command}: {code}\n{said}"
                    if answered is None and command.startswith("flowhooks send "):
                        answered = time.monotonic() - began
                        assert '"success": true' in said
            elif block.language == "text":
                shown(block.text, last)
            else:
                replace_function(folder / "flowhooks-expenses/src/flowhooks_expenses/__init__.py", block.text)
        check_is_installed(wheel, folder / ".venv")
        code, said = shell.type("pytest")
        assert "1 failed" in said
        assert "5 passed" in said
        assert "FAILED tests/test_handler.py::test_no_business_key" in said
    finally:
        shell.close()
    assert processor_time() - before_all < ALL_TIME
    seconds = f"{answered:.0f}"
    record_property("tutorial_seconds", seconds)
    with capsys.disabled():
        print(f"\nthe tutorial: answered after {seconds} s of the machine's time")  # noqa: T201 (for who wonders)


def processor_time():
    """The processor time in seconds of the processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def check_is_installed(wheel, environment):
    """Check that this wheel is installed, and not another package of the same name and version."""
    with zipfile.ZipFile(wheel) as packed:
        (record,) = [name for name in packed.namelist() if name.endswith(".dist-info/RECORD")]
        ours = {line for line in packed.read(record).decode().splitlines() if "sha256=" in line}
    (installed,) = environment.glob(f"lib/python*/site-packages/{record}")
    assert ours <= set(installed.read_text("utf-8").splitlines())


def replace_function(file, new):
    """Replace the function of this name as the page says, and keep the decorator."""
    name = re.match(r"def (\w+)\(", new)[1]
    text = file.read_text("utf-8")
    whole = re.compile(rf"^def {name}\(.*?(?=^\S)", re.MULTILINE | re.DOTALL)
    replaced, times = whole.subn(lambda _: f"{new}\n\n", text)
    assert times == 1
    file.write_text(replaced, "utf-8")
