"""The working folder in which a process starts others."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import pytest

from flowhooks.cli.process import replacement
from flowhooks.settings import Settings
from flowhooks.working_folder import WorkingFolder


@pytest.fixture
def started(tmp_path, monkeypatch):
    """The working folder of the start."""
    folder = tmp_path / "release"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return WorkingFolder.current()


@pytest.fixture
def left(started, tmp_path, monkeypatch):
    """The working folder of the start, after this process has gone to another one."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return started


def test_a_process_in_the_folder_of_the_start(started, tmp_path):
    """A new process has the same folder."""
    assert started.path == (tmp_path / "release").resolve()
    assert started.path_if_left() is None


def test_a_process_that_has_left_the_folder(left):
    """A new process enters the folder of the start."""
    assert left.path_if_left() == left.path


def test_a_process_that_has_left_the_folder_for_one_that_was_removed(left, tmp_path):
    """A new process enters the folder of the start, too."""
    (tmp_path / "elsewhere").rmdir()
    assert left.path_if_left() == left.path


def test_a_folder_that_was_removed(started):
    """A process in a folder that was removed can start others, which inherit the folder."""
    started.path.rmdir()
    assert started.path_if_left() is None
    assert WorkingFolder.current().path is None
    assert WorkingFolder.current().path_if_left() is None


def test_a_folder_that_was_renamed(started):
    """A process in a folder that was renamed can start others there, also if another folder has the path."""
    started.path.rename(started.path.with_name("old"))
    assert started.path_if_left() is None
    started.path.mkdir()
    assert started.path_if_left() is None


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_folder_that_was_renamed_after_the_process_has_left_it(left, is_replaced):
    """The error names the folder. A new process must not start in another folder at its path."""
    left.path.rename(left.path.with_name("old"))
    if is_replaced:
        left.path.mkdir()
    with pytest.raises(FileNotFoundError, match=f"the folder of the start, {left.path}, was moved or removed"):
        left.path_if_left()


def test_a_supervisor_starts_although_the_folder_was_removed(left, monkeypatch):
    """The successor has started there before, and serves already: the service must not end."""
    executed = []
    monkeypatch.setattr(os, "execve", lambda *arguments: executed.append(arguments))
    monkeypatch.setattr(replacement, "stop_timers", lambda: None)  # one is the limit of this test
    left.path.rmdir()
    context = SimpleNamespace(
        source=SimpleNamespace(folder=left),
        inherited=None,
        environ={},
        configured={},
        service_manager=SimpleNamespace(address=""),
    )
    app = SimpleNamespace(settings=Settings())
    server = replacement.Replacement(context=context, app=app, servers={}, cores=frozenset())
    with socket.socket() as control:
        successor = SimpleNamespace(control=control, pid=1, number=1)
        server._become_supervisor(successor, 0.0, has_command=True, had_terminal=False)
    assert len(executed) == 1
