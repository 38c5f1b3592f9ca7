"""Keywords of JSON Schema 2020-12 that contain schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

SUBSCHEMA: Final = frozenset(
    {
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
"""Keywords that contain one schema."""
SUBSCHEMA_LIST: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
"""Keywords that contain an array of schemas."""
SUBSCHEMA_MAP: Final = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
"""Keywords that contain an object of schemas."""
IN_PLACE_APPLICATORS: Final = frozenset({"allOf", "anyOf", "dependentSchemas", "else", "if", "not", "oneOf", "then"})
"""Keywords whose schemas apply to the same value as the schema that contains them."""


def subschemas(schema: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a schema and all schemas in it, each with its JSON Pointer (RFC 6901) from the first one.

    Values of keywords that are not of 2020-12 are not searched, nor values of `const`, `enum`, `default` and
    `examples`.
    """
    yield pointer, schema
    if isinstance(schema, dict):
        for keyword, value in schema.items():
            for path, inner in keyword_subschemas(keyword, value):
                yield from subschemas(inner, pointer + path)


def keyword_subschemas(keyword: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the schemas directly under a keyword, each with its JSON Pointer from the schema that has the keyword."""
    if keyword in SUBSCHEMA:
        yield f"/{keyword}", value
    elif keyword in SUBSCHEMA_LIST:
        for index, subschema in enumerate(value):
            yield f"/{keyword}/{index}", subschema
    elif keyword in SUBSCHEMA_MAP:
        for name, subschema in value.items():
            yield f"/{keyword}/{name.replace('~', '~0').replace('/', '~1')}", subschema
