"""Whether a handler does its business work exactly once, whatever happens."""

from __future__ import annotations

import gc
import inspect
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

from flowhooks.model.handler import Handler
from flowhooks.testing import plugin_names
from flowhooks.testing.app import AppHarness
from flowhooks.testing.fault_injection.faults import FaultInjector
from flowhooks.testing.fault_injection.module_state import ModuleState, modules_of
from flowhooks.testing.fault_injection.runner import ExactlyOnceRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
    """Try whether a handler does its business work exactly once, whatever happens.

    It runs on a real ledger of its own, through the real WSGI app, each time for a fresh event. Tried are: a run in
    which nothing happens; an exception at each line of the handler's code; the call-back that comes again, one after
    the other and at the same moment; two events in the wrong order; and a process that is killed before the handler
    is entered, at each line of its code, and when it has returned but that was not recorded. After each kill flowhooks
    starts again on the same ledger, and the clock is moved until everything is settled.

    A kill is played: an exception that is no `Exception` is raised in the handler's thread before a line runs. So,
    unlike in a real kill, context managers are left and `finally` blocks run, which closes what they close; whoever
    catches `BaseException` goes on. It falls between lines, never within one, and only into the handler's own code:
    that of its top-level package (of its module, if that is a test). Lines in `finally` blocks are left out, and
    threads that the handler starts go on. What the plugin's modules keep in memory is forgotten, as in a real kill:
    module-level variables, and what is reached from them. What your tests keep in memory is not: it stands for the
    world outside. Open connections that are not reached so, locks and counters stay as they are.

    Args:
        plugin: the plugin, a module or an object, or one handler made by `@handler`.
        done: says how many times the business work of an event has been done in the end, such as by counting rows. It
            is called in the caller's thread, and must count that event's work alone: by `event.flow_instance_id`, or by
            `event.business_key`, which each event gets of its own unless `make` says.
        make: the body of the call-backs; or a function that makes the body of the event with this number.
        kind: the kind of call-back.
        source: the engine that calls, where the handler listens to one.
        settings: the plugin's own section of the settings; default empty.
        name: the plugin's name; default as for `AppHarness`.
        handler: which of the plugin's handlers is tried, by its name; needed where several want the event.
        forget: called after each kill, to forget what a killed process forgets and the plugin's modules do not hold,
            such as a set in your test's own module.
        lines: at how many lines it is killed, and at how many an exception is raised, at the most; if more are run,
            they are chosen evenly.
        duplicates: how many call-backs come at the same moment; at least 2.
        database: a PostgreSQL for the ledger, as for `AppHarness`.

    Returns:
        What came of each try; only of the first run, in which nothing happens, if that does not do the work once.

    Raises:
        FlowhooksError: the plugin is quarantined.
        ValueError: no handler wants the event, several do and `handler` does not say which, or `done` counts work
            of other events too.
        AssertionError: something did not come to an end within 20 real seconds.
    """
    if lines < 1 or duplicates < 2:  # noqa: PLR2004 (one is no duplicate)
        raise ValueError("lines is at least 1, and duplicates at least 2")
    plugins = plugin_names.name_plugins([], {name: plugin}) if name else plugin_names.name_plugins([plugin], {})
    injector = FaultInjector()
    state = ModuleState(_modules_of(plugin))
    with warnings.catch_warnings():
        # What a killed function held is let go of without being closed: no fault of the handler's.
        warnings.simplefilter("ignore", ResourceWarning)
        with AppHarness(
            names=plugins | {FaultInjector.NAME: injector},
            settings={next(iter(plugins)): settings} if settings else {},
            sources=[source] if source else [],
            database=database,
        ) as app:
            runner = ExactlyOnceRunner(
                app, injector, done=done, make=make, kind=kind, forget=lambda: _forget(state, forget)
            )
            report = runner.report(handler, lines=lines, duplicates=duplicates)
        gc.collect()  # while what is let go of is not warned of
    return report


def _modules_of(plugin: object) -> list[ModuleType]:
    """Return the imported modules of a plugin's package, whose state a killed process loses."""
    if isinstance(plugin, ModuleType):
        names = {plugin.__name__}
    else:
        objects = [plugin.function] if isinstance(plugin, Handler) else [type(plugin), *vars(plugin).values()]
        names = {str(getattr(inspect.unwrap(item) if callable(item) else item, "__module__", "")) for item in objects}
    return modules_of(name.partition(".")[0] for name in names)


def _forget(state: ModuleState, more: Callable[[], object] | None) -> None:
    state.restore()
    if more is not None:
        more()
    gc.collect()  # open connections lie in cycles: they are to be closed before the next process begins
