"""Check that the events handlers listen to can occur, and that handlers listen to the events with data schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowhooks.schema.files import CLASS_FOLDER, KEY_FOLDER, SUFFIX
from flowhooks.text import escape_control

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flowhooks.model.handler import Handler
    from flowhooks.schema.plugin_schemas import PluginSchemas
    from flowhooks.schema.schemas import Schemas


def why_unsatisfiable(handler: Handler, schemas: Schemas) -> str | None:
    """Return a sentence why a handler can never be called, with its name and location; None if it can.

    Args:
        handler: the handler.
        schemas: all schemas in force, including those of every plugin.
    """
    kind = handler.selectors.kind
    if kind not in schemas.kinds:
        why = (
            f"kind={kind!r} is not a kind of callback: no schema file defines it; the kinds are "
            f"{', '.join(schemas.kinds)}"
        )
    else:
        why = next(_unsatisfiable_values(handler, schemas), "")
    return f"handler {handler.name!r} ({handler.source_location}): {why}" if why else None


def _unsatisfiable_values(handler: Handler, schemas: Schemas) -> Iterator[str]:
    selectors = handler.selectors
    for value in selectors.callback_classes:
        if refused := schemas.why_member_invalid(selectors.kind, "callBackProcessClass", value):
            yield f"no callback can have the callback_class= {escape_control(value, 60)}, which {refused}"
    for value in selectors.process_keys:
        refused = schemas.why_member_invalid(selectors.kind, "processDefinitionKey", value)
        # An engine may send the key only as the first part of a processDefinitionId.
        if refused and (
            ":" in value or schemas.why_member_invalid(selectors.kind, "processDefinitionId", f"{value}:1:1")
        ):
            yield f"no callback can have the process_key= {escape_control(value, 60)}, which {refused}"


def unused_data_schemas(schemas: PluginSchemas, handlers: Iterable[Handler]) -> Iterator[tuple[str, str]]:
    """Yield the data schemas that no handler of the plugin listens for, each as its file and a reason."""
    selectors = [handler.selectors for handler in handlers]
    if any(selector.every for selector in selectors):
        return
    for folder, values, selected, what in (
        (
            CLASS_FOLDER,
            schemas.classes,
            {value for selector in selectors for value in selector.callback_classes},
            "callback_class=",
        ),
        (
            KEY_FOLDER,
            schemas.keys,
            {value for selector in selectors for value in selector.process_keys},
            "process_key=",
        ),
    ):
        for value in values:
            if value not in selected:
                yield f"{folder}{value}{SUFFIX}", f"none of its handlers has that {what}"
