"""Archive, announce and revoke contracts: a flowhooks plugin.

The three handlers differ in the effect of a second run:

- `archive_contract` may run twice, so it declares `retry=`: the archive stores a delivery's id only once;
- `announce_contract` must not run twice, so it has no `retry=`, but a `probe=` that looks for the sent message;
- `revoke_contract` may run twice, because only the first revocation is stored. It listens to a kind of callback
  that this package adds.
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

# Each process loads the plugin once and configures it before its handlers run, so these objects need no lock.
archive = Archive(Path(DEFAULTS["database"]))
outbox = Outbox(Path(DEFAULTS["outbox"]))


@hookimpl
def configure(settings: Mapping[str, Any]) -> None:
    """Apply `[plugins.contracts]`, which flowhooks has validated against `settings.schema.json`."""
    paths = {**DEFAULTS, **settings}
    # Absolute, because another plugin or a handler may change the working folder later.
    archive.database = Path(paths["database"]).absolute()
    outbox.file = Path(paths["outbox"]).absolute()


@hookimpl
def schemas() -> Sequence[Path]:
    """Return the folder of the schemas: of a kind of callback, of the settings, and of data that can be archived."""
    return [Path(__file__).with_name("schemas")]


@handler(callback_class=CALLBACK_CLASS, process_key=PROCESS_KEY, retry=Retry(attempts=10))
def archive_contract(event: Event, delivery: Delivery) -> dict[str, int]:
    """Store the signed contract in the archive."""
    if not event.business_key:
        raise Reject("There is no businessKey, so the contract to archive is unknown.")
    try:
        number = archive.store(
            delivery_id=delivery.id,
            source=event.source,
            flow_instance_id=event.flow_instance_id,
            business_key=event.business_key,
            version=event.process_definition_version,
        )
    except ArchiveBusy:
        raise RetryAfter(5, "the archive is in use by another program") from None
    return {"archive_number": number}


def was_announced(event: Event, delivery: Delivery) -> bool | None:  # noqa: ARG001 (a probe receives both arguments)
    """Return whether a lost attempt sent its message: True, False, or None if the outbox cannot show it."""
    return outbox.has_message(delivery.id)


@handler(process_key="contract_announcement", probe=was_announced)
def announce_contract(event: Event, delivery: Delivery) -> None:
    """Notify the subscribers that a contract was signed. A sent message cannot be withdrawn."""
    outbox.send(delivery.id, f"Contract {event.business_key or event.flow_instance_id} was signed.")


@handler(kind="revoke", callback_class=CALLBACK_CLASS, process_key=PROCESS_KEY, retry=Retry())
def revoke_contract(event: Event) -> None:
    """Mark the flow's archived contract as revoked."""
    try:
        is_archived = archive.revoke(
            source=event.source, flow_instance_id=event.flow_instance_id, reason=event.data["revokeReason"]
        )
    except ArchiveBusy:
        raise RetryAfter(5, "the archive is in use by another program") from None
    if not is_archived:
        # The revocation may arrive first. Any exception is a failed attempt, which `retry=` repeats later.
        raise LookupError(f"flow {event.flow_instance_id} has no contract in the archive yet")


@hookimpl
def handlers() -> Sequence[Handler]:
    """Return the handlers of this plugin."""
    return [archive_contract, announce_contract, revoke_contract]
