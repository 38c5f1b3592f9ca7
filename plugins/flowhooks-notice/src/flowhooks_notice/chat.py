"""Post a message to the webhook of a chat.

Slack and Mattermost accept `{"text": …}` and interpret mark-up in the text. DingTalk, WeCom and Feishu each have their
own JSON format. They also reject a post with the status 200, and an error code in the body.
"""

# ruff: noqa: RUF001 (the look-alikes of characters are intended)

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

    from flowhooks_notice.message import Message

MAX_RESPONSE_BYTES: Final = 65_536
"""Maximum number of bytes of a response that are read."""
MAX_DETAILS_BYTES: Final = 600
"""Maximum bytes of the details of a message."""
MIN_DETAILS_BYTES: Final = 100
"""Minimum bytes for the details beside a long link. A link that leaves less room is left out."""
MAX_LINK_BYTES: Final = 140
"""Maximum bytes of a link beside which the details have their whole room in WeCom."""
_LOOK_ALIKES: Final = str.maketrans({"<": "‹", ">": "›", "@": "＠", "`": "'"})
"""Look-alikes of characters that mention users (`<!channel>`, `@all`, `<at user_id="all">`) or end a code block."""
_ERROR_CODE_KEYS: Final = {"dingtalk": "errcode", "wecom": "errcode", "feishu": "code"}
"""Name of the error code in a response, by the format of the chat. The code 0 means accepted."""


