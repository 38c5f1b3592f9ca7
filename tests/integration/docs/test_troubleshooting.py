"""Troubleshooting: flowhooks prints each symptom of the pages, and both languages have the same symptoms."""

# ruff: noqa: RUF001, RUF002 (Chinese has punctuation marks of its own)

from __future__ import annotations

import ast
import re
from typing import NamedTuple

import pytest

from flowhooks.messages import MESSAGES
from flowhooks.model.alert import AlertCause
from flowhooks.web.admin.console.texts import TEXTS
from flowhooks.web.admin.console.translation import _REASONS, CHINESE_MESSAGES
from support.code_blocks import DOCS, FENCE, PLUGINS, ROOT, name_of

ENGLISH, CHINESE = (DOCS / f"how-to/troubleshooting{language}.md" for language in ("", ".zh-CN"))
GAP = "…"
"""Stands for a value that varies: on the pages, and in a source for each placeholder."""
LOG_EVENT = re.compile(r"[a-z]+(?:_[a-z]+)+")
ALERT_TEXTS = ROOT / "flowhooks/background/alerts"
CHINESE_NOTICES = PLUGINS / "flowhooks-notice/src/flowhooks_notice/message.py"
HELP = {"help", "short_help", "doc"}
"""Arguments whose texts describe an option, a command or a setting."""
MIN_SYMPTOMS = 30
MIN_ALERTS = 7


# The texts that flowhooks prints


def fill(text):
    """Replace the placeholders of a text for `str.format` by gaps."""
    return re.sub(
        r"\{\{|\}\}|\{\w+(?:[:!][^{}]*)?\}", lambda match: match[0][0] if match[0] in {"{{", "}}"} else GAP, text
    )


def text_of(node):
    """Return the text of a string literal with a gap for each placeholder; None for another node."""
    match node:
        case ast.Constant(value=str(text)):
            return fill(text)
        case ast.JoinedStr(values=values):
            return "".join(part.value if isinstance(part, ast.Constant) else GAP for part in values)
    return None


def parse(file):
    return ast.parse(file.read_text("utf-8"), str(file))


def literals(file):
    """Yield the text of each string literal of a module that can be in a message: no docstrings and no help texts."""
    tree = parse(file)
    skipped = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    skipped |= {node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg in HELP}
    skipped |= {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if node not in skipped and (text := text_of(node)):
            yield text


def message_templates():
    """Yield the English text of each message of an alert in the source."""
    for file in sorted(ALERT_TEXTS.glob("*.py")):
        for node in ast.walk(parse(file)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "MessageTemplate":
                yield text_of(node.args[0])


def chinese_notices():
    """Return the Chinese text of a message of flowhooks-notice by the cause of its alert."""
    found = {}
    for node in ast.walk(parse(CHINESE_NOTICES)):
        if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
            texts = {key.value: text_of(value) for key, value in zip(node.keys, node.values, strict=True)}
            if set(texts) == set(AlertCause) and all(texts.values()):
                found |= texts
    return found


def chinese_reasons():
    """Yield each reason and hint of the router in English and Chinese, with gaps."""
    for pattern, chinese in _REASONS:
        yield re.sub(r"\([^()]*\)", GAP, pattern.pattern), re.sub(r"\\\d", GAP, chinese)


class Printed(NamedTuple):
    """The texts that flowhooks prints.

    Attributes:
        texts: the text of every string literal of the package.
        chinese: the Chinese texts by the English text that they translate.
        log_events: the names of the log events.
    """

    texts: frozenset[str]
    chinese: dict[str, set[str]]
    log_events: frozenset[str]


@pytest.fixture(scope="module")
def printed():
    modules = [file for file in (ROOT / "flowhooks").rglob("*.py") if file.name != "openapi.py"]  # describes messages
    texts = frozenset(text for file in modules for text in literals(file))
    chinese = {}
    for translated in (*MESSAGES.values(), *TEXTS.values()):
        chinese.setdefault(fill(translated["en"]), set()).add(fill(translated["zh"]))
    alerts = ((fill(english.text), fill(translated)) for english, translated in CHINESE_MESSAGES.items())
    for english, translated in (*alerts, *chinese_reasons()):
        chinese.setdefault(english, set()).add(translated)
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "reference/logs.md").read_text("utf-8"), re.MULTILINE)
    return Printed(texts, chinese, frozenset(rows))


def sources(symptom, texts):
    """Return the texts that contain a symptom."""
    return {text for text in texts if symptom in text}


def nearest(symptom, texts):
    """Return the text that shares most words with a symptom; a word counts the less, the more texts have it."""
    words = set(symptom.split())
    having = [words & set(text.split()) for text in sorted(texts)]
    weights = {word: 1 / (1 + sum(word in shared for shared in having)) for word in words}
    return max(zip(having, sorted(texts), strict=True), key=lambda pair: sum(weights[word] for word in pair[0]))[1]


# The entries of the pages


class Entry(NamedTuple):
    """A symptom and its text on a page.

    Attributes:
        group: the heading of its group.
        symptom: the text of its heading.
        english: the symptom in English; on the Chinese page, the text after `英文：` if there is one.
        body: the text below the heading.
    """

    group: str
    symptom: str
    english: str
    body: str


def entries(page):
    """Yield the symptoms of a page in order."""
    for group in re.split(r"^## ", FENCE.sub("", page.read_text("utf-8")), flags=re.MULTILINE)[1:]:
        title, *parts = re.split(r"^### ", group, flags=re.MULTILINE)
        for part in parts:
            heading, _, body = part.partition("\n")
            symptom = re.fullmatch(r"`([^`]+)`", heading)
            assert symptom, f"{name_of(page)}: the heading {heading!r} is not a symptom in code marks"
            english = re.match(r"\n英文：`([^`]+)`\n", body)
            yield Entry(title.partition("\n")[0], symptom[1], english[1] if english else symptom[1], body)


