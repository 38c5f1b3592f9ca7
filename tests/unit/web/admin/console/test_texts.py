"""The console's texts: each is in both languages and used, and no page has other texts."""

from __future__ import annotations

import re
import string
from dataclasses import fields
from pathlib import Path

import pytest

from flowhooks.ledger.queries import STATES
from flowhooks.messages import LANGUAGES
from flowhooks.model.alert import AlertCause
from flowhooks.model.bulk_operation import ITEM_CHOICES, OperationState
from flowhooks.model.delivery import OutcomeKind, Trigger
from flowhooks.model.event import DismissedBy, ParkedBy
from flowhooks.operations.event_export import ExportFormat
from flowhooks.settings import RetentionSettings
from flowhooks.web.admin.console import app, engines
from flowhooks.web.admin.console.actions import ACTIONS
from flowhooks.web.admin.console.audit import NAMED_ACTIONS
from flowhooks.web.admin.console.audit_details import NAMED_FIELDS, WORDS
from flowhooks.web.admin.console.events import RECENT_PERIODS
from flowhooks.web.admin.console.overview import TILES
from flowhooks.web.admin.console.texts import TEXTS, text
from flowhooks.web.admin.console.trend import PRESETS

HERE = Path(app.__file__).parent
TEMPLATES = sorted((HERE / "templates").glob("*.html"))
SAID = re.compile(r"""\bt\("([a-z_.]+)"( ~ [a-z.]+)?((?:, \w+=)?)""")
MADE = {
    "state": {
        *STATES,
        *OutcomeKind,
        *AlertCause,
        *TILES,
        *(
            "any",
            "loaded",
            "quarantined",
            "denied",
            "missing",
            "elsewhere",
            "retired",
            "paused",
            "circuit_open",
            "damaged",
            "purged",
        ),
    },
    "tile": set(TILES),
    "errors.relation": {"cause", "context"},
    "nav": {
        *("overview", "events", "errors", "handlers", "parked", "operations", "sources"),
        *("engines", "rejected_requests", "alerts", "audit"),
    },
    "engine_state": {"never_asked", "failing", "to_confirm", "up_to_date"},
    "credential": {"token", "secret"},
    "sources.format": {"cloudevent", "form", "json"},
    "listens": {"class", "key", "every", "versions", "source", "kind", "conclusion", "when"},
    "parked_by": set(ParkedBy),
    "dismissed_by": set(DismissedBy),
    "event.parked_by": set(ParkedBy),
    "event.dismissed_by": set(DismissedBy),
    "event.origin": {"ingress", "reconciled", "correction"},
    "origin": {"callback", "ingress", "reconciled", "correction"},
    "event.then": {"dead", "unknown"},
    "interface": {"console", "api", "cli", "server"},
    "role": {"view", "operate"},
    "handlers": {"missing", "elsewhere", "retired"},
    "do": {f"{name}.{part}" for name in ACTIONS for part in ("act", "title", "would", "undo", "button", "did")}
    | {f"{name}.all" for name, action in ACTIONS.items() if action.bulk}
    | {f"{name}.sure" for name, action in ACTIONS.items() if action.twice}
    | {f"{kind}.{part}" for kind in ("gone", "moved", "unclear", "unavailable") for part in ("what", "then")},
    "plan": {"paused", "circuit_open", "missing"},
    "operation": {"succeeded", "failed", "remaining", "changed", "pause", "resume", "cancel"},
    "operation_state": set(OperationState),
    "item_status": set(ITEM_CHOICES),
    "sum": {"skipped", "changed_meanwhile", "parked", "dismissed"},
    "audit.did": NAMED_ACTIONS,
    "audit.word": {"yes", "no", "no_limit"}
    | {f"{name}.{word.replace('-', '_')}" for name, words in WORDS.items() for word in words},
    "storage.alert": {"disk_free_mib", "ledger_max_mib", "ledger_growth_mib"},
    "trigger": set(Trigger),
    "events.twice": {"earlier", "later"},
    "trend": {"now", "yesterday", "last_week"},
    "trend.compared": {"yesterday", "last_week"},
    "trend.lately": set(PRESETS),
    "trend.count": {"handler", "source"},
    "trend.throughput": {"handler", "source"},
    "events.lately": set(RECENT_PERIODS),
    "events.export": set(ExportFormat),
}
"""The endings of composed keys."""
PROBLEMS = ("nothing", "purged", "ledger", "newer", "ours")
BY_KEY = {f"problem.{key}.{part}" for key in PROBLEMS for part in ("what", "then")}
BY_KEY |= {"do.delivery", "do.alert", "do.selected", "handler_plugins"}
BY_KEY |= {f"audit.field.{name}" for name in NAMED_FIELDS}
BY_KEY |= {f"storage.keep.{field.name}" for field in fields(RetentionSettings)}
BY_KEY |= {f"gap.{word}" for word in engines.GAP_REASONS} | {f"rule.{word}" for word in engines.RULES}
BY_KEY |= {f"disposition.{word}" for word in engines.DISPOSITIONS}
BY_KEY |= {
    f"events.{problem}"
    for problem in (
        "no_state",
        "no_reason",
        "no_origin",
        "no_time",
        "no_such_time",
        "no_zone",
        "no_plugin",
        "no_error_group",
        "no_trace_id",
        "no_field",
        "many_fields",
        "unknown_field",
        "no_trigger",
    )
}
REFUSALS = ("bound", "host", "login_header", "masked", "name", "no_role", "origin", "role", "scope")
BY_KEY |= {f"refused.{key}.{part}" for key in REFUSALS for part in ("what", "then")}
BY_KEY |= {"trend.order", "trend.future", "trend.long"}


