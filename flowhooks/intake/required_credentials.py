"""Refuse to start without credentials that processes on this ledger have required before.

An empty or truncated settings file is valid but names neither sources nor operators. Without this check, a server would
start with it and admit every client.
"""

from __future__ import annotations

from functools import partial
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
    from flowhooks.ledger.reader import Reader
    from flowhooks.settings import Settings

_WORDS: Final = {
    "sources": ("no source", "callbacks", "send callbacks"),
    "operators": ("no operator", "the administration", "administer this server"),
}

log = structlog.get_logger(__name__)


def explain_missing(settings: Settings, required: Mapping[str, int], kinds: Collection[str]) -> Iterator[str]:
    """Yield why a process must not start with these settings, one line per kind; nothing with `insecure`.

    Args:
        settings: the settings.
        required: when each kind of credential became required, according to the ledger.
        kinds: the kinds that the process's listeners require, `"sources"` and `"operators"`.
    """
    for kind in () if settings.insecure else _missing_kinds(settings, required, kinds):
        none, what, act = _WORDS[kind]
        yield (
            f"the settings have {none}, but a credential has been required for {what} of the ledger "
            f"{database.display_name(database_url(settings))} since {to_text(required[kind])}: without {kind} "
            f"anybody could {act}. The settings file may be empty or cut off: restore its sections [{kind}.NAME], or "
            "start once with --insecure if no credential is required any more"
        )


def check(ledger: Reader, settings: Settings, kinds: Collection[str]) -> None:
    """Refuse to start without credentials that are required.

    Raises:
        SettingsError: required credentials are missing.
    """
    with ledger.connection() as connection:
        missing = list(explain_missing(settings, required_credentials.required(connection), kinds))
    if missing:
        raise SettingsError("\n".join(missing))


def record(ledger: Ledger, settings: Settings, kinds: Collection[str], clock: Clock) -> None:
    """Record the kinds of credentials that are required from now on; with `insecure`, release the missing ones.

    Raises:
        LedgerUnusable: the ledger cannot be read.
        Unavailable: the ledger cannot be written.
    """
    with ledger.connection() as connection:
        required = required_credentials.required(connection)
    new = [kind for kind in kinds if settings.credentials(kind) and kind not in required]
    if new:
        ledger.write(partial(required_credentials.require, kinds=new, now=clock.now()))
    released = list(_missing_kinds(settings, required, kinds)) if settings.insecure else []
    if released:
        ledger.write(partial(required_credentials.stop_requiring, kinds=released))
        log.warning(
            "credentials_not_required",
            kinds=released,
            why="the settings have none of them any more, and insecure is set",
            next="add a section to the settings unless this is intended",
        )


def record_if_possible(ledger: Ledger, settings: Settings, kinds: Collection[str], clock: Clock) -> None:
    """Call `record`; log an error of the ledger, because new credentials must apply at once even then."""
    try:
        record(ledger, settings, kinds, clock)
    except (LedgerUnusable, Unavailable) as error:
        log.error("credentials_record_failed", why=str(error), next="the next start records this")  # noqa: TRY400 (one line says it)


def _missing_kinds(settings: Settings, required: Mapping[str, int], kinds: Collection[str]) -> Iterator[str]:
    return (kind for kind in kinds if kind in required and not settings.credentials(kind))
