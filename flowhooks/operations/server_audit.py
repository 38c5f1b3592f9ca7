"""Audit entries about a server: its starts with the changes since the last one, and reloads of its settings."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import structlog

from flowhooks import __version__
from flowhooks.clock import SECOND
from flowhooks.errors import LedgerUnusable, Unavailable
from flowhooks.ledger import audit
from flowhooks.settings.definitions import Settings, iter_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from flowhooks.clock import Clock
    from flowhooks.ledger.ledger import Ledger
    from flowhooks.model.plugin_version import PluginVersion

ACTOR: Final = "flowhooks"
INTERFACE: Final = "server"
COLLAPSED_WITHIN: Final = 3600 * SECOND
"""Microseconds within which equal starts and reloads are one entry: those of several processes, or of a crash loop."""
_SECRET: Final = frozenset({"database"})
"""Settings whose value may contain a password. Their changes are not recorded."""

log = structlog.get_logger(__name__)


def record_start(
    ledger: Ledger, clock: Clock, settings: Settings, plugins: Mapping[str, PluginVersion], *, kind: str
) -> None:
    """Record that a server or worker has started, and which plugins and settings differ from its last start.

    Args:
        ledger: the ledger.
        clock: time and ids.
        settings: the settings.
        plugins: the loaded plugins by name.
        kind: `"server"` or `"worker"`.
    """
    state = {"plugins": {name: str(version) for name, version in plugins.items()}, "settings": fingerprints(settings)}
    try:
        with ledger.connection() as connection:
            before = _last_start(connection, kind)
    except LedgerUnusable as error:
        _log_failure(error)
        return
    detail: dict[str, Any] = {"kind": kind, "version": __version__, **state}
    if before is not None:
        detail |= {
            f"{name}_changed": changes
            for name in state
            if (changes := _changes(before.get(name), state[name], with_values=name == "plugins"))
        }
    _record(ledger, clock, "start", detail)


def record_reload(ledger: Ledger, clock: Clock, changed: Sequence[str], needs_restart: Sequence[str]) -> None:
    """Record that the settings were read again.

    Args:
        ledger: the ledger.
        clock: time and ids.
        changed: names of the settings that have new values now.
        needs_restart: names of further settings that have changed, and are read only at a start.
    """
    _record(ledger, clock, "reload", {"changed": list(changed), "needs_restart": list(needs_restart)})


def fingerprints(settings: Settings) -> dict[str, str]:
    """Return a fingerprint of each setting that differs from its default, by name; never one of a secret.

    Sections that users name, such as `sources.erp`, have credentials. Only their names are recorded.
    """
    defaults, found = Settings(), {}
    for name, _ in iter_settings():
        value = attrgetter(name)(settings)
        if name not in _SECRET and value != attrgetter(name)(defaults):
            found[name] = hashlib.sha256(repr(value).encode(errors="surrogateescape")).hexdigest()[:16]
    for field in fields(settings):
        section = getattr(settings, field.name)
        if isinstance(section, Mapping):
            found |= {f"{field.name}.{name}": "" for name in section}
    return found


def _last_start(connection: Connection, kind: str) -> Mapping[str, Any] | None:
    for entry in audit.entries(connection, limit=10, action="start"):
        if entry.detail.get("kind") == kind:
            return entry.detail
    return None


def _changes(before: Any, after: Mapping[str, str], *, with_values: bool) -> Any:
    """Return the names that differ, with the values before and after if these are for people."""
    before = before if isinstance(before, Mapping) else {}
    names = [name for name in sorted({**before, **after}) if before.get(name) != after.get(name)]
    if not with_values:
        return names
    return {name: f"{before.get(name, '-') or '?'} -> {after.get(name, '-') or '?'}" for name in names}


def _record(ledger: Ledger, clock: Clock, action: str, detail: Mapping[str, Any]) -> None:
    entry = audit.AuditEntry(
        id=clock.new_id(), at=clock.now(), actor=ACTOR, interface=INTERFACE, action=action, target="", detail=detail
    )
    try:
        ledger.write(
            lambda transaction: audit.record_collapsed(transaction, entry, within=COLLAPSED_WITHIN, ignored=())
        )
    except Unavailable as error:
        _log_failure(error)


def _log_failure(error: Exception) -> None:
    log.error("audit_failed", why=str(error), next="nothing is lost but this entry of the audit log")