def placeholders(sentence):
    """The names in a text."""
    return {field for _, field, _, _ in string.Formatter().parse(sentence) if field is not None}


def said():
    """Every key that a template uses, with composed keys in full."""
    for file in TEMPLATES:
        for key, more, _ in SAID.findall(file.read_text("utf-8")):
            if more:
                yield from (f"{key}{end}" for end in MADE[key.removesuffix(".")])
            else:
                yield key


def test_texts_exist_in_both_languages():
    """A text exists in English and Chinese with the same placeholders, and is one line of plain text."""
    for key, texts in TEXTS.items():
        assert tuple(texts) == LANGUAGES, key
        assert placeholders(texts["en"]) == placeholders(texts["zh"]), key
        for value in texts.values():
            assert value.isprintable(), key
            assert value == value.strip(), key
        assert texts["en"].isascii(), key
        assert not texts["zh"].isascii(), key


def test_chinese_texts_have_one_term_for_one_thing():
    """Chinese texts write ID in capitals, and call a setting by one word."""
    for key, texts in TEXTS.items():
        assert not re.search(r"\bid\b|设置 ?[a-z]+\.", texts["zh"], re.ASCII), key


def test_keys_in_templates_exist():
    """Every key that a template uses is a text."""
    assert set(said()) - set(TEXTS) == set()


def test_every_text_is_used():
    """Each text is used; macros get their keys as literals."""
    whole = "".join(file.read_text("utf-8") for file in TEMPLATES)
    given = set(re.findall(r'"([a-z_.]+)"', whole))
    assert set(TEXTS) - set(said()) - BY_KEY - given == set()


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_templates_have_no_literal_words(file):
    """Templates have only texts, values and the product's name, also in attributes for screen readers."""
    source = re.sub(r"{%.*?%}|{{.*?}}", "", file.read_text("utf-8"), flags=re.DOTALL)
    source = re.sub(r"<code>flowhooks[^<]*</code>", "", source)
    words = re.sub(r"<[^>]*>", " ", source)
    for own in ("flowhooks", "English", "中文", "UTC", "&amp;from="):
        words = words.replace(own, "")
    assert re.findall(r"[^\W\d_]{2,}", words) == []
    assert re.findall(r'(?:aria-label|title|placeholder|alt)="([^"]*\w[^"]*)"', source) == []


def test_a_missing_text_is_an_error():
    """A missing key, language or placeholder is an error and no empty page."""
    assert text("more_than", "zh", count="3") == "超过 3"
    for key, language, given in (("none", "en", {}), ("skip", "fr", {}), ("more_than", "en", {})):
        with pytest.raises(KeyError):
            text(key, language, **given)
