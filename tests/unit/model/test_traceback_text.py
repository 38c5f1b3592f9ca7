"""Tracebacks as text: the frames of flowhooks and pluggy are folded, and the chain of causes is found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowhooks.model import traceback_text
from flowhooks.model.traceback_text import CAUSE, CONTEXT, Frame, TracebackPart, frames, parse_chain

TEXT = """Traceback (most recent call last):
  File "/srv/contracts/sync.py", line 12, in post
    erp.send(order)
    ~~~~~~~~^^^^^^^
  File "/usr/lib/python3.12/site-packages/erp/client.py", line 3, in send
    raise Down
erp.Down: no answer
after 5 s

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/v/lib/site-packages/flowhooks/plugins/default_hooks.py", line 40, in run_handler
    return handler(event)
           ^^^^^^^^^^^^^^
  File "/v/lib/site-packages/pluggy/_callers.py", line 121, in _multicall
    res = hook_impl.function(*args)
  File "/srv/contracts/sync.py", line 14, in sync
    raise ValueError("no") from error
ValueError: no

During handling of the above exception, another exception occurred:

KeyError: 'x'"""


def test_chain_of_exceptions_and_folded_frames():
    """Each exception has its relation to the one before; only frames that passed on the call are folded."""
    first, second, third = parse_chain(TEXT)
    assert [exception.relation for exception in (first, second, third)] == ["", CAUSE, CONTEXT]
    assert [exception.error for exception in (first, second, third)] == [
        "erp.Down: no answer",
        "ValueError: no",
        "KeyError: 'x'",
    ]
    assert [(part.frames, part.folded) for part in first.parts] == [(2, "")]
    heading, folded, shown = second.parts
    assert heading == TracebackPart("Traceback (most recent call last):", 0, "")
    assert (folded.frames, folded.folded) == (2, "flowhooks & pluggy")
    assert shown.text.splitlines()[0] == '  File "/srv/contracts/sync.py", line 14, in sync'
    assert (shown.frames, shown.folded) == (1, "")
    assert third.parts == (TracebackPart("KeyError: 'x'", 0, ""),)
    assert "\n".join(part.text for part in second.parts) in TEXT


def test_flowhooks_frames_are_folded_in_any_folder():
    """The folder of this flowhooks counts as flowhooks; a folder of the same name that holds a plugin does not."""
    own = traceback_text.__file__
    text = f'  File "{own}", line 1, in parse\n  File "/home/ann/flowhooks/contracts.py", line 1, in sync\nE'
    ((_, error, parts),) = parse_chain(text)
    assert (error, [(part.frames, part.folded) for part in parts]) == ("E", [(1, "flowhooks"), (1, "")])
    assert list(frames(text)) == [Frame(own, "parse"), Frame("/home/ann/flowhooks/contracts.py", "sync")]


def test_an_empty_traceback_has_no_chain():
    """Without a traceback there is no chain."""
    assert parse_chain("") == parse_chain(" \n") == ()


@given(st.text(alphabet=st.sampled_from([*'File "x", line 1, in f\n :|+', "\ud800", "\0"]), max_size=400))
def test_any_traceback_text_is_shown_completely(text):
    """No text raises, and no visible line is lost."""
    shown = [line for exception in parse_chain(text) for part in exception.parts for line in part.text.splitlines()]
    assert [line for line in shown if line.strip()] == [line for line in text.splitlines() if line.strip()]
