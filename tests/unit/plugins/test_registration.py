"""Checks of a plugin's hooks before it may run, and the errors of refused plugins."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from flowhooks import Event, Retry, handler, hookimpl
from flowhooks.plugins.registration import HOOKS

PREFIX = "from flowhooks import Retry, handler, hookimpl\n"
WRAPPER = """
@hookimpl(wrapper=True)
def run_handler():
    raise AssertionError("a quarantined plugin was called")
    yield
"""
BROKEN = {
    "a misspelt hook": (
        "@hookimpl\ndef handlrs():\n    return []",
        r"there is no hook 'handlrs' \(\S*bad_plugin\.py:2\); did you mean 'handlers'\?$",
    ),
    "a hook like none of ours": (
        "@hookimpl\ndef zzz():\n    return []",
        r"there is no hook 'zzz' \(\S*bad_plugin\.py:2\); the hooks are: configure, schemas, handlers, engine_c",
    ),
    "a hook misspelt in specname": (
        "@hookimpl(specname='event_acepted')\ndef told(event): pass",
        r"there is no hook 'event_acepted' \(\S*bad_plugin\.py:2\); did you mean 'event_accepted'\?$",
    ),
    "a wrong argument": (
        "@hookimpl\ndef event_accepted(evnt): pass",
        r"hook 'event_accepted' \(\S*bad_plugin\.py:2\): .*'evnt'.*; it takes: event, handlers$",
    ),
    "a wrong argument under specname": (
        "@hookimpl(specname='event_accepted')\ndef told(evnt): pass",
        r"hook 'event_accepted' \(\S*bad_plugin\.py:2\): .*'evnt'.*; it takes: event, handlers$",
    ),
    "an argument where there is none": (
        "@hookimpl\ndef handlers(settings): return []",
        r"hook 'handlers' \(\S*bad_plugin\.py:2\): .*'settings'.*; it takes: no arguments$",
    ),
    "a wrapper without a yield": (
        "@hookimpl(wrapper=True)\ndef run_handler(): pass",
        r"hook 'run_handler' \(\S*bad_plugin\.py:2\): .*not a generator function",
    ),
    "a yield without wrapper=True": (
        "@hookimpl\ndef run_handler(): yield",
        r"hook 'run_handler' \(\S*bad_plugin\.py:2\) has a `yield`: mark it with @hookimpl\(wrapper=True\)$",
    ),
    "an async hook": (
        "@hookimpl\nasync def handlers(): return []",
        r"hook 'handlers' \(\S*bad_plugin\.py:2\) is `async def`, which is not supported$",
    ),
    "a receiver that does not see the request": (
        "@hookimpl\ndef receive_request(source): pass",
        r"'receive_request' \(\S*bad_plugin\.py:2\) does not take the argument request, so it cannot check a cred",
    ),
    "a receiver that wraps": (
        "@hookimpl(wrapper=True)\ndef receive_request(request): return (yield)",
        r"'receive_request' \(\S*bad_plugin\.py:2\) is a wrapper, but flowhooks has no receiver that it could wrap$",
    ),
    "two receivers": (
        (
            "@hookimpl\ndef receive_request(request): pass\n"
            "@hookimpl(specname='receive_request')\ndef other(request): pass"
        ),
        r"it implements the hook 'receive_request' twice: \S*bad_plugin\.py:\d and \S*bad_plugin\.py:\d; remove one",
    ),
    "a receiver that is a coroutine": (
        "@hookimpl\nasync def receive_request(request): pass",
        r"hook 'receive_request' \(\S*bad_plugin\.py:2\) is `async def`, which is not supported$",
    ),
    "no hook at all": ("x = 1", r"it implements no hook$"),
    "a handler that no hook returns": (
        "@handler(process_key='k')\ndef book(event): pass",
        (
            r"it implements no hook; it has the handler book \(\S*bad_plugin\.py:2\): return it from a hook, "
            r"@hookimpl def handlers\(\): return \[\.\.\.\]$"
        ),
    ),
    "a hook without its mark": (
        "def handlers(): return []",
        r"it implements no hook: 'handlers' \(\S*bad_plugin\.py:1\) lacks @hookimpl$",
    ),
    "configure that refuses": (
        "@hookimpl\ndef configure(settings): settings['url']",
        r"KeyError: 'url' \(\S*bad_plugin\.py:3\)$",
    ),
    "handlers() that raises": (
        "@hookimpl\ndef handlers():\n    raise SystemExit('no')",
        r"it called sys\.exit\(\) \(\S*bad_plugin\.py:4\)$",
    ),
    "handlers() that raises half-way": (
        "@hookimpl\ndef handlers():\n    yield handler(every=True, name='x')(print)\n    raise ValueError('late')",
        r"ValueError: late \(\S*bad_plugin\.py:5\)$",
    ),
    "handlers() without return": (
        "@hookimpl\ndef handlers(): pass",
        r"handlers\(\) \(\S*bad_plugin\.py:2\) returned None, not a list of handlers$",
    ),
    "handlers() that gives one": (
        "@hookimpl\ndef handlers(): return handler(every=True)(h)\ndef h(event): pass",
        r"handlers\(\) \(\S*bad_plugin\.py:2\) returned <?Handler.*, not a list of handlers$",
    ),
    "handlers() that gives text": (
        "@hookimpl\ndef handlers(): return 'archive'",
        r"handlers\(\) \(\S*bad_plugin\.py:2\) returned 'archive', not a list of handlers$",
    ),
    "handlers() that gives a dict": (
        "@hookimpl\ndef handlers(): return {}",
        r"handlers\(\) \(\S*bad_plugin\.py:2\) returned \{\}, not a list of handlers$",
    ),
    "handlers() that gives a number": (
        "@hookimpl\ndef handlers(): return 3",
        r"handlers\(\) \(\S*bad_plugin\.py:2\) returned 3, not a list of handlers$",
    ),
    "a function without @handler": (
        "@hookimpl\ndef handlers(): return [archive]\ndef archive(event): pass",
        r"handlers\(\) returned the function 'archive' \(\S*bad_plugin\.py:4\), which was not made by @handler$",
    ),
    "something else among the handlers": (
        "@hookimpl\ndef handlers(): return [None]",
        r"handlers\(\) returned None, which was not made by @handler$",
    ),
    "two handlers of one name": (
        """@hookimpl
