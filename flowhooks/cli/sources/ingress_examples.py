"""Examples of `[sources.NAME.ingress]` for each format, to be pasted into the settings and changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_EXAMPLES: Final = {
    "json": (
        'format = "json"',
        'flow_instance_id = "/id"',
        'process_definition_key = "/processDefinitionKey"',
        'business_key = "/businessKey"',
        'kind = {pointer = "/status", values = {approved = "complete", rejected = "complete"}, other = "ignore"}',
        'conclusion = {pointer = "/status", values = {approved = "approved", rejected = "rejected"}}',
    ),
    "form": (
        'format = "form"',
        'flow_instance_id = "/id"',
        'process_definition_key = "/processDefinitionKey"',
        'business_key = "/businessKey"',
        'kind = {pointer = "/status", values = {"2" = "complete", "3" = "complete", "4" = "cancel"}, other = "ignore"}',
        'conclusion = {pointer = "/status", values = {"2" = "approved", "3" = "rejected"}}',
    ),
    "cloudevent": (
        'format = "cloudevent"',
        'flow_instance_id = "/kogitoprocinstanceid"',
        'process_definition_key = "/kogitoprocid"',
        'business_key = "/data/businessKey"',
        'kind = {pointer = "/data/state", values = {"2" = "complete", "3" = "cancel"}, other = "ignore"}',
        'conclusion = "/data/result"',
    ),
}
FORMATS: Final = tuple(_EXAMPLES)


def ingress_lines(section: str, form: str) -> Iterator[str]:
    """Yield the lines of an example in TOML.

    Args:
        section: the section of the source, such as `[sources.erp]`.
        form: one of `FORMATS`.
    """
    yield ""
    yield "# An example: replace the pointers, the values and the answer by those of the sender."
    yield f"{section.removesuffix(']')}.ingress]"
    yield from _EXAMPLES[form]
    yield "answer = '{\"success\": true}'"
