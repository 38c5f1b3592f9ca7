"""Which plugin an exception of `run_handler` is attributed to."""

from __future__ import annotations

from types import FunctionType, SimpleNamespace

import pytest

from flowhooks import Outcome, OutcomeKind, handler, hookimpl


@handler(every=True)
def work(event):
    """Work that succeeds."""


@handler(every=True)
def fail(event):
    """Work that fails."""
    deeper()


def deeper():
    raise ValueError("in the handler")


def wrapper(function):
    """A plugin that wraps runs with `function`."""
    return SimpleNamespace(run_handler=hookimpl(wrapper=True)(function))


def innocent():
    return (yield)


def rethrows():
    try:
        return (yield)
    except ValueError as error:
        error.add_note("seen")
        raise


def before():
    deeper()
    yield


def after():
    yield
    raise KeyError("after")


def instead():
    try:
        yield
    except ValueError as error:
        raise LookupError("instead") from error


def silent():
    if False:
        yield


def twice():
    outcome = yield
    yield outcome


@hookimpl(hookwrapper=True)
def old_style():
    raise OSError("old")
    yield


FAILS = False  # another value for each copy


def copied():
    if FAILS:
        raise OSError("pool is empty")
    return (yield)


class Counting:
    """A plugin with state, as an object."""

    @hookimpl(wrapper=True)
    def run_handler(self):
        """Fail before the run."""
        raise OSError("pool is empty")
        yield


def takes_over():
    deeper()


@pytest.mark.parametrize(
    ("name", "plugins", "expected"),
    [
        ("p:fail", {}, None),
        ("p:fail", {"a": wrapper(innocent), "b": wrapper(rethrows)}, None),
        ("p:work", {"a": wrapper(innocent), "b": wrapper(before), "c": wrapper(rethrows)}, "b"),
        ("p:work", {"a": wrapper(innocent), "b": wrapper(after), "c": wrapper(rethrows)}, "b"),
        ("p:fail", {"a": wrapper(innocent), "b": wrapper(instead), "c": wrapper(rethrows)}, "b"),
        ("p:work", {"a": wrapper(innocent), "b": wrapper(silent), "c": wrapper(rethrows)}, "b"),
        ("p:work", {"a": wrapper(innocent), "b": wrapper(twice), "c": wrapper(rethrows)}, "b"),
        ("p:work", {"a": wrapper(innocent), "b": SimpleNamespace(run_handler=old_style), "c": wrapper(rethrows)}, "b"),
        ("p:work", {"a": wrapper(innocent), "b": Counting(), "c": wrapper(rethrows)}, "b"),
        ("p:work", {"a": SimpleNamespace(run_handler=hookimpl(takes_over)), "c": wrapper(rethrows)}, "a"),
    ],
)
def test_the_failing_plugin_is_named(name, plugins, expected, load, attempt):
    """A handler's own exceptions are attributed to it, through any number of wrappers."""
    loaded = load(p=SimpleNamespace(handlers=hookimpl(lambda: [work, fail])), **plugins)
    assert [info.error for info in loaded.infos if info.error] == []
    with pytest.raises(Exception, match=r".") as raised:
        attempt(loaded, name)
    assert loaded.responsible_plugin(raised.value) == expected


def test_a_copy_of_a_wrapper_is_another_wrapper(load, attempt):
    """Of two wrappers with the same code in two files, the one that raised is named."""
    for fails in "ab":
        copies = {
            name: wrapper(FunctionType(copied.__code__.replace(co_filename=f"{name}.py"), {"FAILS": name == fails}))
            for name in "ab"
        }
        loaded = load(p=SimpleNamespace(handlers=hookimpl(lambda: [work])), **copies)
        with pytest.raises(OSError, match="pool is empty") as raised:
            attempt(loaded, "p:work")
        assert loaded.responsible_plugin(raised.value) == fails


def test_an_exception_outside_plugins_is_attributed_to_no_plugin(load):
    """An exception that passed no plugin, or was never raised, is attributed to none."""
    loaded = load(a=wrapper(before))
    assert loaded.responsible_plugin(ValueError("never raised")) is None
    assert loaded.responsible_plugin(RuntimeError("did not yield")) is None


def test_handler_exceptions_are_not_attributed_to_the_running_plugin(load, event, delivery):
    """If an implementation calls the handler itself, the handler's exceptions are still attributed to the handler."""

    def run_handler(handler, event):
        return Outcome(kind=OutcomeKind.SUCCEEDED, value=handler(event))

    loaded = load(
        p=SimpleNamespace(handlers=hookimpl(lambda: [work, fail])), a=SimpleNamespace(run_handler=hookimpl(run_handler))
    )
    with pytest.raises(ValueError, match="in the handler") as raised:
        loaded.run_handler(loaded.handlers["p:fail"], event, delivery)
    assert loaded.responsible_plugin(raised.value) is None
