"""The state of each source: its callbacks, rejections, credentials and settings, never a secret."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flowhooks.clock import SECOND
from flowhooks.ledger import engine_queries, source_queries
from flowhooks.ledger.ignored_requests import ignored_rules
from flowhooks.ledger.source_queries import CallbackRate
from flowhooks.operations.engines import state_of
from flowhooks.settings import Secret, ValueTable
from flowhooks.settings.credentials import expires_at

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from flowhooks.ledger.engine_queries import EnginePosition
    from flowhooks.ledger.ignored_requests import IgnoredRule
    from flowhooks.ledger.reader import Reader
    from flowhooks.ledger.source_queries import Rejections
    from flowhooks.settings import IngressSettings, Settings, Source

_CREDENTIALS: Final = frozenset({"token_sha256", "token_file", "secrets"})
_SECTIONS: Final = ("engine", "ingress", "signature")


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialAge:
    """A credential of a source, without the credential.

    Attributes:
        kind: `"token"` or `"secret"`.
        location: where it is: `"file PATH"`, `"env NAME"`, or `"settings"` for hashes of tokens.
        changed_at: when its file was changed last, in microseconds since 1970; None: not known.
        expires_at: when it expires, in microseconds since 1970; None: it does not.
    """

    kind: str
    location: str
    changed_at: int | None
    expires_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStatus:
    """The state of one source.

    Attributes:
        name: its name.
        pull_only: whether it has no credential, so that flowhooks only asks its engine.
        rate: its callbacks.
        rejections: its stored rejections, by status and reason.
        credentials: its credentials.
        position: how far the history of its engine was read; None: it has no engine, or was never asked.
        has_engine: whether it has an engine.
        missed: instances of the last 24 hours that completed without a callback; None: it has no engine, or none is
            expected to call.
        settings: its settings in force, without secrets.
        ingress: how its requests to the fixed URL become callbacks; None: it has no fixed URL.
        ignored: its requests that were ignored, by rule; the rule of the last request first.
    """

    name: str
    pull_only: bool
    rate: CallbackRate
    rejections: tuple[Rejections, ...]
    credentials: tuple[CredentialAge, ...]
    position: EnginePosition | None
    has_engine: bool
    missed: int | None
    settings: Mapping[str, str]
    ingress: IngressSettings | None
    ignored: tuple[IgnoredRule, ...]

    @property
    def fixed_url(self) -> str:
        """The path of its fixed URL; `""`: it has none."""
        return "" if self.ingress is None else f"/in/{self.name}"

    @property
    def ignored_requests(self) -> int:
        """The number of its requests that were ignored."""
        return sum(rule.count for rule in self.ignored)

    @property
    def engine_state(self) -> str:
        """The state of its engine, as of `state_of`."""
        return state_of(self.position)


def source_names(settings: Settings) -> list[str]:
    """Return the names of all sources: those in the settings, or `default` if callbacks need no credential."""
    return sorted(settings.sources) if settings.calling_sources else sorted({*settings.sources, "default"})


def source_statuses(reader: Reader, settings: Settings, now: int, names: Collection[str]) -> list[SourceStatus]:
    """Return the state of these sources.

    Args:
        reader: the ledger.
        settings: the settings.
        now: current time in microseconds since 1970.
        names: names of sources, as of `source_names`.

    Raises:
        LedgerUnusable: the ledger cannot be read.
    """
    statuses = []
    with reader.connection() as connection:
        rates, truncated = source_queries.recent_callbacks(connection, now)
        positions = engine_queries.positions(connection)
        for name in names:
            source = settings.sources.get(name)
            asks = source is not None and source.engine is not None
            calls = source is None or source.has_credential
            rate = rates.get(name, CallbackRate(truncated=truncated))
            if rate.last_at is None and len(names) == 1:  # a search among older events, for one source only
                rate = replace(rate, last_at=source_queries.last_callback(connection, name))
            missed = engine_queries.taken_in(connection, name, now - 86_400 * SECOND).missed if asks and calls else None
            statuses.append(
                SourceStatus(
                    name=name,
                    pull_only=not calls,
                    rate=rate,
                    rejections=tuple(source_queries.rejections(connection, name)),
                    credentials=tuple(_credentials(source)) if source else (),
                    position=positions.get(name) if asks else None,
                    has_engine=asks,
                    missed=missed,
                    settings=_settings(source) if source else {},
                    ingress=source.ingress if source else None,
                    ignored=tuple(ignored_rules(connection, name)),
                )
            )
    return statuses


def _credentials(source: Source) -> Iterable[CredentialAge]:
    if source.token_sha256:
        yield CredentialAge(kind="token", location="settings", changed_at=None)
    if source.token_file:
        yield CredentialAge(
            kind="token", location=f"file {source.token_file}", changed_at=_changed_at(source.token_file)
        )
    for secret in source.secrets:
        yield CredentialAge(
            kind="secret",
            location=_location(secret),
            changed_at=_changed_at(secret.file) if secret.file else None,
            expires_at=expires_at(secret),
        )


def _changed_at(file: str) -> int | None:
    try:
        return Path(file).stat().st_mtime_ns // 1000
    except (OSError, ValueError):
        return None


def _location(secret: Secret) -> str:
    return f"file {secret.file}" if secret.file else f"env {secret.env}"


def _settings(source: Source) -> dict[str, str]:
    """Return the settings of a source by name, without its credentials; those of a section start with its name."""
    shown = {
        spec.name: _shown(getattr(source, spec.name))
        for spec in fields(source)
        if spec.name not in _CREDENTIALS and spec.name not in _SECTIONS
    }
    for name in _SECTIONS:
        section = getattr(source, name)
        if section is not None:
            shown |= {
                f"{name}.{spec.name}": _shown(getattr(section, spec.name))
                for spec in fields(section)
                if spec.name != "location"
            }
    return shown


def _table_text(table: ValueTable) -> str:
    if table.values is None:
        return table.pointer
    other = {} if table.other is None else {"other": table.other}
    return f"{table.pointer}: {_shown({**table.values, **other})}"


def _shown(value: Any) -> str:
    """Return a value as text; of a secret only its location."""
    if value is None or value in ("", (), {}):
        return ""
    if isinstance(value, Secret):
        return _location(value)
    if isinstance(value, ValueTable):
        return _table_text(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | dict):
        pairs = [f"{key} = {entry}" for key, entry in value.items()] if isinstance(value, dict) else map(str, value)
        return ", ".join(pairs)
    return str(value).lower() if isinstance(value, bool) else str(value)
