"""The administration API's tables, from its `/openapi.json`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from flowhooks.schema.schemas import Schemas
from flowhooks.web.admin.api.openapi import openapi

from .contract import halves
from .markdown import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE: Final = {"type": "string", "format": "file"}
WORDS: Final = {"date": "date", "date-time": "time", "uuid": "id", "file": "a file"}


def paths() -> str:
    """The paths to read, and their query parameters."""
    rows = []
    for path, name, operation in _operations("get"):
        says = [one for one in operation["parameters"] if one["in"] == "query"]
        takes = ", ".join(f"`{one['name']}`" for one in says)
        rows.append((f"`GET {path}`", halves(operation["summary"])["en"], takes or "-", _type(name)))
    return "\n".join(table(("path", "content", "query", "answer"), rows))


def parameters() -> str:
    """The query parameters."""
    seen: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for path, _, operation in _operations("get"):
        for one in operation["parameters"]:
            if one["in"] != "header":
                seen.setdefault(f"{one['name']} {one['description']} {one['schema']}", []).append((path, one))
    rows = [
        (
            f"`{several[0][1]['name']}`",
            _type(several[0][1]["schema"]),
            halves(several[0][1]["description"])["en"],
            ", ".join(f"`{path}`" for path, _ in several),
        )
        for several in seen.values()
    ]
    return "\n".join(table(("name", "type", "meaning", "of"), rows))


def operations() -> str:
    """The operations, their arguments, and their responses."""
    rows = []
    for path, name, operation in _operations("post"):
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        takes = "<br>".join(
            f"`{one}`{'' if one in body.get('required', ()) else '?'} {_type(its).removesuffix(' or null')}: "
            f"{its.get('description', '')}"
            for one, its in body["properties"].items()
        )
        rows.append((f"`POST {path}`", operation["summary"], takes, _type(name)))
    return "\n".join(table(("path", "effect", "arguments (`?`: optional, or null)", "answer"), rows))


def members() -> str:
    """The objects in responses, a table for each."""
    out: list[str] = []
    for name, schema in _document()["components"]["schemas"].items():
        if name in {"answer", "error", "error-info"}:
            continue
        out += ["", f"### {name}", "", schema["description"], ""]
        rows = ((f"`{one}`", _type(its), its.get("description", "")) for one, its in schema["properties"].items())
        out += table(("name", "type", "what it is"), rows)
    return "\n".join(out)


@cache
def _document() -> dict[str, Any]:
    return openapi(Schemas.load())


def _operations(method: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each path with its answer's schema and its description."""
    for path, methods in _document()["paths"].items():
        if method in methods:
            operation = methods[method]
            content = operation["responses"]["200"]["content"]
            yield path, content["application/json"]["schema"] if "application/json" in content else FILE, operation


def _type(schema: Mapping[str, Any]) -> str:
    """Return the name of a type, or a link to its description."""
    types = schema.get("type", "anything")
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        text = f"[{name}](#{name.lower()})"
    elif "anyOf" in schema:
        text = " or ".join(_type(one) for one in schema["anyOf"])
    elif "allOf" in schema:
        text = f"{_type(schema['allOf'][0])} with `{'`, `'.join(schema['allOf'][1]['required'])}`"
    elif "enum" in schema:
        text = " or ".join("null" if one is None else f"`{one}`" for one in schema["enum"])
    elif isinstance(types, list):
        text = " or ".join(_type({**schema, "type": one}) for one in types)
    elif types == "array":
        text = f"list of {_type(schema['items'])}"
    elif isinstance(schema.get("additionalProperties"), dict):
        text = f"object of {_type(schema['additionalProperties'])}"
    else:
        text = WORDS.get(schema.get("format", ""), types) if types == "string" else types
    if "maximum" in schema and types in ("integer", "number"):
        text += f", {schema['minimum']} to {schema['maximum']}"
    return text if "default" not in schema else f"{text}, by default {str(schema['default']).lower()}"
