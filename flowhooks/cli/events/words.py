"""What an operation did, in a sentence; it must not know how it was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowhooks.cli.output import several

if TYPE_CHECKING:
    from collections.abc import Mapping


def deliveries(count: int) -> str:
    """`1 delivery`, `2 deliveries`."""
    return several(count, "delivery", "deliveries")


def question(dead: int, succeeded: int) -> str:
    """What is asked before a replay."""
    parts = [f"{several(dead, 'dead delivery', 'dead deliveries')} will run again"] if dead or not succeeded else []
    if succeeded:
        whose = "its" if succeeded == 1 else "their"
        parts.append(f"{deliveries(succeeded)} that succeeded will do {whose} work a second time")
    return f"{', and '.join(parts)}. Go on?"


def replayed(done: Mapping[str, Any]) -> str:
    """What a replay did, or would do."""
    count = done["deliveries"]
    verb = "would run again" if done["dry_run"] else "runs again" if count == 1 else "run again"
    text = f"{deliveries(count)} {verb}, of {several(done['events'], 'event')} looked at."
    if passed := done["passed_over"]:
        text += f" {passed:,} passed over, being neither dead nor, with --again, succeeded."
    if out := done.get("out_of_order"):
        text += f" {out:,} of them out of {'its' if out == 1 else 'their'} order, after what waits for the same key."
    if moved := done["moved_on"]:
        text += f" {moved:,} had changed meanwhile and {'was' if moved == 1 else 'were'} left alone."
    return text


def resolved(done: Mapping[str, Any]) -> str:
    """What a resolve did, or would do."""
    verb = "would go" if done["dry_run"] else "went"
    return f"Delivery {done['delivery_id']} for {done['handler']} {verb} from {done['before']} to {done['after']}."


def drained(done: Mapping[str, Any]) -> str:
    """What a drain did, or would do."""
    if not done["events"]:
        return "No parked event is wanted by any handler just now."
    would = "would be " if done["dry_run"] else ""
    stay = done["events"] - done["delivered"] - done["dismissed"]
    text = (
        f"{several(done['events'], 'parked event')} looked at: "
        f"{done['delivered']:,} {would}delivered ({deliveries(done['deliveries'])})"
    )
    if done["dismissed"]:
        text += f", {done['dismissed']:,} {would}dismissed, as the setting ignore.process_key says"
    return f"{text}, {stay:,} still parked."


def waiting_for_a_server(done: Mapping[str, Any]) -> str:
    """What to know where no server did it; `""` if one did, or nothing is to be run."""
    runs = done.get("deliveries", 0) or done.get("after") == "waiting"
    if done["server"] or done["dry_run"] or not runs:
        return ""
    return "No server runs just now: they are run when one starts."
