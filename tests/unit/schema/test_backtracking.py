"""Regular expressions that could take exponential time are found; ordinary ones are not taken for such."""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks.schema.backtracking import exponential_repetition
from flowhooks.schema.ecma_regex import Pattern

# fmt: off
REFUSED = [
    r"^(a+)+$",
    r"(a|a)*",
    r"(a+)+",
    r"(?:x{2,3})+",
    r"((a)+)+",
    r"(a+){2,}",
    r"(a|b+)*",
    r"((a+))+",
    r"(a+){2}",
    r"^(x*)*$",
    r"(a*)*",
    r"([a-z]+-?)*",
    r"(a+|b)*",
    r"(a*b*)*",
    r"(a?b?)*",
    r"([a-z]+-[a-z]+)*",
    r"(.|\s)*",
    r"(\w|\d)+$",
    r"(\w+\s?)+$",
    r"(\s*\w+\s*)*",
    r"(a|ab|b)*",
    r"(a|aa)+$",
    r"(.*,)*x",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r"(a{1,3}){1,30}",
    r"(\d+,?){3}",
    r"(?=(a+)+$)x",
    r"(?!(a+)+$)x",
    r"((ab)+|a|b)*",
    r"([^,]*,?)*",
    r"(\d+|[0-9a-f]+)*",
    r"^(\d+)*$",
    r"^([a-zA-Z0-9])(([\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}(([a-z]{2,3})|([a-z]{2,3}[.]{1}[a-z]{2,3}))$",
    r"(a+)*?b",
    r"(?i:(a|A))*",
    r"(\u00e9|[\u00e0-\u00ff])*x",
    r"^(?:\141+)+$",
    r"^(?:\141|a)+$",
    r"^(?:a{,}b?)+$",
    r"^(?i-s:(?:ax?|Ax?)+)$",
    r"^(?i:(?-s:(?:ax?|Ax?)+))$",
    r"^(?u:(?:ax?|[a-c]x?)+)$",
    r"^(?iu:(?:s|\u017f)+)$",
    r"^(?u:(\w|[^\x00-\u02ff])*)$",
    r"^(?u:(\s|[^\x00-\u02ff])*)$",
    r"^(?u:(\d|[^\x00-\u02ff])*)$",
    r"^(?u:(?:\w|\u4e00)+)$",
    r"^([a-z0-9-]{1,63}\.?){1,9}$",
    r"^([0-9]{1,9}-?){1,9}$",
    r"^(?:(?:a?){9}){9}$",
    r"^(a?){20}$",
    r"^(?:|){20}x",
    r"^(?:(?:(?:|){9}){1,3}){1,9}$",
    r"^((a?){2}b)*$",
    r"^(?:(?:a?)*b)*$",
    r"^(?:(?:a?)?b)*$",
    r"^(?:(?:|)a?b)*$",
    r"^(\w+,(\s*)?)*$",
    r"^(?:(?:){0,4000000000}a?b)+$",
    r"^(?:(?:(?:|){1,4000000000}|x{0}){,4000000000}a?b)+$",
    r"^(?:(?:a+)+b[0-9]{500})*$",
    r"^(?:(?:a|a){2}b[0-9]{500})*$",
]
ACCEPTED = [
    r"^[a-z]+(-[a-z]+)*$",
    r"^(\d{1,3}\.){3}\d{1,3}$",
    r"(a*b)*",
    r"(a+(b))+",
    r"a+b+",
    r"(?#\xzz \u \U)(?:ab?)+",
    r"^(?:a{,}b)+$",
    r"^(?:\141+b)+$",
    r"^[\\N]+$",
    r"^(?i:(?-i:(?:ax?|Ax?)+))$",
    r"^(?u:(?a:(?:\w|\u4e00)+))$",
    r"(ab)+",
    r"[+*]+",
    r"[(a+)+]",
    r"((a)+)",
    r"\(a+\)+",
    r"(a+)?",
    r"(a?)*",
    r"(a+){1}",
    r"(a+){0}",
    r"(a+){0,1}",
    r"(a+)b+",
    r"^HT-[0-9]{4}-[0-9]+$",
    r"^(\S(.*\S)?)?$",
    r"^[A-Za-z0-9._:~-]{1,128}$",
    r"(.|\n)*",
    r"(\s|\S)*",
    r"^(([a-z]+)\.)+[a-z]{2,}$",
    r"^([a-zA-Z0-9_.+-]+)@([a-zA-Z0-9-]+\.)+[a-zA-Z0-9.-]+$",
    r"^[A-Z]{2}\d{2}(\s?[A-Z0-9]{4}){2,7}\s?[A-Z0-9]{1,3}$",
    r"^([0-9a-f]{32},?)*$",
    r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    r"^([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}$",
    r"^(/[^/~]*(~[01][^/~]*)*)*$",
    r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$",
    r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$",
    r"^[^\s,]+(,\s*[^\s,]+)*$",
    r"^(\w+\b)+$",
    r"^(foo|bar|baz)(,(foo|bar|baz))*$",
    r"^[\u4e00-\u9fff]+([·•][\u4e00-\u9fff]+)*$",
    r"^(\+\d{1,3}[- ]?)?(\d{2,4}[- ]?){2,4}\d{2,4}$",
    r'^"([^"\\]|\\.)*"$',
    r"^#([0-9a-f]{3}){1,2}$",
    r"^P(?!$)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?$",
    r"^[a-z][a-z0-9]*(?:[A-Z][a-z0-9]*)*$",
    r"^(?:[a-zA-Z_$][\w$]*\.)*[a-zA-Z_$][\w$]*$",
    r"^\$?(\d{1,3}(,\d{3})*|\d+)(\.\d{2})?$",
    r"(a{1,3}){2,5}",
    r"^([a-z0-9-]{1,63}\.){1,9}$",
    r"^([a-z]{1,9}(-[0-9]{1,9}){1,9}/){1,9}$",
    r"^(a?){9}$",
    r"^(a?){2,}$",
    r"^(?:(?:a?){1}b)*$",
    r"^(?:[a-z]+[0-9]{500})*$",
    r"^(a+)?[+]a\++[?+]+$",
    r"^([01]?\d|2[0-3])(:[0-5]\d){1,2}$",
    (
        r"^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(?:\.[a-zA-"
        r"Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$"
    ),
    (
        r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:"
        r"\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$"
    ),
]
# fmt: on


