"""What a call-back must look like: strict JSON, and the JSON Schema files; it must not know events, routes or HTTP."""

from __future__ import annotations

from flowhooks.schema.files import shipped
from flowhooks.schema.plugin_schemas import OwnSchemas, taken
from flowhooks.schema.schemas import Schemas
from flowhooks.schema.strict_json import parse

__all__ = ["OwnSchemas", "Schemas", "parse", "shipped", "taken"]
