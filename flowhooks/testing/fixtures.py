"""The pytest fixtures of the test kit; pytest finds them by itself where flowhooks is installed.

It must not import the kit before a test asks for it: every run of pytest in that environment imports this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowhooks.testing import AppHarness, ManualClock


@pytest.fixture
def flowhooks_clock() -> ManualClock:
    """The clock of the apps that `flowhooks_app` makes; it stands still until it is moved."""
    from flowhooks.testing import ManualClock  # noqa: PLC0415 (see the module's docstring)

    return ManualClock()


@pytest.fixture
def flowhooks_app(
    flowhooks_clock: ManualClock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., AppHarness]]:
    """A function that makes an `AppHarness`, with the same arguments but clock and folder.

    At the end of the test all are closed, and it is checked that their ledgers' books balance.
    """
    from flowhooks.testing import AppHarness  # noqa: PLC0415 (see the module's docstring)

    opened: list[AppHarness] = []

    def open_app(*plugins: object, **options: Any) -> AppHarness:
        folder = tmp_path_factory.mktemp("flowhooks")
        opened.append(AppHarness(*plugins, clock=flowhooks_clock, folder=folder, **options))
        return opened[-1]

    yield open_app
    problems = []
    for app in opened:
        try:
            app.close()
        except AssertionError as problem:
            problems.append(str(problem))
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)
