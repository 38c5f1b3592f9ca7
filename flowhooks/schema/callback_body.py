"""Parse the body of a callback, and check the types that no schema file can change.

These types are those of the attributes of an event and of the columns that store them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flowhooks.schema.strict_json import parse
from flowhooks.schema.violations import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MIN_VERSION: Final = -(2**31)
"""Minimum of `processDefinitionVersion`, an int32."""
MAX_VERSION: Final = 2**31 - 1
"""Maximum of `processDefinitionVersion`, an int32."""
_VERSION: Final = "processDefinitionVersion"
_TEXTS: Final = ("businessKey", "callBackProcessClass", "processDefinitionId", "processDefinitionKey", "conclusion")


def parse_callback(body: bytes) -> dict[str, Any]:
    """Parse a callback's body as `parse` does, and change its `businessKey` as `convert_business_key` does.

    Raises:
        MalformedRequest: as with `parse`.
    """
    members = parse(body)
    convert_business_key(members)
    return members


def convert_business_key(members: dict[str, Any]) -> None:
    """Turn a whole number in `businessKey` into its decimal text.

    Schemas, handlers, conditions and comparisons of two bodies then only see text. A whole number of 2**53 or more that
    is written as a fraction or with an exponent stays a number, which `Schemas.check_body` refuses: `parse` reads it as
    a double, whose digits may differ from those that the engine sent.
    """
    key = members.get("businessKey")
    if type(key) is int:
        members["businessKey"] = str(key)


def find_violations(members: Mapping[str, Any]) -> Iterator[Violation]:
    """Yield a violation for each member of a parsed body that does not have the type of its attribute of `Event`."""
    for name in _TEXTS:
        value = members.get(name, "")
        if not isinstance(value, str):
            is_numeric_key = name == "processDefinitionKey" and type(value) is int
            yield (
                Violation((name,), "schema.type_process_key", ())
                if is_numeric_key
                else Violation((name,), "schema.type", (("types", "string"),))
            )
    version = members.get(_VERSION, 0)
    if type(version) is not int:
        yield Violation((_VERSION,), "schema.type", (("types", "integer"),))
    elif version > MAX_VERSION:
        yield Violation((_VERSION,), "schema.maximum", (("limit", str(MAX_VERSION)),))
    elif version < MIN_VERSION:
        yield Violation((_VERSION,), "schema.minimum", (("limit", str(MIN_VERSION)),))