class PostRejected(Exception):
    """A chat rejected a post. The message has the reason, but not the URL of the chat, which is secret."""


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Return None, so a post is neither sent to another address nor changed to a GET."""


class _DeadlineHandler(HTTPHandler, HTTPSHandler):
    """Opens HTTP connections with a time limit."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._connection_factory(HTTPConnection), req)

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(self._connection_factory(HTTPSConnection), req)

    def _connection_factory(self, connection_class: type[HTTPConnection]) -> Callable[..., HTTPConnection]:
        def create(host: str, **options: Any) -> HTTPConnection:
            connection = connection_class(host, **options)
            # `connect()` is not replaced, because it also negotiates with a proxy. The time limit includes that.
            connection._create_connection = self._deadline.connect  # type: ignore[attr-defined]  # noqa: SLF001 (`connect` calls this private function)
            return connection

        return create


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A chat with a webhook.

    Attributes:
        name: name of the chat in the log.
        form: format of the posts: `"text"`, `"dingtalk"`, `"wecom"` or `"feishu"`.
        url: address of the webhook, which is secret.
        secret: key with which posts are signed; `""`: posts are not signed.
        timeout: seconds for each step, such as connecting; `Deadline` limits the whole post.
        now: returns the current time in seconds since 1970.
    """

    name: str
    form: str
    url: str = field(repr=False)
    secret: str = field(default="", repr=False)
    timeout: float = 10.0
    now: Callable[[], float] = time.time

    @classmethod
    def from_settings(cls, section: Mapping[str, Any]) -> Chat:
        """Create a chat from a section that the schema of the settings has accepted.

        Raises:
            ValueError: the URL is invalid. The message does not contain the URL.
        """
        try:
            parts = urlsplit(section["url"])
            is_valid = bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_valid = False
        if not is_valid:
            raise ValueError(f"the chat {section['name']} in [[plugins.notice.chats]]: its url cannot be read")
        return cls(
            name=section["name"],
            form=section.get("form", "text"),
            url=section["url"],
            secret=section.get("secret", ""),
            timeout=float(section.get("timeout", 10.0)),
        )

    def send(self, message: Message) -> None:
        """Post a message.

        Raises:
            PostRejected: the chat rejected the post.
            OSError: the chat could not be reached, or did not respond in time.
        """
        url, body = self.build_post(message)
        request = Request(  # noqa: S310 (the schema accepts only http and https)
            url,
            data=json.dumps(body, ensure_ascii=False).encode(),
            headers={"Content-Type": "application/json; charset=utf-8", "User-Agent": "flowhooks-notice"},
        )
        with Deadline(self.timeout) as deadline:
            opener = build_opener(_NoRedirects, _DeadlineHandler(deadline))
            try:
                with opener.open(request, timeout=self.timeout) as response:
                    if self.form in _ERROR_CODE_KEYS:
                        self._check_error_code(response.read(MAX_RESPONSE_BYTES))
            except HTTPError as error:
                with error:
                    phrase = HTTPStatus(error.code).phrase if error.code in HTTPStatus._value2member_map_ else ""
                raise PostRejected(f"it answered {error.code} {phrase}".rstrip()) from None

    def build_post(self, message: Message) -> tuple[str, dict[str, Any]]:
        """Return the address and the JSON body of the post."""
        text = self._text(message)
        match self.form:
            case "dingtalk":
                return self._signed_url(), {"msgtype": "text", "text": {"content": text}}
            case "wecom":
                return self.url, {"msgtype": "text", "text": {"content": text}}
            case "feishu":
                return self.url, {**self._signature_members(), "msg_type": "text", "content": {"text": text}}
            case _:
                return self.url, {"text": text}

    def _text(self, message: Message) -> str:
        link, details_limit = message.link, MAX_DETAILS_BYTES
        if self.form == "wecom":
            # A longer link takes its room from the details.
            details_limit -= max(0, len(link.encode()) - MAX_LINK_BYTES)
            if details_limit < MIN_DETAILS_BYTES:
                link, details_limit = "", MAX_DETAILS_BYTES
        # The limits add up to 1,900 bytes, and to 2,043 bytes with a link and line breaks. WeCom accepts 2,048.
        parts = ((message.title, 600), (message.text, 700), ("\n".join(message.details), details_limit))
        lines = "\n".join(_truncate_bytes(part.translate(_LOOK_ALIKES), limit) for part, limit in parts)
        if self.form == "text":
            # In a code block, mark-up is not interpreted.
            lines = f"```\n{lines}\n```"
        return f"{lines}\n{link}" if link else lines

    def _signed_url(self) -> str:
        if not self.secret:
            return self.url
        # https://open.dingtalk.com/document/robots/customize-robot-security-settings
        timestamp = str(round(self.now() * 1000))
        digest = hmac.digest(self.secret.encode(), f"{timestamp}\n{self.secret}".encode(), hashlib.sha256)
        signature = quote_plus(base64.b64encode(digest))
        return f"{self.url}{'&' if '?' in self.url else '?'}timestamp={timestamp}&sign={signature}"

    def _signature_members(self) -> dict[str, str]:
        if not self.secret:
            return {}
        # https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot
        # The signed text is empty; the key consists of the timestamp and the secret.
        timestamp = str(round(self.now()))
        digest = hmac.digest(f"{timestamp}\n{self.secret}".encode(), b"", hashlib.sha256)
        return {"timestamp": timestamp, "sign": base64.b64encode(digest).decode()}

    def _check_error_code(self, body: bytes) -> None:
        try:
            code = json.loads(body)[_ERROR_CODE_KEYS[self.form]]
        except (ValueError, LookupError, TypeError):
            raise PostRejected(f"it answered 200, but not in the format of {self.form}") from None
        if code != 0:
            raise PostRejected(f"it answered 200 with the error code {ascii(code)[:50]}")

    def error_text(self, error: Exception) -> str:
        """Return the text of an error, on one line and without the secret URL."""
        if isinstance(error, PostRejected):
            return str(error)
        reason = error.reason if isinstance(error, URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {reason.verify_message}"
        if isinstance(reason, OSError) and reason.strerror:
            return f"it cannot be reached: {reason.strerror}"
        return f"it cannot be reached: {type(reason).__name__}"


def _truncate_bytes(text: str, limit: int) -> str:
    """Return the start of a text, at most `limit` bytes in UTF-8."""
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - 3].decode(errors="ignore") + "…"  # the ellipsis has 3 bytes
