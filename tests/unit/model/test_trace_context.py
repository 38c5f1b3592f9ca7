"""The traceparent of W3C Trace Context."""

import pytest

from flowhooks.model.trace_context import parse_traceparent

VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_valid_traceparent():
    """A valid one is returned; further fields of a later version are left out."""
    assert parse_traceparent(VALID) == VALID
    assert parse_traceparent(f"cc{VALID[2:]}-what-the-future-brings") == f"cc{VALID[2:]}"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "x",
        VALID[:-1],
        f"{VALID}-more",
        f"{VALID}x",
        f"cc{VALID[2:]}.more",
        f"ff{VALID[2:]}",
        VALID.upper(),
        f"{VALID},{VALID}",
        f" {VALID}",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
    ],
)
def test_invalid_traceparent(text):
    """An invalid one is treated as missing."""
    assert parse_traceparent(text) is None
