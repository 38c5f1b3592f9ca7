"""Print the result of `flowhooks plugins try` as text, and its groups as JSON."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from flowhooks.cli import output
from flowhooks.cli.plugins import text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.operations.backtest import Comparison

MAX_PRINTED_GROUPS: Final = 50
"""Maximum number of groups that are printed. `--json` prints all."""
_STATE_WORDS: Final = {"quarantined": "cannot be used and is quarantined", "denied": "is excluded by the settings"}


def groups_to_json(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the groups of differences as JSON values."""
    return [
        key._asdict()
        | {
            "events": group.events,
            "reasons": group.reasons,
            "more_reasons": group.more_reasons,
            "samples": group.samples,
        }
        for key, group in comparison.sorted_groups()
    ]


def print_report(result: Mapping[str, Any]) -> None:
    """Print the result as text."""
    _print_plugins(result)
    for problem in result["problems"]:
        words = _STATE_WORDS.get(problem["state"], problem["state"])
        output.print_line(f"problem: {problem['plugin']} {words}", style="red")
        if problem["error"]:
            output.print_line(f"  why: {problem['error']}")
    _print_differences(result["differences"])
    output.print_line()
    output.print_line(_summary(result))


def _print_plugins(result: Mapping[str, Any]) -> None:
    plugins = result["plugins"]
    for word in ("new", "changed", "gone"):
        for plugin in plugins[word]:
            before = plugin.get("before", plugin)["version"]
            came_from = f", before {before}" if before != plugin["version"] else ""
            output.print_line(
                f"{word}: {text.plugin_title(plugin)}{came_from}: {plugin['state']}", style=text.STYLES[plugin["state"]]
            )
    if not any(plugins.values()):
        output.print_line("No plugin is new or changed in what it declares.")


def _print_differences(groups: list[dict[str, Any]]) -> None:
    printed = groups[:MAX_PRINTED_GROUPS]
    for title, members in groupby(printed, _title):
        output.print_line()
        output.print_line(title)
        for group in members:
            _print_group(group)
    if left_out := len(groups) - len(printed):
        output.print_line()
        output.print_line(f"Left out: {output.pluralize(left_out, 'further group')}; --json prints all.")


def _title(group: Mapping[str, Any]) -> str:
    parts = [
        f"{word} {output.escape_newlines(value)}"
        for word, value in (
            ("class", group["callback_class"]),
            ("key", group["process_key"]),
            ("conclusion", group["conclusion"]),
        )
        if value is not None
    ]
    return ", ".join(parts) or "without class and key"


def _print_group(group: Mapping[str, Any]) -> None:
    what = {
        "route": group["handler"],
        "data": f"{group['handler']}, data",
        "body": "body of the callback",
        "state": "event",
    }[group["subject"]]
    output.print_line(
        f"  {what}: {group['before']} -> {group['after']}, {output.pluralize(group['events'], 'event')}", style="yellow"
    )
    if group["subject"] == "route" and group["state_before"] != group["state_after"]:
        output.print_line(f"    the event: {group['state_before']} -> {group['state_after']}")
    for reason in group["reasons"]:
        output.print_line(f"    {output.escape_newlines(reason)}")
    if group["more_reasons"]:
        output.print_line("    … and other reasons")
    output.print_line(f"    such as {', '.join(group['samples'])}")


def _summary(result: Mapping[str, Any]) -> str:
    numbers = result["events"]
    tried = ", ".join(dict.fromkeys(result["tried"].values()))
    if not numbers["compared"]:
        summary = f"No stored event matches: nothing was compared with {tried}."
    else:
        received = f"received {numbers['oldest_received_at']} to {numbers['newest_received_at']}"
        events = output.pluralize(numbers["compared"], "event")
        summary = f"{numbers['different']:,} of {events} ({received}) would be handled differently with {tried}."
    if numbers["damaged"]:
        damaged = output.pluralize(numbers["damaged"], "damaged event")
        summary += f" {damaged} could not be evaluated: run `flowhooks verify`."
    return summary