def handlers(): return [a, b]
@handler(every=True, name='same')
def a(event): pass
@handler(every=True, name='same')
def b(event): pass""",
        r"two handlers have the name 'same': \S*bad_plugin\.py:4 and \S*bad_plugin\.py:6; give one of them name=$",
    ),
    "one handler twice": (
        "@hookimpl\ndef handlers(): return [a, a]\n@handler(every=True)\ndef a(event): pass",
        r"handlers\(\) returned 'a' \(\S*bad_plugin\.py:4\) twice$",
    ),
    "a handler that is async": (
        "@handler(every=True)\nasync def a(event): pass",
        r"handler 'a' \(\S*bad_plugin\.py:2\): `async def` and generators are not supported; write a plain function$",
    ),
    "a handler that listens to nothing": (
        "@handler()\ndef a(event): pass",
        r"handler 'a' \(\S*bad_plugin\.py:2\): it listens to nothing: give callback_class=, ",
    ),
    "a handler with versions that cannot be read": (
        "@handler(process_key='k', versions='3.x')\ndef a(event): pass",
        r"handler 'a' \(\S*bad_plugin\.py:2\): versions= cannot be read at '3\.x': ",
    ),
    "a retry that is out of range": (
        "@handler(process_key='k', retry=Retry(attempts=-1))\ndef a(event): pass",
        r"ValueError: attempts must be a whole number of 1 to 1000, not -1 \(\S*bad_plugin\.py:2\)$",
    ),
    "schemas() that gives no list": (
        "@hookimpl\ndef schemas(): return '/tmp'",
        r"schemas\(\) \(\S*bad_plugin\.py:2\) returned '/tmp', not a list of folders$",
    ),
    "schemas() without return": (
        "@hookimpl\ndef schemas(): pass",
        r"schemas\(\) \(\S*bad_plugin\.py:2\) returned None, not a list of folders$",
    ),
    "schemas() with a folder that is none": (
        "@hookimpl\ndef schemas(): return ['/no/such/folder']",
        r"schemas\(\) returned '/no/such/folder', which is not an existing folder$",
    ),
    "schemas() with something else": (
        "@hookimpl\ndef schemas(): return [3]",
        r"schemas\(\) returned 3, which is not a folder$",
    ),
}


@pytest.mark.parametrize(("source", "expected"), BROKEN.values(), ids=BROKEN)
def test_an_unusable_plugin_is_quarantined_alone(source, expected, site, good, attempt):
    """Each mistake is named with file and line, the other plugins are loaded, and the plugin's code is not called."""
    wrapper = "" if source in {"x = 1", "def handlers(): return []"} or "run_handler" in source else WRAPPER
    wrapper = "" if source.startswith("@handler") else wrapper
    site.install("bad", (PREFIX if "hookimpl" in source or "@handler" in source or wrapper else "") + source + wrapper)
    site.install("good", good)
    plugins = site.load()
    bad, fine = plugins.infos
    assert (bad.state, fine.state) == ("quarantined", "loaded")
    assert re.search(expected, bad.error)
    assert not bad.handlers
    assert list(plugins.handlers) == ["good:grant"]
    assert attempt(plugins, "good:grant").value == "granted"


def test_errors_of_flowhooks_checks_have_no_traceback(load):
    """Errors of flowhooks' own checks have no traceback, which would not help the author."""
    ours, theirs = load(
        a=SimpleNamespace(handlers=hookimpl(lambda: 3)), b=SimpleNamespace(handlers=hookimpl(divide))
    ).infos
    assert "returned 3" in ours.error
    assert ours.traceback == ""
    assert theirs.traceback.startswith("Traceback (most recent call last):\n  File")
    assert theirs.traceback.count("  File") == 1


