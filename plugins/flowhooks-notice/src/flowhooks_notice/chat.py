"""Post a note to a chat by its web hook.

Formats: Slack and Mattermost accept `{"text": …}`, and read mark-up in it. DingTalk, WeCom and Feishu accept a text of
their own form. Their answers have status 200, and say in the body whether they accepted it.
"""

# ruff: noqa: RUF001 (what only looks like it is what is wanted)

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import ssl
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPSConnection
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote_plus, urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from flowhooks_notice.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from http.client import HTTPResponse

    from flowhooks_notice.words import Note

MAX_RESPONSE_BYTES: Final = 65_536
"""Bytes of an answer that are read."""
_WITHOUT_MARKUP: Final = str.maketrans({"<": "‹", ">": "›", "@": "＠", "`": "'"})
"""Characters that notify users (`<!channel>`, `@all`, `<at user_id="all">`) or end a block, and their look-alikes."""
_ERROR_CODE_MEMBERS: Final = {"dingtalk": "errcode", "wecom": "errcode", "feishu": "code"}
"""Where the answer says whether it was taken: 0 if so."""


class NotAccepted(Exception):
    """A chat did not take a post; says why, without its URL, which is secret."""


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None: a post is not to be taken elsewhere, nor turned into a GET."""


class _Connects(HTTPHandler, HTTPSHandler):
    """Makes connections that a deadline ends."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._maker(HTTPConnection), req)

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._maker(HTTPSConnection), req)

    def _maker(self, kind: type[HTTPConnection]) -> Callable[..., HTTPConnection]:
        def make(host: str, **options: Any) -> HTTPConnection:
            connection = kind(host, **options)
            # `connect()` cannot be replaced: it also speaks with a proxy, and that must end in time, too.
            connection._create_connection = self._deadline.connect  # type: ignore[attr-defined]  # noqa: SLF001 (see above)
            return connection

        return make


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A chat.

    Attributes:
        name: what the log calls it.
        form: what it takes.
        url: where to post.
        secret: what posts are signed with; `""` for not at all.
        timeout: seconds for each step, such as connecting; `Deadline` limits the whole post.
        now: seconds since 1970.
    """

    name: str
    form: str
    url: str = field(repr=False)
    secret: str = field(default="", repr=False)
    timeout: float = 10.0
    now: Callable[[], float] = time.time

    @classmethod
    def read(cls, section: Mapping[str, Any]) -> Chat:
        """From a section that the settings' schema has accepted.

        Raises:
            ValueError: its URL cannot be read; it is not shown.
        """
        try:
            parts = urlsplit(section["url"])
            usable = bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(f"the chat {section['name']} in [[plugins.notice.chats]]: its url cannot be read")
        return cls(
            name=section["name"],
            form=section.get("form", "text"),
            url=section["url"],
            secret=section.get("secret", ""),
            timeout=float(section.get("timeout", 10.0)),
        )

    def send(self, note: Note) -> None:
        """Post a note.

        Raises:
            NotAccepted: the chat said no.
            OSError: it could not be reached.
        """
        url, body = self.post(note)
        request = Request(  # noqa: S310 (http and https only, by the schema)
            url,
            data=json.dumps(body, ensure_ascii=False).encode(),
            headers={"Content-Type": "application/json; charset=utf-8", "User-Agent": "flowhooks-notice"},
        )
        with Deadline(self.timeout) as deadline:
            try:
                with build_opener(_NoRedirects, _Connects(deadline)).open(request, timeout=self.timeout) as answer:
                    if self.form in _ERROR_CODE_MEMBERS:
                        self._check(answer.read(MAX_RESPONSE_BYTES))
            except HTTPError as error:
                with error:
                    status = HTTPStatus(error.code).phrase if error.code in HTTPStatus._value2member_map_ else ""
                raise NotAccepted(f"it answered {error.code} {status}".rstrip()) from None

    def post(self, note: Note) -> tuple[str, dict[str, Any]]:
        """Where to post, and what."""
        text = self._text(note)
        match self.form:
            case "dingtalk":
                return self._signed_url(), {"msgtype": "text", "text": {"content": text}}
            case "wecom":
                return self.url, {"msgtype": "text", "text": {"content": text}}
            case "feishu":
                return self.url, {**self._signature(), "msg_type": "text", "content": {"text": text}}
            case _:
                return self.url, {"text": text}

    def _text(self, note: Note) -> str:
        lines = "\n".join(
            _cut_bytes(part.translate(_WITHOUT_MARKUP), most)
            for part, most in ((note.title, 600), (note.sentence, 700), ("\n".join(note.facts), 600))
        )
        if self.form == "text":
            # In a block of code nothing is read as mark-up.
            lines = f"```\n{lines}\n```"
        return f"{lines}\n{note.link}" if note.link else lines

    def _signed_url(self) -> str:
        if not self.secret:
            return self.url
        # https://open.dingtalk.com/document/robots/customize-robot-security-settings
        timestamp = str(round(self.now() * 1000))
        digest = hmac.digest(self.secret.encode(), f"{timestamp}\n{self.secret}".encode(), hashlib.sha256)
        sign = quote_plus(base64.b64encode(digest))
        return f"{self.url}{'&' if '?' in self.url else '?'}timestamp={timestamp}&sign={sign}"

    def _signature(self) -> dict[str, str]:
        if not self.secret:
            return {}
        # https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot: the key is what is said to be signed.
        timestamp = str(round(self.now()))
        digest = hmac.digest(f"{timestamp}\n{self.secret}".encode(), b"", hashlib.sha256)
        return {"timestamp": timestamp, "sign": base64.b64encode(digest).decode()}

    def _check(self, said: bytes) -> None:
        try:
            code = json.loads(said)[_ERROR_CODE_MEMBERS[self.form]]
        except (ValueError, LookupError, TypeError):
            raise NotAccepted(f"it answered 200, but not in the format of {self.form}") from None
        if code != 0:
            raise NotAccepted(f"it answered 200 with the error code {ascii(code)[:50]}")

    def plain(self, error: Exception) -> str:
        """The error in one line and without secrets: a URL has one in it."""
        if isinstance(error, NotAccepted):
            return str(error)
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {reason.verify_message}"
        if isinstance(reason, OSError) and reason.strerror:
            return f"it cannot be reached: {reason.strerror}"
        return f"it cannot be reached: {type(reason).__name__}"


def _cut_bytes(text: str, most: int) -> str:
    """The beginning of a text, at most so many bytes in UTF-8."""
    encoded = text.encode()
    if len(encoded) <= most:
        return text
    return encoded[: most - 3].decode(errors="ignore") + "…"
