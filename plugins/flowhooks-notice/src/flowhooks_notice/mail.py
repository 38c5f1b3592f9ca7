"""Send a message by e-mail."""

from __future__ import annotations

import logging
import smtplib
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from flowhooks_notice.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks_notice.message import Message

DEFAULT_PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}
"""Default port of a mail server by the setting `security`."""

log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """A mail server, with the sender and the receivers of mails.

    Attributes:
        host: host name of the mail server.
        port: port of the mail server.
        security: encryption: after the command STARTTLS, from the first byte (TLS), or none.
        context: TLS configuration with the trusted certificates.
        sender: address of the sender.
        receivers: addresses of the receivers.
        timeout: seconds for connecting, and for each response of the server; `Deadline` limits the whole mail.
        user: user name for the login; `""`: no login.
        password: password for the login.
        name: name of the mail server in the log.
    """

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    context: ssl.SSLContext = field(repr=False)
    sender: str
    receivers: tuple[str, ...]
    timeout: float
    user: str = ""
    password: str = field(default="", repr=False)
    name: str = "email"

    @classmethod
    def from_settings(cls, section: Mapping[str, Any]) -> MailServer:
        """Create a mail server from a section that the schema of the settings has accepted.

        Raises:
            ValueError: the file of certificates cannot be used.
        """
        security = section.get("security", "starttls")
        try:
            context = ssl.create_default_context(cafile=section.get("ca_file"))
        except OSError as error:
            raise ValueError(f"[plugins.notice.email] ca_file cannot be used: {error.strerror or error}") from None
        return cls(
            host=section["host"],
            port=section.get("port", DEFAULT_PORTS[security]),
            security=security,
            context=context,
            sender=section["from"],
            receivers=tuple(section["to"]),
            timeout=float(section.get("timeout", 10.0)),
            user=section.get("user", ""),
            password=section.get("password", ""),
        )

    def send(self, message: Message) -> None:
        """Send a message to all receivers.

        Raises:
            OSError: the mail server could not be reached, or it rejected the mail for every receiver
                (`smtplib.SMTPException`, a subclass).
        """
        with Deadline(self.timeout) as deadline:
            connection = _SmtpConnection(self, deadline)
            try:
                if self.security == "starttls":
                    connection.starttls(context=self.context)
                if self.user:
                    connection.login(self.user, self.password)
                mail = self._build_mail(message)
                rejected = connection.send_message(mail, from_addr=self.sender, to_addrs=self.receivers)
            finally:
                # `with connection` would raise for any response to QUIT except 221, although the mail was accepted.
                with suppress(smtplib.SMTPException):
                    connection.quit()
                connection.close()
        if rejected:
            # The other receivers have the mail. A retry would send it to them again, and would be rejected again.
            log.warning("alert %s: the mail server rejected %s", message.id, ", ".join(sorted(rejected)))

    def _build_mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage(policy=SMTP)
        # The library decodes encoded words (RFC 2047), and some versions then write their line ends into the header.
        mail["Subject"] = message.title.replace("=?", "= ?")
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.receivers)
        mail["Date"] = format_datetime(datetime.now(UTC))
        # A repeated notification has the same Message-ID: mail clients show only one of two mails with the same id.
        host = self.sender.rpartition("@")[2]
        first_id = f"<{message.id}@{host}>"
        suffix = "resolved" if message.is_resolved else str(message.number)
        mail["Message-ID"] = first_id if suffix == "1" else f"<{message.id}.{suffix}@{host}>"
        if suffix != "1":
            mail["References"] = first_id  # mail clients show this mail below the first mail
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic replies
        lines = [message.text, "", *message.details, *(["", message.link] if message.link else [])]
        mail.set_content("\n".join(lines) + "\n", cte="quoted-printable")
        return mail

    def error_text(self, error: Exception) -> str:
        """Return the text of an error, on one line and without secrets."""
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            return "the mail server rejected every recipient"
        if isinstance(error, smtplib.SMTPAuthenticationError):
            return f"the mail server rejected the login of {self.user} ({error.smtp_code})"
        if isinstance(error, smtplib.SMTPResponseException):
            reply = error.smtp_error
            text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
            return f"the mail server answered {error.smtp_code} {ascii(text)[1:200]}"
        return f"{self.host}:{self.port}: {type(error).__name__}: {error}"


class _SmtpConnection(smtplib.SMTP):
    """A connection to the mail server with a time limit."""

    def __init__(self, server: MailServer, deadline: Deadline) -> None:
        self._server = server
        self._deadline = deadline
        super().__init__(server.host, server.port, timeout=server.timeout)

    def connect(self, host: str = "", port: int = 0, source_address: Any = None) -> tuple[int, bytes]:
        """Connect and read the greeting of the server."""
        self.sock = self._deadline.connect((host, port), self.timeout, source_address)
        if self._server.security == "tls":
            self.sock = self._server.context.wrap_socket(self.sock, server_hostname=host)
        self.file = None
        return self.getreply()
