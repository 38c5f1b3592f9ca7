"""Each term has one meaning in English and in Chinese: in the glossary, the console and the pages."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import re

import pytest

from flowhooks.web.admin.console.texts import TEXTS
from support import prose
from support.code_blocks import DOCS, PAGES

HEADINGS = ("term", "chinese", "meaning")


def cells(row):
    return [cell.strip().replace("`", "") for cell in re.split(r"(?<!\\)\|", row.strip().strip("|"))]


def glossary_rows():
    """The rows of the glossary's table: term, Chinese term, meaning; a row with two forms of a term gives two."""
    lines = [line for line in (DOCS / "glossary.md").read_text("utf-8").splitlines() if line.startswith("|")]
    headings = [heading.casefold() for heading in cells(lines[0])]
    columns = [headings.index(heading) for heading in HEADINGS]
    for line in lines[2:]:
        terms, chinese, meaning = (cells(line)[column] for column in columns)
        for term, word in zip(terms.split(", "), chinese.split("，"), strict=True):
            yield term, word, meaning


ROWS = list(glossary_rows())
CHINESE = {term.casefold(): chinese for term, chinese, _ in ROWS}
STATES = {key.removeprefix("state."): labels for key, labels in TEXTS.items() if key.startswith("state.")}
STATES_TO_LOOK_UP = ("circuit_open", "dead", "dismissed", "lost", "overdue", "parked", "paused", "retired", "unknown")
"""States of deliveries, events, attempts and handlers that a reader of the console may have to look up."""

OTHER_MEANINGS = {
    "live.pause": "pauses the refreshing of a page, not a handler",
    "alerts.over": "an alert whose cause has gone, not a delivery",
    "nav.rejected_requests": "short for rejected requests, not an outcome",
}
"""Texts of the console that look like a term and are none, with the reason."""


def repeated(words):
    return sorted({word for word in words if words.count(word) > 1})


def test_each_term_has_one_row_and_one_chinese_term_of_its_own():
    assert len(ROWS) > 30
    assert not repeated([term.casefold() for term, _, _ in ROWS])
    assert not repeated([chinese for _, chinese, _ in ROWS])
    for term, chinese, meaning in ROWS:
        assert re.fullmatch(rf"(?:[A-Za-z]+ )?{prose.CJK}+", chinese), f"{term}: {chinese!r} is not one Chinese term"
        assert meaning, term


@pytest.mark.parametrize("state", STATES_TO_LOOK_UP)
def test_the_label_of_a_state_is_a_term(state):
    labels = STATES[state]
    assert labels["zh"] == CHINESE[labels["en"].casefold()]


def test_a_text_of_the_console_that_is_a_term_has_its_chinese_term():
    wrong = {}
    for key, labels in TEXTS.items():
        if key in OTHER_MEANINGS or key.startswith("audit.did."):  # the latter are actions of operators, in phrases
            continue
        english = labels["en"].casefold().removesuffix(":")
        expected = CHINESE.get(english) or CHINESE.get(english.removesuffix("s"))
        if expected and labels["zh"].removesuffix("：") != expected:
            wrong[key] = (labels["en"], labels["zh"], expected)
    assert not wrong


def test_old_terms_are_nowhere_in_the_pages_and_the_console():
    old = {rule.write for rule in prose.TERMS}
    catalogue = prose.ROOT / "flowhooks/web/admin/console/texts.py"
    found = [str(finding) for finding in prose.check([*PAGES, catalogue]) if finding.write in old]
    assert found == []
