"""Validate callbacks: strict JSON and JSON Schema files."""

from __future__ import annotations

# Only modules without jsonschema, whose import takes a tenth of a second: the ledger reads bodies and validates none.
from flowhooks.schema.callback_body import convert_business_key, parse_callback
from flowhooks.schema.flow_instance_id import decode as decode_flow_instance_id
from flowhooks.schema.strict_json import parse

__all__ = ["convert_business_key", "decode_flow_instance_id", "parse", "parse_callback"]