def test_a_long_message_is_cut(load):
    """An exception's message is cut to one line of a listing; the traceback is complete."""

    def handlers():
        raise ValueError("x" * 100_000)

    (info,) = load(p=SimpleNamespace(handlers=hookimpl(handlers))).infos
    assert len(info.error) < 1000
    assert "x…" in info.error
    assert __file__ in info.error
    assert "x" * 100_000 in info.traceback


def test_a_generator_of_handlers_is_accepted(load):
    """`handlers` may be a generator."""

    @hookimpl
    def handlers():
        yield handler(every=True, name="one")(print_nothing)
        yield handler(every=True, name="two")(print_nothing)

    assert list(load(p=SimpleNamespace(handlers=handlers)).handlers) == ["p:one", "p:two"]


def test_handlers_of_several_implementations_are_joined(load):
    """Handlers of several functions of a plugin are joined; names are unique over all."""

    @hookimpl
    def handlers():
        return [handler(every=True, name="one")(print_nothing)]

    @hookimpl(specname="handlers")
    def more():
        return (handler(every=True, name="two")(print_nothing),)

    plugins = load(p=SimpleNamespace(handlers=handlers, more=more))
    assert set(plugins.handlers) == {"p:one", "p:two"}


def test_an_implementation_without_return_is_reported(load):
    """A function without `return` is reported even beside one with it."""

    @hookimpl
    def handlers():
        return []

    @hookimpl(specname="handlers")
    def more():
        pass

    (info,) = load(p=SimpleNamespace(handlers=handlers, more=more)).infos
    assert info.state == "quarantined"
    assert "returned None" in info.error


def test_a_handler_id_has_the_plugin_name(load):
    """The declaration does not change; the plugin's name is added to form the id."""
    declared = handler(process_key="k", retry=Retry(attempts=3), name="h")(print_nothing)
    plugin = SimpleNamespace(handlers=hookimpl(lambda: [declared]))
    loaded = load(contracts=plugin).handlers["contracts:h"]
    assert (loaded.plugin, loaded.name, loaded.retry, loaded.function) == (
        "contracts",
        "h",
        Retry(attempts=3),
        print_nothing,
    )
    assert declared.plugin == ""


def test_one_handler_may_belong_to_two_plugins(load):
    """A handler from a shared module is a handler of each plugin that returns it."""
    shared = handler(process_key="k", name="h")(print_nothing)
    plugins = load(
        a=SimpleNamespace(handlers=hookimpl(lambda: [shared])), b=SimpleNamespace(handlers=hookimpl(lambda: [shared]))
    )
    assert list(plugins.handlers) == ["a:h", "b:h"]


def test_a_hook_without_hookimpl_is_reported(load):
    """A function with the name of a hook, but without `@hookimpl`, is reported, because it is never called."""

    def handlers():
        raise AssertionError

    plugins = load(p=SimpleNamespace(handlers=handlers, configure=hookimpl(lambda settings: None)))
    (warning,) = plugins.warnings
    assert re.fullmatch(
        r"plugin 'p' has a function 'handlers' \(\S*test_registration\.py:\d+\) without @hookimpl: it is not called",
        warning,
    )


def test_an_unknown_optional_hook_is_accepted(load):
    """`optionalhook=True` marks a hook that need not exist, so a plugin can serve newer versions too."""
    plugin = SimpleNamespace(handlers=hookimpl(list_nothing), later=hookimpl(optionalhook=True)(lambda: None))
    (info,) = load(p=plugin).infos
    assert (info.state, info.hooks) == ("loaded", ("handlers",))


def test_a_plugin_may_be_an_object_with_methods(load, event, delivery):
    """An object's methods are hooks as well, even if the object cannot be hashed."""

    class Plugin:
        __hash__ = None

        def __init__(self):
            self.seen = []

        @hookimpl
        def handlers(self):
            return [handler(every=True)(self.work)]

        def work(self, event):
            self.seen.append(event)

        @hookimpl(wrapper=True)
        def run_handler(self, handler):
            self.seen.append(handler.id)
            return (yield)

    plugin = Plugin()
    plugins = load(p=plugin)
    plugins.run_handler(plugins.handlers["p:work"], event, delivery)
    assert plugin.seen == ["p:work", event]
    assert plugins.infos[0].hooks == ("handlers", "run_handler")


def test_every_hook_has_its_arguments():
    """The table of hooks equals the specification in its order."""
    assert list(HOOKS)[:3] == ["configure", "schemas", "handlers"]
    assert HOOKS["run_handler"] == ("handler", "event", "delivery")


def print_nothing(event: Event) -> None:
    """Return None."""


def divide():
    """Fail while returning handlers."""
    return [3 / 0]


def list_nothing() -> list[object]:
    """A plugin without handlers."""
    return []
