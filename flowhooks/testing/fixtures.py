"""The pytest fixtures of the test kit; pytest finds them by itself where flowhooks is installed.

It must not import the kit before a test asks for it: every run of pytest in that environment imports this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flowhooks.testing import AppUnderTest, HandClock


@pytest.fixture
def flowhooks_clock() -> HandClock:
    """The clock of the apps that `flowhooks_app` makes; it stands still until it is moved."""
    from flowhooks.testing import HandClock  # noqa: PLC0415 (see the module's docstring)

    return HandClock()


@pytest.fixture
def flowhooks_app(
    flowhooks_clock: HandClock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., AppUnderTest]]:
    """A function that makes an `AppUnderTest`, with the same arguments but clock and folder.

    At the end of the test all are closed, and it is checked that their ledgers' books balance.
    """
    from flowhooks.testing import AppUnderTest  # noqa: PLC0415 (see the module's docstring)

    opened: list[AppUnderTest] = []

    def open_app(*plugins: object, **given: Any) -> AppUnderTest:
        folder = tmp_path_factory.mktemp("flowhooks")
        opened.append(AppUnderTest(*plugins, clock=flowhooks_clock, folder=folder, **given))
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
