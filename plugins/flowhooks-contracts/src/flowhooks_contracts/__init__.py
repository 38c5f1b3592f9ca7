"""The contracts of a business as a flowhooks plugin.

Three handlers, three answers to "what if it runs twice?":

- `archive_contract` may run twice: the delivery's id keeps it from archiving twice, so it declares `retry=`;
- `announce_contract` must not run twice: no `retry=`, but a `probe=` that can tell whether it did its work;
- `revoke_contract` may run twice by its nature, and listens to a kind of callback that this package adds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowhooks import Delivery, Event, Handler, Reject, Retry, RetryAfter, handler, hookimpl
from flowhooks_contracts.archive import Archive, ArchiveBusy
from flowhooks_contracts.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULTS: Final = {"database": "contracts.db", "outbox": "contracts-outbox.txt"}
CALLBACK_CLASS: Final = "com.cnooc.test.CallbackHandler"
PROCESS_KEY: Final = "test_flow_key"

# A plugin is loaded once for each process, and configured before its handlers run: these need no lock.
archive = Archive(Path(DEFAULTS["database"]))
outbox = Outbox(Path(DEFAULTS["outbox"]))


@hookimpl
def configure(settings: Mapping[str, Any]) -> None:
    """Apply `[plugins.contracts]`, which flowhooks has checked with `settings.schema.json`."""
    chosen = {**DEFAULTS, **settings}
    archive.database = Path(chosen["database"])
    outbox.file = Path(chosen["outbox"])


@hookimpl
def schemas() -> Sequence[Path]:
    """Return the schema files: for a further kind of callback, the plugin's settings, and the data that it can file."""
    return [Path(__file__).with_name("schemas")]


@handler(callback_class=CALLBACK_CLASS, process_key=PROCESS_KEY, retry=Retry(attempts=10))
def archive_contract(event: Event, delivery: Delivery) -> dict[str, int]:
    """Put the signed contract into the archive."""
    if not event.business_key:
        raise Reject("There is no businessKey, so nobody can say which contract to archive.")
    try:
        number = archive.store(
            delivery_id=delivery.id,
            source=event.source,
            flow_instance_id=event.flow_instance_id,
            business_key=event.business_key,
            version=event.process_definition_version,
        )
    except ArchiveBusy:
        raise RetryAfter(5, "the archive is in use by somebody else") from None
    return {"archive_number": number}


def was_announced(event: Event, delivery: Delivery) -> bool | None:  # noqa: ARG001 (a probe is given both)
    """Whether a lost attempt did its work: the delivery's id is in the outbox, or it is not."""
    return outbox.sent(delivery.id)


@handler(process_key="contract_announcement", probe=was_announced)
def announce_contract(event: Event, delivery: Delivery) -> None:
    """Tell the subscribers that a contract was signed; a message cannot be taken back."""
    outbox.send(delivery.id, f"Contract {event.business_key or event.flow_instance_id} was signed.")


@handler(kind="revoke", callback_class=CALLBACK_CLASS, process_key=PROCESS_KEY, retry=Retry())
def revoke_contract(event: Event) -> None:
    """Mark the flow's archived contract as revoked."""
    try:
        known = archive.revoke(
            source=event.source, flow_instance_id=event.flow_instance_id, reason=event.data["revokeReason"]
        )
    except ArchiveBusy:
        raise RetryAfter(5, "the archive is in use by somebody else") from None
    if not known:
        # Callbacks may overtake each other: any exception is a failed attempt, which `retry=` repeats later.
        raise LookupError(f"flow {event.flow_instance_id} has no contract in the archive yet")


@hookimpl
def handlers() -> Sequence[Handler]:
    """Give flowhooks what it is to call."""
    return [archive_contract, announce_contract, revoke_contract]
