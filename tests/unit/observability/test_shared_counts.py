"""The folder in which processes count together, when a program removes it or another user creates one at its path."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest
from prometheus_client import values

from flowhooks.observability import shared_counts
from flowhooks.observability.metrics import Metrics
from flowhooks.observability.shared_counts import SHARED_DIR_VARIABLE, continue_counts, read_pids, shared_folder

COUNTED = b'flowhooks_http_requests_total{kind="complete",source="oa"} 1.0\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The path of the folder, which does not exist."""
    path = tmp_path / "cleaned" / "counts"
    monkeypatch.setenv(SHARED_DIR_VARIABLE, str(path))
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    return path


def count():
    """Metrics of a process that has answered one request."""
    metrics = Metrics()
    metrics.answered("complete", "oa", 200, 0.5)
    return metrics


def test_a_removed_folder_is_created_again(folder):
    """A process starts without the folder, counts in a new one, and says that counts are missing."""
    assert continue_counts(0) == shared_counts.REMOVED
    assert COUNTED in count().text()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(read_pids(folder)) == [os.getpid()]
    assert continue_counts(1) is None


def of_another_user(folder, monkeypatch):
    """Make the folder one of another user."""
    folder.mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)


def for_all(folder, _monkeypatch):
    """Make the folder one in which all users may create files."""
    folder.mkdir(parents=True)
    folder.chmod(0o777)


def link(folder, _monkeypatch):
    """Make the folder a link to one of this user."""
    folder.parent.mkdir()
    folder.symlink_to(folder.parent)


def file(folder, _monkeypatch):
    """Make a file at the path."""
    folder.parent.mkdir()
    folder.touch()


@pytest.mark.parametrize("make", [of_another_user, for_all, link, file])
def test_a_process_counts_alone_if_the_folder_is_not_its_own(folder, monkeypatch, make):
    """It starts, and does not write there."""
    make(folder, monkeypatch)
    assert continue_counts(0) == shared_counts.COUNTS_ALONE
    metrics = count()
    assert (metrics.shared_dir, COUNTED in metrics.text()) == (None, True)
    assert [path for path in folder.parent.rglob("*") if path != folder] == []


def test_files_of_another_user_are_not_read(folder, monkeypatch):
    """A process that runs for longer does not report counts that another user may have written, and no pids."""
    continue_counts(0)
    metrics = count()
    assert COUNTED in metrics.text()
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert COUNTED not in metrics.text()
    assert list(read_pids(folder)) == []


def test_the_folder_is_locked_until_it_is_deleted():
    """systemd-tmpfiles skips a folder that it cannot lock."""
    with shared_folder() as name:
        folder = Path(name)
        (folder / "counter_n0.db").touch()
        other = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
    assert not folder.exists()
