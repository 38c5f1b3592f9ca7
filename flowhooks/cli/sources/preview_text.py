"""Print a preview of a request to a fixed URL, as text or as JSON."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flowhooks.cli import output, routes_text
from flowhooks.intake.mapping import IgnoredRequest
from flowhooks.text import command_line

if TYPE_CHECKING:
    from flowhooks.cli.sources.preview import ExampleRequest, Preview, PreviewItem, SenderAnswer
    from flowhooks.operations.lookup import Lookup


def print_preview(name: str, request: ExampleRequest, preview: Preview, lookup: Lookup, *, assumed: bool) -> None:
    """Print a preview as text.

    Args:
        name: the name of the source.
        request: the request.
        preview: its preview.
        lookup: the look-up of routes that was used.
        assumed: whether the media type is assumed from the format of the source.
    """
    content_type = request.headers.get("content-type")
    given = f" of {content_type}{' (assumed)' if assumed else ''}" if content_type else ""
    query = f"?{request.query}" if request.query else ""
    output.print_line(f"{request.method} /in/{name}{query} with {output.pluralize(len(request.body), 'byte')}{given}")
    for index, item in enumerate(preview.items):
        output.print_line()
        if len(preview.items) > 1:
            output.print_line(f"Event {index} of the batch:")
        _print_item(item, lookup)
    output.print_line()
    if preview.problem:
        output.print_line(f"Only you see this: {preview.problem}", style="red")
    _print_answer(preview.answer)
    output.print_line()
    output.print_line(f"Nothing was stored. {_credential_text(name, preview)}")


def preview_to_json(
    name: str, request: ExampleRequest, preview: Preview, lookup: Lookup, *, assumed: bool
) -> dict[str, Any]:
    """Return a preview as JSON; the arguments are those of `print_preview`."""
    return {
        "request": {
            "method": request.method,
            "path": f"/in/{name}",
            "content_type": request.headers.get("content-type"),
            "content_type_assumed": assumed,
            "bytes": len(request.body),
        },
        "items": [_item_to_json(item, lookup) for item in preview.items],
        "answer": {
            "status": preview.answer.status,
            "media_type": preview.answer.media_type,
            "body": preview.answer.body.decode(errors="replace"),
        },
        "problem": preview.problem,
    }


def is_delivered(preview: Preview) -> bool:
    """Return whether the sender is answered with a success, and no event would be parked."""
    return not preview.answer.is_error and all(
        item.route is None or item.route.result != "parked" for item in preview.items
    )


def _print_item(item: PreviewItem, lookup: Lookup) -> None:
    mapped = item.mapped
    if isinstance(mapped, IgnoredRequest):
        output.print_line(f"It is ignored by the rule {mapped.rule}: nothing is stored, and the request is counted.")
        return
    output.print_line(f"It becomes a callback of kind {mapped.kind} for the flow instance {mapped.flow_instance_id}:")
    output.print_lines(output.format_body(json.dumps(mapped.data)), indent="  ")
    if item.route is not None:
        output.print_line()
        route = item.route
        routes_text.show(route.example, lookup, route.explanation, result=route.result, hints=route.hints)


def _item_to_json(item: PreviewItem, lookup: Lookup) -> dict[str, Any]:
    mapped, route = item.mapped, item.route
    if isinstance(mapped, IgnoredRequest):
        return {"ignored_by": mapped.rule, "callback": None, "route": None}
    callback = {"kind": mapped.kind, "flow_instance_id": mapped.flow_instance_id, "data": dict(mapped.data)}
    if route is None:
        return {"ignored_by": None, "callback": callback, "route": None}
    explained = routes_text.to_json(route.example, lookup, route.explanation)
    return {
        "ignored_by": None,
        "callback": callback,
        "route": {**explained, "result": route.result, "hints": list(route.hints)},
    }


def _print_answer(answer: SenderAnswer) -> None:
    try:
        reason = f" {HTTPStatus(answer.status).phrase}"
    except ValueError:
        reason = ""
    output.print_line(
        f"The sender is answered {answer.status}{reason}, {answer.media_type}:",
        style="red" if answer.is_error else "green",
    )
    output.print_lines(output.format_body(answer.body.decode(errors="replace")), indent="  ")


def _credential_text(name: str, preview: Preview) -> str:
    if preview.by_receiver:
        return "The address and the rate of the request were not checked."
    test = command_line("sources", "test", name)
    return f"No credential was checked: `{test}` checks whether a server accepts those of {name}."
