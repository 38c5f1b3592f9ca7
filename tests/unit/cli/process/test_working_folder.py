"""The working folder in which a process starts others."""

from __future__ import annotations

from flowhooks.cli.process.working_folder import left_folder, working_folder


def test_a_process_that_has_left_its_folder(tmp_path, monkeypatch):
    """A new process enters the folder of the start only if this process is elsewhere."""
    monkeypatch.chdir(tmp_path)
    folder = working_folder()
    assert folder == tmp_path.resolve()
    assert left_folder(folder) is None
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert left_folder(folder) == folder


def test_a_folder_that_was_removed(tmp_path, monkeypatch):
    """A process in a folder that was removed can start others, which inherit the folder."""
    folder = tmp_path / "release"
    folder.mkdir()
    monkeypatch.chdir(folder)
    started_in = working_folder()
    folder.rmdir()
    assert working_folder() is None
    assert left_folder(started_in) is None
    assert left_folder(None) is None
