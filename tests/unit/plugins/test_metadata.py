"""The descriptions of installed packages."""

from __future__ import annotations

import sys

import pytest

from flowhooks.plugins.metadata import find_package


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A function that puts the metadata of a package on `sys.path`."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name, text, entry_points=""):
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(text)
        (folder / "entry_points.txt").write_text(entry_points)

    return put


def test_a_package_is_found_by_any_spelling_of_its_name(installed):
    """A package is found by any spelling, with summary, home page and plugin names."""
    installed(
        "Acme-Leave",
        "Metadata-Version: 2.1\nName: Acme-Leave\nVersion: 1.0\nSummary: Leave, granted.\n"
        "Project-URL: Changelog, https://acme.example/changes\nProject-URL: Homepage, https://acme.example/\n",
        "[flowhooks]\nsick = acme_leave.sick\nleave = acme_leave\n[console_scripts]\nx = y:z\n",
    )
    for name in ("acme-leave", "ACME_leave", "Acme.Leave"):
        found = find_package(name)
        assert (found.name, found.version, found.summary) == ("Acme-Leave", "1.0", "Leave, granted.")
        assert (found.home_page, found.plugins) == ("https://acme.example/", ("leave", "sick"))


@pytest.mark.parametrize(
    ("fields", "home_page"),
    [
        ("Home-page: https://old.example/\nProject-URL: Homepage, https://new.example/\n", "https://old.example/"),
        ("Home-page: UNKNOWN\n", ""),
        ("Project-URL: Source, https://s.example/\nProject-URL: Docs, https://d.example/\n", "https://s.example/"),
        ("Project-URL: Tracker, https://t.example/\n", "https://t.example/"),
        ("Home-page: https://a.example/\x1b[31m\n", "https://a.example/\N{REPLACEMENT CHARACTER}[31m"),
        ("", ""),
    ],
)
def test_home_page_of_a_package(installed, fields, home_page):
    """The home page is the old field or the best matching label, without control characters."""
    installed("p", f"Metadata-Version: 2.1\nName: p\nVersion: 1\n{fields}")
    assert find_package("p").home_page == home_page


def test_missing_or_unreadable_metadata_is_none(installed, tmp_path):
    """A missing package, an invalid name and unreadable metadata return None."""
    installed("spoilt", "Metadata-Version: 2.1\nName: spoilt\nVersion: 1\n")
    (tmp_path / "spoilt-1.0.dist-info/METADATA").write_bytes(b"Name: \xff\n")
    for name in ("not-installed-anywhere", "", "../x", "spoilt"):
        assert find_package(name) is None, name


def test_reading_metadata_does_not_import_the_package(installed):
    """Reading a package's metadata does not import it."""
    installed("quiet", "Metadata-Version: 2.1\nName: quiet\nVersion: 1\n", "[flowhooks]\nquiet = quiet_module\n")
    assert find_package("quiet").plugins == ("quiet",)
    assert "quiet_module" not in sys.modules
