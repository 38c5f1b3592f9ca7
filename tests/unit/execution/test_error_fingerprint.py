"""The fingerprint of an error: the same in a thread, in a process and in another version of the plugin."""

from __future__ import annotations

import importlib.util
import json
import sys
from types import SimpleNamespace

import pytest

from flowhooks import OutcomeKind, handler
from flowhooks.errors import HandlerLost, HandlerProcessUnavailable
from flowhooks.execution.error_fingerprint import identify_error
from flowhooks.execution.isolation import protocol
from flowhooks.execution.outcomes import OutcomeBuilder
from flowhooks.model.error_group import ErrorIdentity

BUILDER = OutcomeBuilder(SimpleNamespace(redact=str, responsible_plugin=lambda _error: None))
CODE = """
from flowhooks import Reject, RetryAfter

class Refused(Exception):
    pass

def post(order):
    raise Refused(f"ERP refused order {order!r} with {len(order)}")

def plain(event):
    post(event)

def chained(event):
    try:
        post(event)
    except Refused as error:
        raise ValueError("no amount") from error

def rejects(event):
    raise Reject(f"contract {event!r} has no amount")

def later(event):
    raise RetryAfter(5, "busy: try again")

def later_from(event):
    try:
        post(event)
    except Refused as error:
        raise RetryAfter(5, "busy: try again") from error

def silent(event):
    raise Refused

def elsewhere(event):
    import json
    json.loads("{")

def deep(event):
    deep(event)

def grouped(event):
    raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])
"""
NAMES = [
    "plain", "chained", "rejects", "later", "later_from", "silent", "elsewhere", "deep", "grouped",
]  # fmt: skip


@pytest.fixture
def load(tmp_path):
    """A function that loads the code as the module of a package in a folder."""
    loaded = []

    def module(folder, code=CODE, name="contracts.erp.sync"):
        file = tmp_path / folder / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
        spec = importlib.util.spec_from_file_location(name, file)
        made = importlib.util.module_from_spec(spec)
        loaded.append(name)
        sys.modules[name] = made
        spec.loader.exec_module(made)
        return made

    yield module
    for name in loaded:
        sys.modules.pop(name, None)


def raised(function, argument):
    """The exception that a function raises."""
    try:
        function(argument)
    except BaseException as error:  # noqa: BLE001 (any)
        return error
    raise AssertionError


def identity(module, name, error):
    """The identity of an exception of a handler of this module."""
    outcome = BUILDER.raised(error, entered=True)
    texts = BUILDER.stored_texts(outcome)
    made = handler(process_key="leave", name=name)(getattr(module, name))
    return identify_error(made, outcome.kind, *texts)


@pytest.mark.parametrize("name", NAMES)
def test_errors_of_a_thread_and_a_process_have_one_fingerprint(load, name):
    """The texts that a handler's own process sends give the fingerprint of a thread; values do not matter."""
    module = load("one")
    error = raised(getattr(module, name), "A1")
    sent = json.loads(json.dumps(protocol.from_error(raised(getattr(module, name), "B77"), str)))
    assert identity(module, name, error) == identity(module, name, protocol.to_error(sent))


@pytest.mark.parametrize("name", NAMES)
def test_plugin_version_and_folder_do_not_change_the_fingerprint(load, name):
    """Line numbers and the folder of the plugin are no part of the fingerprint."""
    old = load("one/lib")
    first = identity(old, name, raised(getattr(old, name), "A1"))
    new = load("two/other/lib", "# a new version\n\n" + CODE.replace("def rejects", "\n\ndef rejects"))
    assert identity(new, name, raised(getattr(new, name), "B77")) == first


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", ErrorIdentity("", "Refused", "ERP refused order # with #", "contracts/erp/sync.py:post")),
        ("chained", ErrorIdentity("", "ValueError", "no amount", "contracts/erp/sync.py:chained")),
        ("rejects", ErrorIdentity("", "Reject", "contract # has no amount")),
        ("later", ErrorIdentity("", "RetryAfter", "busy: try again", "contracts/erp/sync.py:later")),
        ("later_from", ErrorIdentity("", "RetryAfter", "busy: try again", "contracts/erp/sync.py:later_from")),
        ("silent", ErrorIdentity("", "Refused", "", "contracts/erp/sync.py:silent")),
    ],
)
def test_parts_that_identify_an_error(load, name, expected):
    """Type, message without values, and the plugin's innermost frame relative to its package."""
    module = load("one")
    assert identity(module, name, raised(getattr(module, name), "A1"))._replace(handler="") == expected


def test_a_long_line_of_bars_takes_no_long_time(load):
    """A traceback may contain any text, such as a table of a library: each line is read once."""
    made = handler(process_key="leave", name="plain")(load("one").plain)
    traceback = f"{'|' * 200_000}\nrows.Refused: x\n"
    assert identify_error(made, OutcomeKind.FAILED, "Refused: x", traceback).error_type == "Refused"


def test_a_library_error_is_identified_by_the_frame_of_the_plugin(load):
    """The innermost frame of the plugin identifies an error that a library raised."""
    module = load("one")
    assert identity(module, "elsewhere", raised(module.elsewhere, "A1")).frame == "contracts/erp/sync.py:elsewhere"


@pytest.mark.parametrize(
    ("name", "frame"),
    [("contracts", "contracts.py:post"), ("flowhooks-file:contracts", "flowhooks-file:contracts.py:post")],
)
def test_a_plugin_of_one_file(load, name, frame):
    """The frame of a plugin of one file has the file's name, and its exceptions have their type."""
    module = load("one", name=name)
    found = identity(module, "plain", raised(module.plain, "A1"))
    assert found._replace(handler="") == ErrorIdentity("", "Refused", "ERP refused order # with #", frame)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (HandlerLost("killed after 30 s because it was overdue", 'File "x.py", line 3 in f'),
         ErrorIdentity("", "Lost", "killed after # s because it was overdue")),
        (HandlerLost("killed by SIGSEGV"), ErrorIdentity("", "Lost", "killed by SIGSEGV")),
        (HandlerProcessUnavailable("no process could be started"),
         ErrorIdentity("", "Failed", "no process could be started")),
    ],
)  # fmt: skip
def test_attempts_that_end_without_an_exception(load, error, expected):
    """A timeout, a crash and a process that could not start have a type of their own, and no frame."""
    module = load("one")
    outcome = BUILDER.raised(error, entered=not isinstance(error, HandlerProcessUnavailable))
    made = handler(process_key="leave", name="h")(module.plain)
    found = identify_error(made, outcome.kind, *BUILDER.stored_texts(outcome))
    assert found._replace(handler="") == expected


@pytest.mark.parametrize("traceback", ["", "x", 'File "', '  File "a", line 1, in f\n' * 2_000, "\ud800" * 9])
@pytest.mark.parametrize("error", ["", ":", "a: b", "(: x", "\ud800"])
def test_fingerprint_of_any_text(load, traceback, error):
    """Texts of wrappers and damaged processes have a fingerprint, too."""
    made = handler(process_key="leave", name="h")(load("one").plain)
    for kind in (OutcomeKind.FAILED, OutcomeKind.LOST, OutcomeKind.REJECTED):
        assert len(identify_error(made, kind, error, traceback).fingerprint) == 64
