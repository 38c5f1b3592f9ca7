"""Folders of schema files, made as a test writes them."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def folder(tmp_path):
    """A function that writes schema files, given by path, into a new folder, and returns it."""

    def write(files, name="schemas"):
        for path, content in files.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                file.write_bytes(content)
            else:
                file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return tmp_path / name

    return write
