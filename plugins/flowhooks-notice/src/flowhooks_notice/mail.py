"""Send a note by e-mail."""

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

    from flowhooks_notice.words import Note

PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}

log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail server, and who gets mail.

    Attributes:
        host: the mail server.
        port: its port.
        security: whether it is encrypted, and from when on.
        context: which certificates are trusted.
        sender: the address that it comes from.
        receivers: who gets it.
        timeout: seconds for connecting, and for each of the server's answers; `Deadline` limits the whole mail.
        user: who signs in; `""` for nobody.
        password: with what.
        name: what the log calls it.
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
    def read(cls, section: Mapping[str, Any]) -> Mail:
        """From a section that the settings' schema has accepted.

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
            port=section.get("port", PORTS[security]),
            security=security,
            context=context,
            sender=section["from"],
            receivers=tuple(section["to"]),
            timeout=float(section.get("timeout", 10.0)),
            user=section.get("user", ""),
            password=section.get("password", ""),
        )

    def send(self, note: Note) -> None:
        """Hand a note to the mail server.

        Raises:
            OSError: it could not be reached, or did not take the mail for anybody (`smtplib.SMTPException`).
        """
        with Deadline(self.timeout) as deadline:
            server = _Conversation(self, deadline)
            try:
                if self.security == "starttls":
                    server.starttls(context=self.context)
                if self.user:
                    server.login(self.user, self.password)
                refused = server.send_message(self.message(note), from_addr=self.sender, to_addrs=self.receivers)
            finally:
                # Not `with server`: it raises for any other answer to QUIT than 221, although the mail was taken.
                with suppress(smtplib.SMTPException):
                    server.quit()
                server.close()
        if refused:
            # The others have it: a second mail to them would not make these take it.
            log.warning("alert %s: the mail server refused %s", note.id, ", ".join(sorted(refused)))

    def message(self, note: Note) -> EmailMessage:
        """The mail."""
        message = EmailMessage(policy=SMTP)
        # The library decodes encoded words (RFC 2047), and some versions then write their line ends into the header.
        message["Subject"] = note.title.replace("=?", "= ?")
        message["From"] = self.sender
        message["To"] = ", ".join(self.receivers)
        message["Date"] = format_datetime(datetime.now(UTC))
        # The same for the same notification: mail programs show one of two mails that have the same.
        host = self.sender.rpartition("@")[2]
        first = f"<{note.id}@{host}>"
        part = "resolved" if note.is_end else str(note.number)
        message["Message-ID"] = first if part == "1" else f"<{note.id}.{part}@{host}>"
        if part != "1":
            message["References"] = first  # mail programs show it below the first one
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic answers
        parts = [note.sentence, "", *note.facts, *(["", note.link] if note.link else [])]
        message.set_content("\n".join(parts) + "\n", cte="quoted-printable")
        return message

    def plain(self, error: Exception) -> str:
        """The error in one line and without secrets."""
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            return "the mail server rejected every recipient"
        if isinstance(error, smtplib.SMTPAuthenticationError):
            return f"the mail server rejected the login of {self.user} ({error.smtp_code})"
        if isinstance(error, smtplib.SMTPResponseException):
            said = (
                error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
            )
            return f"the mail server answered {error.smtp_code} {ascii(said)[1:200]}"
        return f"{self.host}:{self.port}: {type(error).__name__}: {error}"


class _Conversation(smtplib.SMTP):
    """A connection to the mail server, which a deadline ends."""

    def __init__(self, mail: Mail, deadline: Deadline) -> None:
        self._mail = mail
        self._deadline = deadline
        super().__init__(mail.host, mail.port, timeout=mail.timeout)

    def connect(self, host: str = "", port: int = 0, source_address: Any = None) -> tuple[int, bytes]:
        """Connect, and read the server's greeting."""
        self.sock = self._deadline.connect((host, port), self.timeout, source_address)
        if self._mail.security == "tls":
            self.sock = self._mail.context.wrap_socket(self.sock, server_hostname=host)
        self.file = None
        return self.getreply()