ENGLISH_ENTRIES, CHINESE_ENTRIES = list(entries(ENGLISH)), list(entries(CHINESE))


def test_each_symptom_is_printed(printed):
    """Each heading is a part of a message in the package, or the name of a log event."""
    stale = []
    for symptom in (entry.symptom for entry in ENGLISH_ENTRIES):
        if LOG_EVENT.fullmatch(symptom):
            if symptom not in printed.texts & printed.log_events:
                stale.append(f"{symptom}: flowhooks logs no event of this name")
        elif not sources(symptom, printed.texts):
            stale.append(f"{symptom}: no message contains it; the nearest is {nearest(symptom, printed.texts)!r}")
    if stale:
        advice = (
            f"Renew these headings in {name_of(ENGLISH)} and {name_of(CHINESE)} with a constant part of the message"
        )
        pytest.fail("\n".join([f"{advice} ({GAP} for a value), or delete them:", *stale]), pytrace=False)


def test_both_languages_have_the_same_symptoms():
    """The Chinese page has the symptoms of the English page, in the same order and in groups of the same sizes."""
    assert [entry.english for entry in CHINESE_ENTRIES] == [entry.symptom for entry in ENGLISH_ENTRIES]
    groups = [[entry.group for entry in page] for page in (ENGLISH_ENTRIES, CHINESE_ENTRIES)]
    numbers = [[list(dict.fromkeys(page)).index(group) for group in page] for page in groups]
    assert numbers[0] == numbers[1]


def test_the_chinese_page_has_the_chinese_messages(printed):
    """If a message exists in Chinese, its heading is a part of that; otherwise it is the English symptom."""
    wrong = []
    for entry in CHINESE_ENTRIES:
        texts = set().union(*(printed.chinese[text] for text in sources(entry.english, printed.chinese)))
        if texts and not (entry.symptom != entry.english and sources(entry.symptom, texts)):
            wrong.append(f"{entry.symptom}: in Chinese flowhooks prints {sorted(texts)} for {entry.english!r}")
        elif not texts and entry.symptom != entry.english:
            wrong.append(f"{entry.symptom}: {entry.english!r} has no Chinese message, so it must be the heading")
    if wrong:
        pytest.fail("\n".join([f"Renew these headings in {name_of(CHINESE)}:", *wrong]), pytrace=False)


def test_the_messages_of_the_notice_plugin_have_the_headings():
    """A Chinese heading that is a part of an alert's message is also a part of a message of flowhooks-notice."""
    messages = {fill(text) for text in CHINESE_MESSAGES.values()}
    headings = [entry.symptom for entry in CHINESE_ENTRIES if sources(entry.symptom, messages)]
    assert len(headings) >= MIN_ALERTS
    assert [heading for heading in headings if not sources(heading, chinese_notices().values())] == []


@pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=name_of)
def test_each_symptom_is_explained(page):
    """A page has many symptoms, each once, and each with an explanation and a link."""
    found = list(entries(page))
    symptoms = [entry.symptom for entry in found]
    assert len(symptoms) >= MIN_SYMPTOMS
    assert len(set(symptoms)) == len(symptoms)
    for entry in found:
        body = re.sub(r"\A\n英文：`[^`]+`\n", "", entry.body)
        assert re.match(r"\n[^\s#]", body), f"{name_of(page)}: {entry.symptom!r} has no explanation"
        assert re.search(r"\]\([^)]+\)", body), f"{name_of(page)}: {entry.symptom!r} has no link"


def test_both_pages_have_the_same_commands():
    """The text in code marks and the fenced code below each symptom is the same in both languages."""
    assert FENCE.findall(ENGLISH.read_text("utf-8")) == FENCE.findall(CHINESE.read_text("utf-8"))
    for english, chinese in zip(ENGLISH_ENTRIES, CHINESE_ENTRIES, strict=True):
        code = [
            {" ".join(command.split()) for command in re.findall(r"`(flowhooks [^`]+)`", entry.body)}
            for entry in (english, chinese)
        ]
        assert code[0] == code[1], english.symptom


# The tests themselves find faults


def test_literals_have_gaps_and_no_docstrings(tmp_path):
    """Values become gaps, adjacent literals are one, and docstrings and comments are left out."""
    file = tmp_path / "module.py"
    file.write_text(
        '"""Docs {a}."""\nx = 1  # comment\ny = f"no {x!r} in " f"{x}"\nf(help="h")\nz = "a {{b}} {c:,}" "d"\n', "utf-8"
    )
    assert set(literals(file)) == {"no … in …", "a {b} …d"}


def test_each_alert_has_both_texts(printed):
    """Every message of an alert is printed and has a Chinese text, and flowhooks-notice has a text for each cause."""
    messages = set(message_templates())
    assert messages == {fill(english.text) for english in CHINESE_MESSAGES}
    assert messages <= printed.texts
    assert set(chinese_notices()) == set(AlertCause)


def test_each_reason_is_in_both_texts(printed):
    """The gaps of the patterns are the values of the reasons, so that a heading can be a part of both."""
    assert {"conclusion … is not one of …", "version … is not …"} <= set(printed.chinese)
    for pair in chinese_reasons():
        assert all(GAP in text and "\\" not in text for text in pair), pair
