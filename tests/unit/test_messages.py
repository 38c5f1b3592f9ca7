"""Messages: each in both languages with the same placeholders, and each message of the code exists."""

from __future__ import annotations

import ast
import inspect
import string
from pathlib import Path

import pytest

import flowhooks
from flowhooks import errors
from flowhooks.messages import LANGUAGES, MESSAGES, text

PACKAGE = Path(flowhooks.__file__).parent
REFUSALS = {
    name
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, errors.CallbackRejected) and value is not errors.IdentityConflict
}


def placeholders(sentence):
    """The names in a sentence."""
    return {field for _, field, _, _ in string.Formatter().parse(sentence) if field is not None}


def called(function):
    """The name of a called class, or `messages.text`; empty for other functions."""
    if isinstance(function, ast.Name):
        return function.id
    if isinstance(function, ast.Attribute) and function.attr != "text":
        return function.attr
    return ast.unparse(function)


def said():
    """Every message that the code uses by key: the place, the key, and its arguments (None: not literal)."""
    for file in sorted(PACKAGE.rglob("*.py")):
        source = file.read_text("utf-8")
        if "messages.text(" not in source and not any(name in source for name in REFUSALS):
            continue  # each process of the tests collects these: parse no more than it takes
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            if called(node.func) in REFUSALS or called(node.func) == "messages.text":
                names = [keyword.arg for keyword in node.keywords]
                where = f"{file.relative_to(PACKAGE)}:{node.lineno}"
                yield pytest.param(node.args[0].value, None if None in names else set(names), id=where)


@pytest.mark.parametrize("key", MESSAGES)
def test_messages_exist_in_both_languages(key):
    """A message exists in English and Chinese with the same placeholders, and is one line of plain text."""
    sentences = MESSAGES[key]
    assert tuple(sentences) == LANGUAGES
    assert placeholders(sentences["en"]) == placeholders(sentences["zh"])
    for sentence in sentences.values():
        assert sentence.isprintable()
        assert sentence == sentence.strip()
    assert sentences["en"].isascii()
    assert not sentences["zh"].isascii()


@pytest.mark.parametrize("key", MESSAGES)
def test_placeholders_do_not_clash_with_arguments(key):
    """No placeholder clashes with an argument of the functions that pass it."""
    named = placeholders(MESSAGES[key]["en"])
    assert all(name.isidentifier() for name in named)
    assert not named & {"self", "violations", "retry_after"}


@pytest.mark.parametrize("key", MESSAGES)
def test_a_message_ends_as_a_sentence(key):
    """Sentences end with a full stop or the reason of a failure; clauses about a violation do not."""
    english, chinese = MESSAGES[key].values()
    if key.startswith(("schema.", "ingress.", "cloudevent.")):
        assert english[-1] != "."
        assert chinese[-1] != "。"
    else:
        assert english.endswith((".", ": {why}"))
        assert chinese.endswith(("。", "{why}"))


@pytest.mark.parametrize(("key", "named"), list(said()))
def test_message_keys_in_the_code_exist(key, named):
    """Each key in the code is a message, and gets all its placeholders."""
    assert key in MESSAGES
    assert named is None or placeholders(MESSAGES[key]["en"]) <= named


def test_placeholders_are_filled_in():
    """Placeholders are filled in; braces of the message or of the values stay."""
    assert text("body_not_json", "en", line=2, column=7) == (
        "The body is not JSON: it cannot be read at line 2, column 7."
    )
    assert text("body_empty", "zh") == "请求体为空；请发送 JSON 对象，没有内容时发送 {}。"  # noqa: RUF001 (Chinese)
    assert text("dead", "en", handler="p:h", why="{key} {0}").endswith("p:h failed: {key} {0}")


@pytest.mark.parametrize(("key", "language", "params"), [("x", "en", {}), ("conflict", "fr", {}), ("dead", "en", {})])
def test_a_missing_message_language_or_value_is_an_error(key, language, params):
    """An unknown message or language, or a missing value, is an error of the calling code."""
    with pytest.raises(KeyError):
        text(key, language, **params)
