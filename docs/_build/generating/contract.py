"""The HTTP contract's tables, in English and Chinese, from the schema files and `/openapi.json`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from flowhooks.schema.schemas import Schemas
from flowhooks.web.callback.openapi import openapi

from .markdown import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SUFFIX: Final = ".schema.json"
FILES: Final = "../../schemas"
"""The folder of schema files, relative to the pages with these tables."""
FIRST_KIND: Final = "complete"
"""The kind of callback that the pages show in full."""
BETWEEN: Final = " / "
"""The separator between a text's English and its Chinese half."""
FIELDS: Final = {
    "en": ("name", "where", "required", "type", "meaning", "中文"),
    "zh": ("参数名称", "请求类型", "是否必须", "数据类型", "参数说明"),
}
ANSWERS: Final = {
    "en": ("name", "always in", "type", "meaning", "中文"),
    "zh": ("参数名称", "必有于", "数据类型", "参数说明"),
}
STATUSES: Final = {"en": ("status", "body", "headers", "when"), "zh": ("状态码", "响应体", "响应头", "含义")}
HEADERS: Final = {"en": ("header", "meaning"), "zh": ("响应头", "含义")}
KINDS: Final = {"en": ("kind", "sent when", "中文"), "zh": ("kind", "何时发送")}
SCHEMAS: Final = {"en": ("file", "what it describes", "中文"), "zh": ("文件", "内容")}
WORDS: Final = {
    "en": {"yes": "yes", "no": "no", "all": "every answer", "errors": "errors", "answer": "success", "error": "error"},
    "zh": {"yes": "是", "no": "否", "all": "所有响应", "errors": "错误响应", "answer": "成功", "error": "错误"},
}


def halves(text: str) -> dict[str, str]:
    """A text's English and Chinese.

    Raises:
        ValueError: it has not exactly two halves.
    """
    english, chinese = text.split(BETWEEN)
    return {"en": english, "zh": chinese}


def fields(language: str) -> str:
    """The parts of a callback."""
    words, documents = WORDS[language], _documents()
    path, body = documents[f"flow-instance-id{SUFFIX}"], documents[f"process-end-call-back-ro{SUFFIX}"]
    rows = [("`flowInstanceId`", "path", words["yes"], _type(path), *_meaning(path, language))]
    rows += [
        (f"`{name}`", "body", words["yes" if name in body.get("required", ()) else "no"], *cells)
        for name, *cells in _members(body, language)
    ]
    return "\n".join(table(FIELDS[language], rows))


def kinds(language: str) -> str:
    """The kinds of callback that ship and when an engine sends them. The kind that is shown in full comes first."""
    schemas = Schemas.load()
    names = sorted(schemas.kinds, key=lambda kind: (kind != FIRST_KIND, kind))
    rows = ((f"`{kind}`", *_meaning(schemas.documents[f"call-back/{kind}{SUFFIX}"], language)) for kind in names)
    return "\n".join(table(KINDS[language], rows))


def answers(language: str) -> str:
    """The parts of an answer."""
    words, documents = WORDS[language], _documents()
    always = documents[f"answer{SUFFIX}"]["required"]
    rows = [
        (f"`{under}{name}`", words["all" if name in always else "errors"], *cells)
        for file, under in (("answer", ""), ("error-info", "errorInfo."), ("error", ""))
        for name, *cells in _members(documents[file + SUFFIX], language)
    ]
    return "\n".join(table(ANSWERS[language], rows))


def statuses(language: str) -> str:
    """Every status of the contract, and its meaning."""
    rows = []
    for status, response in _contract()["components"]["responses"].items():
        if not status.isdecimal():
            continue  # the response of a fixed URL, whose body the settings define
        body = response["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        headers = ", ".join(f"`{name}`" for name in response["headers"])
        rows.append((status, WORDS[language][body], headers, halves(response["description"])[language]))
    return "\n".join(table(STATUSES[language], rows))


def headers(language: str) -> str:
    """Every header that flowhooks defines for responses."""
    known = _contract()["components"]["headers"].items()
    return "\n".join(
        table(HEADERS[language], ((f"`{name}`", halves(one["description"])[language]) for name, one in known))
    )


def schemas(language: str) -> str:
    """The schema files that ship."""
    rows = (
        (f"[`{name}`]({FILES}/{name})", *_meaning(document, language))
        for name, document in sorted(_documents().items())
    )
    return "\n".join(table(SCHEMAS[language], rows))


@cache
def _documents() -> Mapping[str, dict[str, Any]]:
    return Schemas.load().documents


@cache
def _contract() -> dict[str, Any]:
    return openapi(Schemas.load())


def _members(document: Mapping[str, Any], language: str) -> Iterator[tuple[str, ...]]:
    """Return a schema's own members, without those that only narrow a definition in another file."""
    for name, schema in document["properties"].items():
        if "$ref" in schema:
            schema = _documents()[schema["$ref"]]  # noqa: PLW2901 (it stands for what it refers to)
        if "description" in schema:
            yield (name, _type(schema), *_meaning(schema, language))


def _meaning(schema: Mapping[str, Any], language: str) -> tuple[str, ...]:
    """Return a text in English with the Chinese beside it, or in Chinese."""
    said = halves(schema["description"])
    return (said["en"], said["zh"]) if language == "en" else (said["zh"],)


def _type(schema: Mapping[str, Any]) -> str:
    types = schema["type"]
    text = types if isinstance(types, str) else " or ".join(types)
    if "format" in schema:
        text += f" ({schema['format']})"
    if "maxLength" in schema:
        text += f", ≤ {schema['maxLength']}"
    return text
