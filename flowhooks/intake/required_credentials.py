"""Refuses a start without credentials that the ledger's processes have asked for before.

An empty or damaged settings file is valid, and names neither sources nor operators. Without this a start would take it,
and let everybody in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog

from flowhooks.clock import to_text
from flowhooks.errors import LedgerUnusable, SettingsError, Unavailable
from flowhooks.ledger import database, required_credentials
from flowhooks.settings import database_url

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from flowhooks.clock import Clock
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.settings import Settings

_WORDS: Final = {
    "sources": ("no source", "callbacks", "call back"),
    "operators": ("no operator", "the administration", "administer this server"),
}

log = structlog.get_logger(__name__)


def explain_missing(settings: Settings, required: Mapping[str, int], kinds: Collection[str]) -> Iterator[str]:
    """Why a process may not start with these settings, a line for each kind of credential; nothing with `insecure`.

    Args:
        settings: the settings.
        required: since when each kind is required, as the ledger says.
        kinds: those that the process's listeners ask for, `"sources"` and `"operators"`.
    """
    for kind in () if settings.insecure else _missing_kinds(settings, required, kinds):
        none, what, act = _WORDS[kind]
        yield (
            f"the settings name {none}, and {what} of the ledger {database.display_name(database_url(settings))} "
            "needed a "
            f"credential since {to_text(required[kind])}: without one anybody could {act}. The settings file may be "
            f"empty or cut off: restore its sections [{kind}.NAME], or start once with --insecure if no credential is "
            "to be needed any more"
        )


def check(ledger: Ledger, settings: Settings, kinds: Collection[str]) -> None:
    """Refuse to start without credentials that are required.

    Raises:
        SettingsError: some are missing.
    """
    with ledger.connection() as connection:
        missing = list(explain_missing(settings, required_credentials.required(connection), kinds))
    if missing:
        raise SettingsError("\n".join(missing))


def record(ledger: Ledger, settings: Settings, kinds: Collection[str], clock: Clock) -> None:
    """Record which kinds are required from now on; with `insecure`, those that are missing are not.

    Raises:
        LedgerUnusable: the ledger cannot be read.
        Unavailable: it cannot be written.
    """
    with ledger.connection() as connection:
        required = required_credentials.required(connection)
    new = [kind for kind in kinds if getattr(settings, kind) and kind not in required]
    if new:
        ledger.write(lambda transaction: required_credentials.require(transaction, new, clock.now()))
    released = list(_missing_kinds(settings, required, kinds)) if settings.insecure else []
    if released:
        ledger.write(lambda transaction: required_credentials.stop_requiring(transaction, released))
        log.warning(
            "credentials_not_required",
            kinds=released,
            why="the settings name none any more, and insecure is set",
            next="name some, unless this was meant",
        )


def record_if_possible(ledger: Ledger, settings: Settings, kinds: Collection[str], clock: Clock) -> None:
    """Do so; where the ledger cannot be used, log it: new credentials must hold at once in any case."""
    try:
        record(ledger, settings, kinds, clock)
    except (LedgerUnusable, Unavailable) as error:
        log.error("credentials_record_failed", why=str(error), next="the next start records them")  # noqa: TRY400 (one line says it)


def _missing_kinds(settings: Settings, required: Mapping[str, int], kinds: Collection[str]) -> Iterator[str]:
    return (kind for kind in kinds if kind in required and not getattr(settings, kind))
