"""Alerts by e-mail and in chats, as a flowhooks plugin.

With `[plugins.notice.email]` and `[[plugins.notice.chats]]` it says where alerts go.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flowhooks import hookimpl
from flowhooks_notice.chat import Chat
from flowhooks_notice.mail import Mail
from flowhooks_notice.words import LANGUAGES, compose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import tzinfo

    from flowhooks import Alert

MAX_REMEMBERED_ALERTS: Final = 1_000
"""Alerts of which it is remembered which channels have taken them."""

log: Final = logging.getLogger(__name__)


class NotDelivered(Exception):
    """Not every channel has taken an alert; says which and why, without their secrets."""


class Notice:
    """Tells people of alerts.

    Called one alert after another, so nothing is locked. Only a test message may come at the same time, and its id is
    its own.
    """

    def __init__(self) -> None:
        self._channels: tuple[Mail | Chat, ...] = ()
        self._causes: frozenset[str] | None = None
        self._language = "en"
        self._prefix = ""
        self._console_url = ""
        self._zone: tzinfo | None = None
        # By alert, then by channel: the number of the last notification that it has taken.
        self._taken: OrderedDict[str, dict[str, int]] = OrderedDict()

    @hookimpl
    def schemas(self) -> Sequence[Path]:
        """Give the schema of the section `[plugins.notice]`."""
        return [Path(__file__).with_name("schemas")]

    @hookimpl
    def configure(self, settings: Mapping[str, Any]) -> None:
        """Take `[plugins.notice]`; what its schema cannot say is checked here.

        Raises:
            ValueError: two chats have one name, the file of certificates cannot be used, or the time zone is not known.
        """
        chats = [Chat.read(one) for one in settings.get("chats", ())]
        names = [chat.name for chat in chats]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"[[plugins.notice.chats]] has two chats named {', '.join(twice)}")
        mails = [Mail.read(settings["email"])] if "email" in settings else []
        self._channels = (*mails, *chats)
        self._causes = frozenset(settings["causes"]) if "causes" in settings else None
        self._language = settings.get("language", LANGUAGES[0])
        self._prefix = settings.get("subject_prefix", "[flowhooks]").strip()
        self._console_url = settings.get("console_url", "")
        self._zone = _zone(settings["time_zone"]) if "time_zone" in settings else None
        if not self._channels:
            log.warning(
                "alerts are not sent: configure a receiver in [plugins.notice.email] or [[plugins.notice.chats]]"
            )

    @hookimpl
    def alert_raised(self, alert: Alert) -> None:
        """Tell everybody of an alert; a channel that has taken it is not told again when another one has not.

        Raises:
            NotDelivered: some channel has not taken it; flowhooks calls again later.
        """
        self._tell(alert, self._channels, alert.notification)

    @hookimpl
    def alert_resolved(self, alert: Alert) -> None:
        """Tell the channels that have taken an alert that its cause has ended; after a restart, all channels.

        Raises:
            NotDelivered: some channel has not taken it; flowhooks calls again later.
        """
        taken = self._taken.setdefault(alert.id, {channel.name: 0 for channel in self._channels})
        self._tell(alert, [channel for channel in self._channels if channel.name in taken], alert.notification + 1)
        self._taken.pop(alert.id, None)

    def _tell(self, alert: Alert, channels: Sequence[Mail | Chat], number: int) -> None:
        if self._causes is not None and alert.cause not in {*self._causes, "test"}:
            return
        note = compose(
            alert, language=self._language, prefix=self._prefix, console_url=self._console_url, zone=self._zone
        )
        taken = self._taken.setdefault(alert.id, {})
        while len(self._taken) > MAX_REMEMBERED_ALERTS:
            self._taken.popitem(last=False)
        problems = []
        for channel in channels:
            if taken.get(channel.name, 0) >= number:
                continue
            try:
                channel.send(note)
            except Exception as error:  # noqa: BLE001 (after any error of one channel, the other channels are used)
                problems.append(f"{channel.name}: {channel.plain(error)}")
            else:
                taken[channel.name] = number
        if problems:
            raise NotDelivered(f"alert {alert.id} was not delivered by {'; '.join(problems)}")


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"[plugins.notice] time_zone {name!r} is not known; write it as in Asia/Shanghai") from None


plugin: Final = Notice()
"""The object that the entry point names."""
