"""The inputs for conditions on indexed fields: what is entered, and what an address fills in."""

from __future__ import annotations

from urllib.parse import urlencode

import falcon
import falcon.testing
import pytest

from flowhooks.web.admin.console.field_inputs import FieldInput, conditions_from_inputs, field_inputs


def entered(**values):
    """The conditions that a form with these values states."""
    query = urlencode([(f"field:/{name}", value) for name, value in values.items()])
    request = falcon.Request(falcon.testing.create_environ(query_string=query))
    return list(conditions_from_inputs(request))


@pytest.mark.parametrize(
    ("text", "conditions"),
    [
        ("ACME", ["/a=ACME"]),
        ("  ACME Ltd ", ["/a=ACME Ltd"]),
        ("1000", ["/a=1000"]),
        (">=1000", ["/a>=1000"]),
        ("<= 99.5", ["/a<=99.5"]),
        (">=1000 <=2000", ["/a>=1000", "/a<=2000"]),
        ("<=2000  >= 1000", ["/a<=2000", "/a>=1000"]),
        ("=>=1", ["/a=>=1"]),
        (">=1000 and more", ["/a>=1000 and more"]),
        (" ", []),
    ],
)
def test_conditions_from_entered_text(text, conditions):
    """A text is the value itself, unless it starts with an operator; two limits are a range."""
    assert entered(a=text) == conditions


def test_other_parameters_are_no_inputs():
    """Only names with the prefix are inputs."""
    request = falcon.Request(falcon.testing.create_environ(query_string="field=/a%3D1&fields:/a=1&q=x"))
    assert list(conditions_from_inputs(request)) == []


@pytest.mark.parametrize(
    ("lines", "values"),
    [
        ("", [("/a", ""), ("/b", "")]),
        ("/a=ACME", [("/a", "ACME"), ("/b", "")]),
        ("/b>=1\n/b<=2", [("/a", ""), ("/b", ">=1 <=2")]),
        ("/a=x\n/a=y\n/b>=1", [("/a", "x"), ("/a", "y"), ("/b", ">=1")]),
        ("/a=>=1", [("/a", "=>=1"), ("/b", "")]),
        ("/a>=abc", [("/a", ">=abc"), ("/b", "")]),
        ("/other=1\nnonsense", [("/a", ""), ("/b", "")]),
    ],
)
def test_inputs_are_filled_in_from_the_url(lines, values):
    """Each indexed field has an input with its condition; entering it again means the same conditions."""
    inputs = field_inputs(lines, ("/a", "/b"))
    assert inputs == [FieldInput(f"field:{pointer}", pointer, value) for pointer, value in values]
    again = urlencode([(item.name, item.value) for item in inputs])
    request = falcon.Request(falcon.testing.create_environ(query_string=again))
    known = [line for line in lines.split("\n") if line.startswith(("/a", "/b"))]
    assert sorted(conditions_from_inputs(request)) == sorted(known)
