"""Filters by the attempts of deliveries: which plugin ran them, why they started, and when."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from sqlalchemy import ColumnElement, func, literal, or_, select

from flowhooks.errors import SettingsError
from flowhooks.ledger.tables import IS_LAST_ATTEMPT, IS_REQUESTED, attempts, deliveries
from flowhooks.model.delivery import Trigger
from flowhooks.model.handler import NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

FIELDS: Final = ("plugin", "trigger", "attempted_since", "ran_by")
"""The fields of a filter that are about attempts."""
WITHOUT: Final[dict[str, Any]] = {**dict.fromkeys(FIELDS), "handler_plugins": ()}
"""Values that do not restrict, of these fields and of the plugins of handlers, for which there is no index either."""
PLUGIN_PATTERN: Final = re.compile(rf"({NAME_PATTERN.pattern})(?: *== *([!-~]+))?")
"""The form of `plugin` and `ran_by`: `contracts`, or `contracts==1.4`."""


class AttemptCriteria(Protocol):
    """The fields of an `EventFilter` that are about attempts."""

    @property
    def plugin(self) -> str | None:
        """A plugin or a version of it that ran an attempt."""

    @property
    def trigger(self) -> str | None:
        """Why the attempt was started."""

    @property
    def attempted_since(self) -> int | None:
        """When the attempt was started at the earliest."""

    @property
    def ran_by(self) -> str | None:
        """A plugin or a version of it that ran the last attempt."""

    @property
    def handler_plugins(self) -> tuple[str, ...]:
        """The plugins of the delivery's handler."""


class PluginSelector(NamedTuple):
    """A plugin, or one version of it.

    Attributes:
        name: the plugin's name.
        version: its version; None: any.
    """

    name: str
    version: str | None


def parse_plugin(text: str) -> PluginSelector:
    """Parse `contracts` or `contracts==1.4`.

    Raises:
        SettingsError: the text has neither form.
    """
    match = PLUGIN_PATTERN.fullmatch(text)
    if match is None:
        raise SettingsError(f"write a plugin as NAME or NAME==VERSION, such as contracts==1.4, not {text!r}")
    return PluginSelector(*match.groups())


def has_attempt_criteria(criteria: AttemptCriteria) -> bool:
    """Return whether a filter is about attempts, or about the plugins of handlers."""
    return bool(criteria.handler_plugins) or any(getattr(criteria, name) is not None for name in FIELDS)


def attempt_conditions(criteria: AttemptCriteria) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter on the attempts and the plugin of one delivery; empty if the filter has none.

    `plugin`, `trigger` and `attempted_since` are about the same attempt, and `ran_by` is about the last one.
    """
    conditions: list[ColumnElement[bool]] = []
    of_attempt: list[ColumnElement[bool]] = []
    if criteria.plugin is not None:
        of_attempt += _ran(parse_plugin(criteria.plugin), conditions)
    if criteria.trigger is not None:
        of_attempt.append(attempts.c.trigger == criteria.trigger)
    if criteria.attempted_since is not None:
        of_attempt.append(attempts.c.started_at >= criteria.attempted_since)
    if of_attempt or criteria.plugin is not None:
        conditions.append(_exists(attempts.c.delivery_id == deliveries.c.id, *of_attempt))
    if criteria.ran_by is not None:
        of_last = _ran(parse_plugin(criteria.ran_by), conditions)
        conditions.append(_exists(IS_LAST_ATTEMPT, *of_last))
    if criteria.handler_plugins:
        conditions.append(is_of_any(criteria.handler_plugins))
    return conditions


def is_of_any(plugins: Iterable[str]) -> ColumnElement[bool]:
    """Return the condition that a delivery is for a handler of one of these plugins."""
    return or_(*map(_is_of, plugins))


def _ran(plugin: PluginSelector, conditions: list[ColumnElement[bool]]) -> list[ColumnElement[bool]]:
    """Return the condition on an attempt that it ran a version, and add the condition on the delivery's handler."""
    conditions.append(_is_of(plugin.name))
    return [] if plugin.version is None else [attempts.c.plugin_version == plugin.version]


def _is_of(plugin: str) -> ColumnElement[bool]:
    prefix = f"{plugin}:"
    # Not LIKE, in which `_` stands for any character.
    return func.substr(deliveries.c.handler, 1, len(prefix)) == prefix


def _exists(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return select(literal(1)).select_from(attempts).where(*conditions).correlate(deliveries).exists()


def requested_events(connection: Connection, trigger: str, limit: int) -> list[str] | None:
    """Return the ids of the events with an attempt that was started for a rare reason.

    Returns:
        Each id once. None if no index finds such attempts, or if there are more than `limit`.
    """
    if trigger in {Trigger.FIRST, Trigger.RETRY}:
        return None
    of_trigger = (
        select(attempts.c.delivery_id).where(IS_REQUESTED, attempts.c.trigger == trigger).limit(limit + 1).subquery()
    )
    query = select(deliveries.c.event_id).join(of_trigger, of_trigger.c.delivery_id == deliveries.c.id)
    found = list(connection.execute(query).scalars())
    return sorted(set(found)) if len(found) <= limit else None
