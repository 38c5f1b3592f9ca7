"""The test of whether a handler does its business work exactly once in spite of failures."""

from __future__ import annotations

import gc
import inspect
import warnings
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flowhooks.model.handler import Handler
from flowhooks.testing import plugin_names
from flowhooks.testing.app import AppHarness
from flowhooks.testing.fault_injection.faults import FaultInjector
from flowhooks.testing.fault_injection.module_state import ModuleState, modules_of
from flowhooks.testing.fault_injection.runner import ExactlyOnceRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from flowhooks.model.event import Event
    from flowhooks.testing.fault_injection.report import Report


def exactly_once(
    plugin: object,
    *,
    done: Callable[[Event], int],
    make: Mapping[str, Any] | Callable[[int], Mapping[str, Any]],
    kind: str = "complete",
    source: str | None = None,
    settings: Mapping[str, Any] | None = None,
    name: str = "",
    handler: str | None = None,
    forget: Callable[[], object] | None = None,
    lines: int = 20,
    duplicates: int = 8,
    database: str = "",
) -> Report:
    """Check whether a handler does its business work exactly once in spite of failures and crashes.

    The handler runs on a real ledger of its own, called through the real WSGI app, with a new event in each scenario.
    The scenarios are:

    - a run without any fault;
    - an exception at each line of the handler's code;
    - the callback repeated, one after the other and at the same moment;
    - two events in the wrong order;
    - a process that is killed before the handler is entered, at each line of its code, and after it has returned but
      before that is recorded.

    After each kill flowhooks starts again on the same ledger, and the clock is moved until everything is settled.

    A kill is simulated: an exception that is not a subclass of `Exception` is raised in the handler's thread before a
    line runs. So:

    - Unlike in a real kill, context managers are left and `finally` blocks run, with the effects that they have. Code
      that catches `BaseException` continues, and so do threads that the handler has started.
    - The kill happens between lines, never within one, and only in the handler's own code: its top-level package, or
      its module if that is a test. Lines in `finally` blocks are left out. A module is a test if a part of its name is
      `test`, `tests` or `conftest`, begins with `test_` or ends with `_test`. The name of a top-level package that is
      given as the plugin does not count.
    - As in a real kill, the memory of the plugin's modules is reset: module-level variables, and the objects reached
      from them. Open connections that are not reached in this way, locks and counters are not reset, and neither are
      objects of a library's classes, such as a cache of cachetools: reset those in `forget`.
    - The memory of your tests is not reset, because your tests represent the world outside.

    Args:
        plugin: the plugin, a module or an object, or one handler made by `@handler`.
        done: returns how many times the business work of an event has been done, for example by counting rows. It is
            called in the caller's thread. It must count the work of that event only: by `event.flow_instance_id`, or by
            `event.business_key`, which is unique for each event unless `make` sets it.
        make: the body of the callbacks, or a function that returns the body for the event with the given number.
        kind: the kind of callback.
        source: the engine that calls, if the handler listens to one.
        settings: the plugin's own section of the settings. Default: empty.
        name: the plugin's name. Default: as for `AppHarness`.
        handler: the name of the handler to check; needed if several handlers of the plugin match the event.
        forget: called after each kill, to reset memory that a killed process loses and that is not in the plugin's
            modules, such as a set in your test's own module, or in an object of a library's class.
        lines: the maximum number of lines at which the handler is killed, and at which an exception is raised. If more
            lines are executed, the lines are chosen evenly.
        duplicates: the number of callbacks sent at the same moment; at least 2.
        database: the URL of a PostgreSQL database for the ledger, as for `AppHarness`.

    Returns:
        The result of each scenario. If the work is not done once in the run without any fault, that result only.

    Raises:
        FlowhooksError: the plugin is quarantined.
        ValueError: no handler matches the event, several match and `handler` does not select one, the callback is
            rejected, `done` does not return a count or also counts work of other events, or `lines` or `duplicates` is
            too small.
        AssertionError: the handler or a delivery did not end within 20 real seconds.
    """
    if lines < 1 or duplicates < 2:  # noqa: PLR2004 (one callback is no duplicate)
        raise ValueError("lines must be at least 1, and duplicates at least 2")
    plugins = plugin_names.name_plugins([], {name: plugin}) if name else plugin_names.name_plugins([plugin], {})
    injector = FaultInjector()
    package = _package_of(plugin)
    state = ModuleState(_modules_of(plugin, package))
    with warnings.catch_warnings(), _only_new_objects_collected():
        # A killed function's objects are released without being closed. That is not a fault of the handler.
        warnings.simplefilter("ignore", ResourceWarning)
        with AppHarness(
            names=plugins | {FaultInjector.NAME: injector},
            settings={next(iter(plugins)): settings} if settings else {},
            sources=[source] if source else [],
            database=database,
        ) as app:
            runner = ExactlyOnceRunner(
                app,
                injector,
                done=done,
                make=make,
                kind=kind,
                forget=lambda: _forget(state, forget),
                package=package,
            )
            report = runner.report(handler, lines=lines, duplicates=duplicates)
        gc.collect()  # while ResourceWarning is still ignored
    return report


@contextmanager
def _only_new_objects_collected() -> Iterator[None]:
    """Let garbage collections within the block examine only objects that are created there.

    There is a collection after each kill, and with all modules of a test run it would take 0.1 s of processor time.
    """
    gc.collect()
    is_frozen = _has_frozen_objects()
    gc.freeze()
    try:
        yield
    finally:
        if not is_frozen:  # otherwise the caller has excluded objects, too
            gc.unfreeze()


@cache
def _has_frozen_objects() -> bool:
    """Whether objects were excluded from collections before the first block: the count examines each of them."""
    return gc.get_freeze_count() > 0


def _package_of(plugin: object) -> str:
    """Return the name of a plugin that is a package; `""` for any other plugin.

    A package that is given as the plugin is no test, whatever its name. A single module may be one.
    """
    return plugin.__name__ if isinstance(plugin, ModuleType) and hasattr(plugin, "__path__") else ""


def _modules_of(plugin: object, package: str) -> list[ModuleType]:
    """Return the imported modules of a plugin's package, whose state a killed process loses."""
    if isinstance(plugin, ModuleType):
        names = {plugin.__name__}
    else:
        attributes = getattr(plugin, "__dict__", {})  # an object with slots has none
        objects = [plugin.function] if isinstance(plugin, Handler) else [type(plugin), *attributes.values()]
        names = {str(getattr(inspect.unwrap(item) if callable(item) else item, "__module__", "")) for item in objects}
    return modules_of((name.partition(".")[0] for name in names), package)


def _forget(state: ModuleState, more: Callable[[], object] | None) -> None:
    state.restore()
    if more is not None:
        more()
    gc.collect()  # open connections are in reference cycles: close them before the next process starts
