"""The pytest fixtures of the test kit, which pytest finds by itself where flowhooks is installed.

Every run of pytest in such an environment imports this file, so it imports the kit only inside the fixtures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowhooks.testing import AppFactory, AppHarness, ManualClock


@pytest.fixture
def flowhooks_clock() -> ManualClock:
    """The clock of the apps that `flowhooks_app` makes. It stands still until a test moves it."""
    from flowhooks.testing import ManualClock  # noqa: PLC0415 (see the module's docstring)

    return ManualClock()


@pytest.fixture
def flowhooks_app(flowhooks_clock: ManualClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppFactory]:
    """A function that makes an `AppHarness`. It takes the same arguments except `clock` and `folder`.

    At the end of the test all apps are closed, and the consistency of their ledgers is checked.
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
        except Exception as problem:  # noqa: BLE001 (the other apps have to be closed, too)
            problems.append(f"{type(problem).__name__}: {problem}")
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)
