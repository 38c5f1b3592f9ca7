"""Alerts by e-mail and in chats, as a flowhooks plugin.

The sections `[plugins.notice.email]` and `[[plugins.notice.chats]]` configure the receivers.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flowhooks import hookimpl
from flowhooks_notice.chat import Chat
from flowhooks_notice.mail import MailServer
from flowhooks_notice.message import LANGUAGES, compose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import tzinfo

    from flowhooks import Alert

MAX_TRACKED_ALERTS: Final = 1_000
"""Maximum number of alerts for which the plugin records which channels accepted them."""

NO_RECEIVER: Final = "configure a receiver in [plugins.notice.email] or [[plugins.notice.chats]]"

log: Final = logging.getLogger(__name__)


class NotDelivered(Exception):
    """An alert has no receiver, or at least one channel did not accept it. The message has no secrets."""


class Notice:
    """Sends alerts to the configured channels: a mail server and chats.

    flowhooks calls the hooks for one alert after another, so no lock is necessary. Only a test message can be sent at
    the same time as an alert, and its id is unique.
    """

    def __init__(self) -> None:
        self._channels: tuple[MailServer | Chat, ...] = ()
        self._causes: frozenset[str] | None = None
        self._language = "en"
        self._prefix = ""
        self._console_url = ""
        self._zone: tzinfo | None = None
        # By the id of the alert, then by channel: the number of the last notification that the channel accepted.
        self._accepted: OrderedDict[str, dict[str, int]] = OrderedDict()

    @hookimpl
    def schemas(self) -> Sequence[Path]:
        """Return the directory with the schema of the section `[plugins.notice]`."""
        return [Path(__file__).with_name("schemas")]

    @hookimpl
    def configure(self, settings: Mapping[str, Any]) -> None:
        """Apply the section `[plugins.notice]`, after checks that its schema cannot express.

        Raises:
            ValueError: two channels have the same name, the URL of a chat is invalid, the file of certificates cannot
                be used, or the time zone is not known.
        """
        chats = [Chat.from_settings(section) for section in settings.get("chats", ())]
        names = [chat.name for chat in chats]
        if duplicates := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"[[plugins.notice.chats]] has two chats named {', '.join(duplicates)}")
        mail_servers = [MailServer.from_settings(settings["email"])] if "email" in settings else []
        # Accepted alerts are recorded by the name of the channel, so no chat must have the name of the mail server.
        if shared := next((server.name for server in mail_servers if server.name in names), None):
            raise ValueError(
                f"[[plugins.notice.chats]]: the name {shared} is that of the mail server; give the chat another name"
            )
        self._channels = (*mail_servers, *chats)
        self._causes = frozenset(settings["causes"]) if "causes" in settings else None
        self._language = settings.get("language", LANGUAGES[0])
        self._prefix = settings.get("subject_prefix", "[flowhooks]").strip()
        self._console_url = settings.get("console_url", "")
        self._zone = _load_zone(settings["time_zone"]) if "time_zone" in settings else None
        if not self._channels:
            log.warning("alerts are not sent: %s", NO_RECEIVER)

    @hookimpl
    def alert_raised(self, alert: Alert) -> None:
        """Send an alert to all channels except those that have already accepted this notification.

        Raises:
            NotDelivered: no channel is configured, or at least one did not accept the alert. flowhooks calls again
                later.
        """
        if not self._channels:
            raise NotDelivered(f"alert {alert.id} was not sent: {NO_RECEIVER}")
        self._send(alert, self._channels, alert.notification)

    @hookimpl
    def alert_resolved(self, alert: Alert) -> None:
        """Send the end of an alert to the channels that accepted the alert. After a restart, these are all channels.

        Raises:
            NotDelivered: at least one channel did not accept the end. flowhooks calls again later.
        """
        accepted = self._accepted.setdefault(alert.id, {channel.name: 0 for channel in self._channels})
        self._send(alert, [channel for channel in self._channels if channel.name in accepted], alert.notification + 1)
        self._accepted.pop(alert.id, None)

    def _send(self, alert: Alert, channels: Sequence[MailServer | Chat], number: int) -> None:
        if self._causes is not None and alert.cause not in {*self._causes, "test"}:
            return
        message = compose(
            alert, language=self._language, prefix=self._prefix, console_url=self._console_url, zone=self._zone
        )
        accepted = self._accepted.setdefault(alert.id, {})
        while len(self._accepted) > MAX_TRACKED_ALERTS:
            self._accepted.popitem(last=False)
        problems = []
        for channel in channels:
            if accepted.get(channel.name, 0) >= number:
                continue
            try:
                channel.send(message)
            except Exception as error:  # noqa: BLE001 (an error of one channel must not affect the other channels)
                problems.append(f"{channel.name}: {channel.error_text(error)}")
            else:
                accepted[channel.name] = number
        if problems:
            raise NotDelivered(f"alert {alert.id} was not delivered by {'; '.join(problems)}")


def _load_zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"[plugins.notice] time_zone {name!r} is not known; write it as in Asia/Shanghai") from None


plugin: Final = Notice()
"""The object to which the entry point refers."""
