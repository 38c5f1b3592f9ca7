"""pytest in a process of its own, for tests that run the tests of a page or of a package."""

from __future__ import annotations

OTHER_PLUGINS = ("anyio", "hypothesispytest", "schemathesis", "xdist")
"""Plugins of the environment of these tests, which a plugin author does not have.

Loading them takes longer than a small test.
"""
PYTEST_OPTIONS = ("-p", "no:cacheprovider", *(word for name in OTHER_PLUGINS for word in ("-p", f"no:{name}")))
"""Options of a run whose folder for temporary files is given."""


def pytest_words(folder, *arguments):
    """The words of Python that run pytest in a folder.

    Its temporary files are beside the folder. In their usual place, runs at the same time remove old files of each
    other, which is a warning.
    """
    base = folder.with_name(f"{folder.name}-temporary")
    return ["-m", "pytest", *PYTEST_OPTIONS, f"--basetemp={base}", *arguments]
