"""Parse the body of a callback."""

from __future__ import annotations

from typing import Any

from flowhooks.schema.strict_json import parse


def parse_callback(body: bytes) -> dict[str, Any]:
    """Parse a callback's body as `parse` does, and turn a whole number in `businessKey` into its decimal text.

    Schemas, handlers, conditions and comparisons of two bodies then only see text.

    Raises:
        MalformedRequest: as with `parse`.
    """
    members = parse(body)
    key = members.get("businessKey")
    if isinstance(key, int | float) and not isinstance(key, bool) and key == int(key):
        members["businessKey"] = str(int(key))
    return members
