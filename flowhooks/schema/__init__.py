"""Validate callbacks: strict JSON and JSON Schema files."""

from __future__ import annotations

from flowhooks.schema.callback_body import parse_callback
from flowhooks.schema.files import shipped_dir
from flowhooks.schema.flow_instance_id import decode as decode_flow_instance_id
from flowhooks.schema.plugin_schemas import PluginSchemas, load_plugin_schemas
from flowhooks.schema.schemas import Schemas
from flowhooks.schema.strict_json import parse

__all__ = [
    "PluginSchemas",
    "Schemas",
    "decode_flow_instance_id",
    "load_plugin_schemas",
    "parse",
    "parse_callback",
    "shipped_dir",
]