@pytest.mark.parametrize("expression", REFUSED)
def test_exponential_expressions_are_rejected(expression):
    """The repetition that can match one text in several ways is named."""
    re.compile(expression)
    repetition = exponential_repetition(expression)
    assert repetition is not None
    assert repetition in expression


def texts(expression):
    """Texts on which the match of an ambiguous expression would never end."""
    characters = {*"a0-. ", *re.findall(r"[^\\\w\[\](){}?*+|^$]|\w", expression)}
    pieces = [*characters, *map("".join, product(sorted(characters)[:12], repeat=2))]
    return [piece * 40 + "\0" for piece in pieces]


@pytest.mark.parametrize("expression", ACCEPTED)
def test_ordinary_expressions_are_accepted(expression):
    """The expression is accepted, and each match comes to an end."""
    assert exponential_repetition(expression) is None
    pattern = re.compile(Pattern(expression, "/pattern"))
    assert [pattern.search(text) for text in texts(expression)]


@pytest.mark.parametrize(
    ("expression", "repetition"),
    [
        (r"^x(-(a+)+)?$", "(a+)+"),
        (r"^((a+)+){1}$", "(a+)+"),
        (r"^((a+)+b)*$", "((a+)+b)*"),
        (r"^((a+)+b[0-9]{500})*$", "(a+)+"),
        (r"^a+(?=(b|b)*c)", "(b|b)*"),
        (r"^[(a+)+]*((a|a)+?)$", "(a|a)+?"),
    ],
)
def test_the_outermost_repetition_is_named(expression, repetition):
    """It is the part of the expression that must be written differently."""
    assert exponential_repetition(expression) == repetition


@pytest.mark.parametrize(
    "expression",
    [
        "^(" + "|".join(f"word{number}" for number in range(3000)) + ")*$",
        "^([a-z]{0,4000}-[a-z]{0,4000})*$",
        "^([a-z]{9000}x?)*$",
        "^" + "(" * 90 + "a" + "b?)*" * 90,
    ],
)
def test_large_expressions(expression):
    """The check of a large expression comes to an end, with or without a result."""
    re.compile(expression)
    assert exponential_repetition(expression) is None or expression


@pytest.mark.parametrize(
    "repetition",
    [
        "(?:){1000000000}",
        "(?=a){1000000000}",
        "(){4000000000}",
        "(?:a?){1000000000}",
        r"(?:\b|b){1000000000}",
        "(?:(?:a*){200}){200}",
        "(?:(?:a{0}|(?:){500,}){500,}){1000000000}",
    ],
)
def test_long_counts_of_empty_parts_are_rejected(repetition):
    """A long count is refused if its part can be empty: the match would make all of these rounds, even without text."""
    for expression in (f"^{repetition}$", f"(?:{repetition}a?b)+", f"(?!{repetition})"):
        re.compile(expression)
        found = exponential_repetition(expression)
        assert found is not None
        assert found in repetition


@pytest.mark.parametrize("part", ["(){9}", "(?:x{0}){9}", "(?:){0}"])
def test_other_counts_of_empty_parts_are_accepted(part):
    """Other repetitions of an empty part are accepted: they are empty in one way only."""
    expression = f"^(?:{part}a?b)+$"
    assert exponential_repetition(expression) is None
    assert re.search(expression, "ab" * 40 + "a") is None
    assert exponential_repetition(f"(?:{part}a?)+b?") == exponential_repetition("(?:a?)+b?")
    assert exponential_repetition(f"(?:{part}(?:a|a))+") is not None


@pytest.mark.parametrize("expression", ["^(?:){0,4000000000}$", "^(?:(?:|){1,4000000000}|x{0}){,4000000000}$", "^()*$"])
def test_optional_counts_of_empty_parts_are_accepted(expression):
    """Such a repetition alone is accepted, because `re` makes at most one round that is not required and empty."""
    assert exponential_repetition(expression) is None
    assert re.search(expression, "a" * 40) is None


def test_long_counts_are_checked_like_unlimited_repetitions():
    """A repetition that is too large to be written out is still found."""
    assert exponential_repetition("^([a-z]{1,9000}-?)*$") == "([a-z]{1,9000}-?)*"
    assert exponential_repetition("^([a-z]{1,9000}-)*$") is None


@given(st.text(alphabet="ab()[]{}*+?\\|,0123^$.-P<>=!:#&~", max_size=20))
def test_the_check_gives_a_result_for_any_text(expression):
    """It answers for any text, whether the text is a regular expression or not, or refuses its syntax."""
    with suppress(ValueError):
        repetition = exponential_repetition(expression)
        assert repetition is None or repetition in expression
