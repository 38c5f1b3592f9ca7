"""flowhooks-notice against a mail server and a webhook on real sockets."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import shlex
import socket
import time
from datetime import UTC, datetime
from importlib.metadata import entry_points
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import flowhooks_notice
import pytest
from flowhooks_notice import NotDelivered, Notice
from flowhooks_notice.chat import Chat
from flowhooks_notice.message import compose

from flowhooks import AlertCause, Event, FlowhooksError, handler

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks import Alert
    from flowhooks.testing import AppFactory

NASTY = (
    'k\r\nBcc: evil@example.com\r\n\r\n<!channel> @all <at user_id="all">x</at> ``` [x](http://x) \x1b[31m\u2028合同'
)


def notice(*chats: dict[str, Any], **settings: Any) -> Notice:
    """A plugin with these settings, as the server configures it."""
    made = Notice()
    made.configure({"time_zone": "UTC"} | settings | ({"chats": list(chats)} if chats else {}))
    return made


def email(server: Any, **changes: Any) -> dict[str, Any]:
    """The section of a mail server that does not encrypt."""
    section = {
        "host": "127.0.0.1",
        "port": server.port,
        "security": "none",
        "from": "flowhooks@example.com",
        "to": ["ops@example.com", "night@example.com"],
        "timeout": 20,
    }
    return section | changes


def chat(hook: Any, form: str = "text", **changes: Any) -> dict[str, Any]:
    """The section of a chat."""
    return {"name": form, "form": form, "url": hook.url(), "timeout": 20} | changes


def test_the_entry_point_names_the_plugin() -> None:
    """The installed package announces its object as the plugin `notice`."""
    found = entry_points(group="flowhooks", name="notice")
    assert [entry_point.load() for entry_point in found] == [flowhooks_notice.plugin]


def test_an_alert_is_one_mail_to_all_receivers(plain: Any, make_alert: Callable[..., Alert]) -> None:
    """All receivers get one mail with the cause, its start, the count and a link to the console."""
    notice(email=email(plain), console_url="https://flows.example.com/").alert_raised(make_alert())
    ((receivers, mail),) = plain.mails
    assert receivers == ["ops@example.com", "night@example.com"]
    assert (mail["Subject"], mail["From"]) == (
        "[flowhooks] dead: contracts:archive_contract",
        "flowhooks@example.com",
    )
    assert mail["Message-ID"] == "<0197-alert@example.com>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"].datetime.utcoffset().total_seconds() == 0
    assert mail.get_content().splitlines() == [
        "20 deliveries of handler contracts:archive_contract are dead: fix the cause.",
        "",
        "Cause: dead",
        "Severity: error",
        "Subject: contracts:archive_contract",
        "Plugin version: 1.4",
        "Since: 2026-01-31 09:30:00 UTC",
        "Count: 20",
        "Event: 0197-event",
        "Alert: 0197-alert",
        "Host: flows-1",
        "",
        "Console: https://flows.example.com/console/handlers?q=contracts%3Aarchive_contract",
    ]


def test_the_end_of_an_alert_is_a_mail(plain: Any, make_alert: Callable[..., Alert]) -> None:
    """A mail about the end of an alert says so in its subject, and refers to the first mail."""
    made = notice(email=email(plain), time_zone="Asia/Shanghai")
    made.alert_raised(make_alert())
    ended = make_alert(message="Resolved: the cause dead has ended.", resolved_at=datetime(2026, 1, 31, 10, tzinfo=UTC))
    made.alert_resolved(ended)
    (_, _), (_, mail) = plain.mails
    assert mail["Subject"] == "[flowhooks] [resolved] dead: contracts:archive_contract"
    assert (mail["Message-ID"], mail["References"]) == (
        "<0197-alert.resolved@example.com>",
        "<0197-alert@example.com>",
    )
    text = mail.get_content().splitlines()
    assert text[0] == "Resolved: the cause dead has ended."
    assert "Since: 2026-01-31 17:30:00 CST (UTC+08:00)" in text
    assert "Resolved: 2026-01-31 18:00:00 CST (UTC+08:00)" in text


def test_the_end_of_an_alert_in_chinese(hook: Any, make_alert: Callable[..., Alert]) -> None:
    """A Chinese message about the end of an alert names the cause, both times and the last count."""
    made = notice(chat(hook), language="zh", time_zone="Asia/Shanghai")
    made.alert_resolved(make_alert(resolved_at=datetime(2026, 1, 31, 10, tzinfo=UTC)))
    ((_, body),) = hook.posts
    assert body["text"].splitlines()[1:3] == [
        "[flowhooks] [已恢复] 最终失败：contracts:archive_contract",
        (
            "已恢复：contracts:archive_contract 的原因“最终失败”已消除，从 2026-01-31 17:30:00 CST (UTC+08:00) "
            "到 2026-01-31 18:00:00 CST (UTC+08:00)，最后的数量为 20。"
        ),
    ]


def test_end_notification_is_retried_for_the_failed_channel(
    hook: Any, plain: Any, make_alert: Callable[..., Alert]
) -> None:
    """An end that one channel did not accept is sent again to that channel only."""
    made = notice(chat(hook), email=email(plain, host="127.0.0.1", port=1))
    ended = make_alert(resolved_at=datetime(2026, 1, 31, 10, tzinfo=UTC))
    for _ in range(2):
        with pytest.raises(NotDelivered, match="email"):
            made.alert_resolved(ended)
    assert len(hook.posts) == 1


def test_the_end_is_sent_to_the_channels_that_accepted_the_alert(
    hook: Any, plain: Any, make_alert: Callable[..., Alert]
) -> None:
    """The end is sent to the channel that accepted the alert, not to the one that did not, and then forgotten."""
    made = notice(chat(hook), email=email(plain))
    hook.response = (500, b"")
    with pytest.raises(NotDelivered):
        made.alert_raised(make_alert())
    hook.response = (200, b"ok")
    made.alert_resolved(make_alert(resolved_at=datetime(2026, 1, 31, 10, tzinfo=UTC)))
    assert [mail["Message-ID"] for _, mail in plain.mails] == [
        "<0197-alert@example.com>",
        "<0197-alert.resolved@example.com>",
    ]
    assert len(hook.posts) == 1
    assert not vars(made)["_accepted"]


def test_an_unknown_time_zone_is_rejected(hook: Any) -> None:
    """A misspelt time zone is refused by name."""
    with pytest.raises(ValueError, match="time_zone 'Asia/Shangai' is not known"):
        notice(chat(hook), time_zone="Asia/Shangai")


def test_growth_of_an_alert_is_a_separate_mail(plain: Any, make_alert: Callable[..., Alert]) -> None:
    """A mail about growth has the new count and the last error, and replies to the first mail."""
    made = notice(email=email(plain))
    made.alert_raised(make_alert())
    last = datetime(2026, 1, 31, 10, tzinfo=UTC)
    grown = make_alert(count=3220, notification=2, new_count=3200, last_at=last, last_error="ErpUnavailable:\n503")
    made.alert_raised(grown)
    (_, _), (_, mail) = plain.mails
    assert mail["Subject"] == "[flowhooks] dead: contracts:archive_contract (+3200)"
    assert (mail["Message-ID"], mail["References"]) == ("<0197-alert.2@example.com>", "<0197-alert@example.com>")
    text = mail.get_content().splitlines()
    assert "Count: 3220 (+3200 since the last notification)" in text
    assert "Latest: 2026-01-31 10:00:00 UTC" in text
    assert "Last error: ErpUnavailable: 503" in text


@pytest.mark.parametrize(
    ("form", "said"),
    [("text", b"ok"), ("dingtalk", b'{"errcode": 0}'), ("wecom", b'{"errcode": 0}'), ("feishu", b'{"code": 0}')],
)
def test_growth_of_an_alert_in_a_chinese_chat_post(
    hook: Any, make_alert: Callable[..., Alert], form: str, said: bytes
) -> None:
    """The post reports how many deliveries are new and how the newest failed."""
    hook.response = (200, said)
    grown = make_alert(count=3220, notification=2, new_count=3200, last_error="收款人 <!channel> 没有账号")
    notice(chat(hook, form), language="zh").alert_raised(grown)
    ((_, body),) = hook.posts
    text = json.dumps(body, ensure_ascii=False)
    assert "比上次通知增加 3200。" in text
    assert "数量：3220（比上次通知增加 3200）" in text
    assert "最近的错误：收款人 ‹!channel› 没有账号" in text


def test_a_channel_that_missed_the_first_notification_gets_the_second(
    plain: Any, hook: Any, make_alert: Callable[..., Alert]
) -> None:
    """A channel that missed the first notification of an alert gets the next one."""
    hook.response = (500, b"")
    made = notice(chat(hook), email=email(plain))
    with pytest.raises(NotDelivered):
        made.alert_raised(make_alert())
    hook.response = (200, b"ok")
    made.alert_raised(make_alert(notification=2, new_count=20))
    assert [mail["Message-ID"] for _, mail in plain.mails] == ["<0197-alert@example.com>", "<0197-alert.2@example.com>"]


def test_an_alert_in_chinese(plain: Any, make_alert: Callable[..., Alert]) -> None:
    """With `language = "zh"` the subject, the text and the labels are Chinese."""
    notice(email=email(plain), language="zh", subject_prefix="【流程】").alert_raised(make_alert())
    ((_, mail),) = plain.mails
    assert mail["Subject"] == "【流程】 最终失败：contracts:archive_contract"
    assert "处理器 contracts:archive_contract 有 20 个投递最终失败" in mail.get_content()
    assert "始于：2026-01-31 09:30:00 UTC" in mail.get_content()


@pytest.mark.parametrize("cause", AlertCause)
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("subject", ["p:h", "(others)"])
def test_every_cause_has_a_text(
    make_alert: Callable[..., Alert], cause: AlertCause, language: str, subject: str
) -> None:
    """Each cause of an alert has a text in both languages."""
    message = compose(
        make_alert(cause=cause, subject=subject, event_id=""), language=language, prefix="", console_url="https://c"
    )
    assert subject in message.title
    assert message.text
    assert "{" not in message.text
    assert message.link.endswith("https://c/console/handlers?q=contracts%3Aarchive_contract")
    assert not any(line.startswith(("Event", "事件")) for line in message.details)


@pytest.mark.parametrize(
    "subject", ["a b", "'", "\"'\\", "$(touch pwned)", "`touch pwned`; touch pwned & #", "-h", "a."]
)
def test_the_subject_is_one_word_of_a_command(make_alert: Callable[..., Alert], subject: str) -> None:
    """A shell into which a Chinese message is copied gets the subject as one word."""
    for cause, before, after in (
        (AlertCause.CIRCUIT_OPEN, "flowhooks handlers resume ", " 立即恢复"),
        (AlertCause.DEAD, "flowhooks events replay --handler ", "。"),
    ):
        message = compose(make_alert(cause=cause, subject=subject), language="zh", prefix="", console_url="")
        assert shlex.split(message.text.partition(before)[2].rpartition(after)[0]) == [subject]


def test_every_cause_can_be_chosen() -> None:
    """The setting `causes` takes each cause that flowhooks has, and all of them are sent by default."""
    schema = json.loads(files("flowhooks_notice").joinpath("schemas/settings.schema.json").read_text("utf-8"))
    causes = schema["properties"]["causes"]
    assert set(causes["items"]["enum"]) == set(AlertCause) - {AlertCause.TEST}
    assert causes["default"] == causes["items"]["enum"]


@pytest.mark.parametrize("server", ["starttls", "tls"])
def test_mail_server_login_requires_tls(
    request: pytest.FixtureRequest, server: str, ca_file: str, password: str, make_alert: Callable[..., Alert]
) -> None:
    """With STARTTLS or TLS the plugin checks the server's certificate before it sends the password."""
    taking = request.getfixturevalue(server)
    section = email(taking, security=server, ca_file=ca_file, user="flow", password=password)
    notice(email=section).alert_raised(make_alert())
    assert taking.encrypted == [True]
    assert sum(command.startswith("AUTH") for command in taking.commands) == 1


@pytest.mark.parametrize("server", ["starttls", "tls"])
def test_an_untrusted_server_gets_no_password_or_mail(
    request: pytest.FixtureRequest, server: str, password: str, make_alert: Callable[..., Alert]
) -> None:
    """A server with an untrusted certificate gets neither password nor mail."""
    taking = request.getfixturevalue(server)
    section = email(taking, security=server, user="flow", password=password)
    with pytest.raises(NotDelivered, match="certificate verify failed"):
        notice(email=section).alert_raised(make_alert())
    assert taking.mails == []
    assert not any(command.startswith("AUTH") for command in taking.commands)


def test_a_server_without_starttls_gets_no_password_or_mail(
    plain: Any, ca_file: str, password: str, make_alert: Callable[..., Alert]
) -> None:
    """An attacker who removes STARTTLS from a server's offer gets neither password nor mail."""
    section = email(plain, security="starttls", ca_file=ca_file, user="flow", password=password)
    with pytest.raises(NotDelivered, match="STARTTLS"):
        notice(email=section).alert_raised(make_alert())
    assert plain.mails == []
    assert not any(command.startswith("AUTH") for command in plain.commands)


def test_a_failed_login_does_not_reveal_the_password(tls: Any, ca_file: str, make_alert: Callable[..., Alert]) -> None:
    """The error names the user whose login failed, but not the password."""
    section = email(tls, security="tls", ca_file=ca_file, user="flow", password="wrong-one")
    made = notice(email=section)
    with pytest.raises(NotDelivered, match=r"rejected the login of flow \(535\)") as raised:
        made.alert_raised(make_alert())
    assert "wrong-one" not in f"{raised.value!r} {raised.value.__cause__!r}"
    assert "wrong-one" not in repr(vars(made))


def test_no_value_becomes_a_header(plain: Any, make_alert: Callable[..., Alert]) -> None:
    """Line breaks in names of a callback become spaces, in the subject and in the text."""
    notice(email=email(plain)).alert_raised(make_alert(cause=AlertCause.PARKED, subject=f"key {NASTY}", message=NASTY))
    ((receivers, mail),) = plain.mails
    assert receivers == ["ops@example.com", "night@example.com"]
    assert mail.keys() == [
        "Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted",
        "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    ]  # fmt: skip
    assert mail["Subject"].startswith("[flowhooks] parked: key k Bcc: evil@example.com <!channel>")
    assert not any(line.startswith("Bcc") for line in mail.get_content().splitlines())
    assert not any(line.lower().startswith(b"bcc") for line in plain.raw[0].splitlines())


def test_an_encoded_word_is_text(plain: Any, make_alert: Callable[..., Alert]) -> None:
    """A key in the form of RFC 2047's encoded words is not decoded, so its line ends cannot end the mail's header."""
    word = "=?utf-8?q?x=0D=0ABcc=3A_evil=40example=2Ecom=0D=0A=0D=0A=3Ca_href=3Dhttps=3A//evil=3E?="
    for key in (word, f"合同 {word}", f"={word}", f"{word[:-2]}\r\n?="):
        notice(email=email(plain)).alert_raised(make_alert(cause=AlertCause.PARKED, subject=f"key {key}"))
        _, mail = plain.mails[-1]
        assert mail["Subject"].startswith(f"[flowhooks] parked: key {key.replace('=?', '= ?')[:40]}")
        assert mail["From"] == "flowhooks@example.com"
        assert "Bcc" not in mail


@pytest.mark.parametrize("text", [".\r\n.", "x" * 20_000, "合" * 20_000])
def test_any_text_can_be_sent_as_a_mail(plain: Any, make_alert: Callable[..., Alert], text: str) -> None:
    """Dots, very long lines and Chinese text arrive as one mail, with lines that servers accept; long text is cut."""
    notice(email=email(plain)).alert_raised(make_alert(subject=text, message=text))
    ((_, mail),) = plain.mails
    assert len(plain.raw[0]) < 40_000
    assert max(map(len, plain.raw[0].splitlines())) <= 998
    assert len(mail["Subject"]) <= 200


def test_one_rejected_receiver_does_not_fail_the_mail(
    plain: Any, make_alert: Callable[..., Alert], caplog: pytest.LogCaptureFixture
) -> None:
    """One refused receiver is logged and the mail counts as sent; it does not if all receivers are refused."""
    plain.replies["rcpt to:<night@example.com>"] = "550 unknown"
    notice(email=email(plain)).alert_raised(make_alert())
    assert [receivers for receivers, _ in plain.mails] == [["ops@example.com"]]
    assert "rejected night@example.com" in caplog.text
    plain.replies["RCPT"] = "550 unknown"
    with pytest.raises(NotDelivered, match="rejected every recipient"):
        notice(email=email(plain)).alert_raised(make_alert())


@pytest.mark.parametrize("command", ["MAIL", "DATA", "EHLO"])
def test_a_mail_rejected_by_the_server_is_sent_again(
    plain: Any, make_alert: Callable[..., Alert], command: str
) -> None:
    """A mail that the server refused is sent at the next call, as one mail, whatever the server answers to QUIT."""
    plain.replies |= {command: "451 later", "HELO": "451 later", "QUIT": "421 idle"}
    made = notice(email=email(plain))
    with pytest.raises(NotDelivered, match="451"):
        made.alert_raised(make_alert())
    assert plain.mails == []
    plain.replies = {"QUIT": "250 bye"}
    made.alert_raised(make_alert())
    assert len(plain.mails) == 1


def test_timeout_of_an_unresponsive_mail_server(plain: Any, make_alert: Callable[..., Alert]) -> None:
    """The timeout ends the connection to a mail server that sends nothing."""
    plain.silent.set()
    with pytest.raises(NotDelivered, match=r"email: 127\.0\.0\.1:\d+: .*tim"):
        notice(email=email(plain, timeout=0.2)).alert_raised(make_alert())


@pytest.mark.parametrize("server", ["plain", "tls"])
def test_time_limit_of_an_endless_mail_server_reply(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    ca_file: str,
    make_alert: Callable[..., Alert],
) -> None:
    """The time limit of a mail ends the connection although each line of the reply arrives in time."""
    monkeypatch.setattr("flowhooks_notice.deadline.TIMEOUT_FACTOR", 0.05)
    dripping = request.getfixturevalue(server)
    dripping.endless_reply.set()
    security = {"plain": "none", "tls": "tls"}[server]
    with pytest.raises(NotDelivered, match=r"email: 127\.0\.0\.1:\d+: .*timed out"):
        notice(email=email(dripping, security=security, ca_file=ca_file)).alert_raised(make_alert())


def test_slack_and_mattermost(hook: Any, make_alert: Callable[..., Alert]) -> None:
    """In the text only the link is interpreted as mark-up."""
    notice(chat(hook), console_url="https://flows.example.com").alert_raised(make_alert())
    ((path, body),) = hook.posts
    assert path == "/hook/s3cret"
    assert list(body) == ["text"]
    assert body["text"].startswith("```\n[flowhooks] dead: contracts:archive_contract\n20 deliveries")
    assert body["text"].endswith(
        "\n```\nConsole: https://flows.example.com/console/handlers?q=contracts%3Aarchive_contract"
    )


def test_dingtalk_is_signed(hook: Any, make_alert: Callable[..., Alert]) -> None:
    """The signature matches DingTalk's documentation: computed over the milliseconds with the secret."""
    hook.response = (200, b'{"errcode": 0, "errmsg": "ok"}')
    notice(chat(hook, "dingtalk", url=hook.url("/robot/send?access_token=t"), secret="SEC1")).alert_raised(make_alert())
    ((path, body),) = hook.posts
    query = {name: value for name, (value,) in parse_qs(urlsplit(path).query, strict_parsing=True).items()}
    signed = hmac.new(b"SEC1", f"{query['timestamp']}\nSEC1".encode(), hashlib.sha256).digest()
    assert (query["access_token"], query["sign"]) == ("t", base64.b64encode(signed).decode())
    assert len(query["timestamp"]) == 13
    assert body["msgtype"] == "text"
    assert "at" not in body
    assert body["text"]["content"].startswith("[flowhooks] dead: contracts:archive_contract\n")


def test_feishu_is_signed(hook: Any, make_alert: Callable[..., Alert]) -> None:
    """The signature matches Feishu's documentation: computed over nothing, with seconds and secret as the key."""
    hook.response = (200, b'{"code": 0, "data": {}, "msg": "success"}')
    notice(chat(hook, "feishu", secret="SEC1")).alert_raised(make_alert())
    ((_, body),) = hook.posts
    signed = hmac.new(f"{body['timestamp']}\nSEC1".encode(), b"", hashlib.sha256).digest()
    assert body["sign"] == base64.b64encode(signed).decode()
    assert len(body["timestamp"]) == 10
    assert body["msg_type"] == "text"
    assert body["content"]["text"].startswith("[flowhooks] dead: contracts:archive_contract\n")


def test_wecom_text_fits_the_byte_limit(hook: Any, make_alert: Callable[..., Alert]) -> None:
    """With long or Chinese values the text keeps all its lines and has at most the 2,048 bytes that WeCom accepts."""
    hook.response = (200, b'{"errcode": 0, "errmsg": "ok"}')
    long = make_alert(cause=AlertCause.PARKED, subject="合" * 5_000, message="合" * 5_000)
    notice(chat(hook, "wecom"), language="zh", subject_prefix="流" * 100).alert_raised(long)
    ((_, body),) = hook.posts
    assert body["msgtype"] == "text"
    assert len(body["text"]["content"].encode()) <= 2_048
    assert len(body["text"]["content"].splitlines()) >= 4


@pytest.mark.parametrize(("link_bytes", "has_link"), [(140, True), (141, True), (600, True), (5_000, False)])
def test_wecom_text_with_a_long_link(
    hook: Any, make_alert: Callable[..., Alert], link_bytes: int, *, has_link: bool
) -> None:
    """A long address of the console leaves less room for the details, or is left out."""
    hook.response = (200, b'{"errcode": 0, "errmsg": "ok"}')
    url = f"https://flowhooks.example/console/handlers/{'a' * link_bytes}"[: link_bytes - len("控制台: ".encode())]
    long = make_alert(
        cause=AlertCause.PARKED, subject="合" * 5_000, message="合" * 5_000, last_error="误" * 500, console_url=url
    )
    notice(chat(hook, "wecom"), language="zh", subject_prefix="流" * 100).alert_raised(long)
    ((_, body),) = hook.posts
    content = body["text"]["content"]
    assert len(content.encode()) <= 2_048
    assert content.endswith(url) is has_link


@pytest.mark.parametrize("form", ["text", "dingtalk", "wecom", "feishu"])
def test_no_value_becomes_a_mention_or_markup(make_alert: Callable[..., Alert], form: str) -> None:
    """Tags, mentions and ends of code blocks are replaced by similar characters."""
    alert = make_alert(cause=AlertCause.PARKED, subject=f"key {NASTY}", message=NASTY)
    message = compose(alert, language="en", prefix="", console_url="")
    text = json.dumps(Chat(name="c", form=form, url="http://127.0.0.1/").build_post(message)[1], ensure_ascii=False)
    text = text.replace("```\\n", "", 1).replace("\\n```", "", 1) if form == "text" else text
    assert not {"<", ">", "@", "`"} & set(text)
    assert "合同" in text


REFUSALS = [
    ("text", 404, b"no_service", "404 Not Found"),
    ("text", 500, b"", "500 Internal Server Error"),
    ("text", 302, b"", "302 Found"),
    ("dingtalk", 200, b'{"errcode": 310000, "errmsg": "sign not match"}', "error code 310000"),
    ("wecom", 200, b'{"errcode": 93000, "errmsg": "invalid webhook url"}', "error code 93000"),
    ("feishu", 200, b'{"code": 19021, "msg": "sign match fail"}', "error code 19021"),
    ("feishu", 200, b"<html>a proxy</html>", "not in the format of feishu"),
    ("wecom", 200, b"[]", "not in the format of wecom"),
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_post_rejected_by_the_chat_is_sent_again(
    hook: Any, make_alert: Callable[..., Alert], refusal: tuple[str, int, bytes, str]
) -> None:
    """A post that was refused is sent again, log records do not show the chat's URL, and redirects are not followed."""
    form, status, said, why = refusal
    hook.response, hook.headers = (status, said), {"Location": hook.url("/elsewhere")}
    with pytest.raises(NotDelivered, match=why) as raised:
        notice(chat(hook, form)).alert_raised(make_alert())
    assert "s3cret" not in str(raised.value)
    assert [path for path, _ in hook.posts] == ["/hook/s3cret"]


def test_timeout_of_an_unresponsive_chat(hook: Any, make_alert: Callable[..., Alert]) -> None:
    """The timeout ends the request to a chat that sends nothing."""
    hook.silent.set()
    with pytest.raises(NotDelivered, match=r"text: it cannot be reached: TimeoutError|timed out"):
        notice(chat(hook, timeout=0.2)).alert_raised(make_alert())


@pytest.mark.parametrize(
    ("form", "drips"),
    [
        ("text", (b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
        ("wecom", (b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n", b" ")),
    ],
    ids=["1xx", "body"],
)
def test_time_limit_of_an_endless_chat_answer(
    hook: Any, monkeypatch: pytest.MonkeyPatch, make_alert: Callable[..., Alert], form: str, drips: tuple[bytes, bytes]
) -> None:
    """The time limit of a post ends the request although each part of the answer arrives in time."""
    monkeypatch.setattr("flowhooks_notice.deadline.TIMEOUT_FACTOR", 0.05)
    hook.endless_response = drips
    with pytest.raises(NotDelivered, match=f"{form}: it cannot be reached: timed out"):
        notice(chat(hook, form)).alert_raised(make_alert())


def test_the_body_is_not_read_if_the_status_is_sufficient(hook: Any, make_alert: Callable[..., Alert]) -> None:
    """A Slack or Mattermost that has accepted a post is not waited for any longer."""
    hook.endless_response = (b"HTTP/1.1 200 OK\r\n\r\n", b" ")
    notice(chat(hook)).alert_raised(make_alert())
    assert len(hook.posts) == 1


def test_an_unreachable_chat_is_reported_without_its_url(make_alert: Callable[..., Alert]) -> None:
    """The error reports that the chat does not answer, without its URL."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/hook/s3cret"
    with pytest.raises(NotDelivered, match="cannot be reached: Connection refused") as raised:
        notice({"name": "text", "url": url}).alert_raised(make_alert())
    assert "s3cret" not in str(raised.value)


def test_a_channel_that_accepted_an_alert_is_not_notified_again(
    hook: Any, plain: Any, make_alert: Callable[..., Alert]
) -> None:
    """When a chat fails, the mail is not sent a second time; another alert is another mail."""
    made = notice(chat(hook), email=email(plain))
    hook.response = (500, b"")
    for _ in range(3):
        with pytest.raises(NotDelivered, match=r"^alert 0197-alert was not delivered by text: it answered 500"):
            made.alert_raised(make_alert())
    assert (len(plain.mails), len(hook.posts)) == (1, 3)
    hook.response = (200, b"ok")
    made.alert_raised(make_alert())
    made.alert_raised(make_alert(id="another"))
    assert (len(plain.mails), len(hook.posts)) == (2, 5)


def test_the_number_of_tracked_alerts_is_limited(hook: Any, monkeypatch: pytest.MonkeyPatch, make_alert: Any) -> None:
    """The number of tracked alerts has a limit."""
    monkeypatch.setattr("flowhooks_notice.MAX_TRACKED_ALERTS", 3)
    hook.response = (500, b"")
    made = notice(chat(hook))
    for number in range(6):
        with pytest.raises(NotDelivered):
            made.alert_raised(make_alert(id=str(number)))
    assert len(hook.posts) == 6
    assert list(vars(made)["_accepted"]) == ["3", "4", "5"]


def test_alerts_of_unselected_causes_are_not_sent(hook: Any, make_alert: Callable[..., Alert]) -> None:
    """An alert of a cause that is not selected is accepted, and nobody is notified."""
    made = notice(chat(hook), causes=["dead", "unknown"])
    for cause in AlertCause:
        made.alert_raised(make_alert(id=cause, cause=cause))
    assert [body["text"].split()[2] for _, body in hook.posts] == ["dead:", "unknown:", "test:"]


def test_an_alert_without_a_receiver_is_not_accepted(
    caplog: pytest.LogCaptureFixture, make_alert: Callable[..., Alert]
) -> None:
    """Without a receiver the plugin logs it once and accepts no alert, so that a test message fails."""
    with caplog.at_level(logging.WARNING, "flowhooks_notice"):
        made = notice()
    assert "alerts are not sent" in caplog.text
    with pytest.raises(NotDelivered, match=r"configure a receiver in \[plugins\.notice\.email\]"):
        made.alert_raised(make_alert(cause="test"))
    made.alert_resolved(make_alert())  # an earlier configuration had a receiver: nobody is left to tell


def test_two_chats_with_the_same_name_are_rejected(hook: Any) -> None:
    """Two chats with the same name are refused, because the log could not distinguish them."""
    with pytest.raises(ValueError, match="two chats named text"):
        notice(chat(hook), chat(hook))


def test_a_chat_with_the_name_of_the_mail_server_is_rejected(plain: Any, hook: Any) -> None:
    """A chat named like the mail server is refused, because an alert that one accepted would not go to the other."""
    with pytest.raises(ValueError, match="the name email is that of the mail server; give the chat another name"):
        notice(chat(hook, name="email"), email=email(plain))


def test_a_chat_can_be_named_email_without_a_mail_server(hook: Any, make_alert: Callable[..., Alert]) -> None:
    """Without a mail server, a chat named `email` gets alerts."""
    notice(chat(hook, name="email")).alert_raised(make_alert())
    assert len(hook.posts) == 1


@pytest.mark.parametrize("url", ["http://[x", "http://:80/s3cret", "http://h:99999/s3cret"])
def test_an_invalid_url_is_not_shown(hook: Any, url: str) -> None:
    """The error names the chat, but not its secret URL."""
    with pytest.raises(ValueError, match=r"the chat text in .* its url cannot be read") as raised:
        notice(chat(hook, url=url))
    assert "s3cret" not in str(raised.value)


def test_an_unreadable_certificate_file_prevents_the_start(plain: Any) -> None:
    """The plugin does not start if it cannot read the file of certificates, and reports the reason."""
    with pytest.raises(ValueError, match="ca_file cannot be used: No such file"):
        notice(email=email(plain, ca_file="/nowhere/ca.pem"))


def test_twenty_dead_deliveries_are_one_mail(
    flowhooks_app: AppFactory,
    starttls: Any,
    ca_file: str,
    password: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a complete server each cause is one mail, and none is repeated after a crash and two more starts."""
    monkeypatch.setenv("NOTICE_TEST_PASSWORD", password)
    # On a busy machine an accepted mail may be recorded late; a restart before that would send it again.
    monkeypatch.setattr("flowhooks.app.STOP_TIMEOUT", 20.0)
    section = email(
        starttls, security="starttls", ca_file=ca_file, user="flow", password={"env": "NOTICE_TEST_PASSWORD"}
    )
    app = flowhooks_app(
        grant, book, names={"notice": Notice()}, settings={"notice": {"email": section, "causes": ["dead"]}}
    )
    for number in range(20):
        assert app.post(str(number), processDefinitionKey="leave").status == 500
    app.post("parked", processDefinitionKey="nobody")
    app.crash()
    app.restart()
    eventually(lambda: len(starttls.mails) == 1)
    app.restart()
    assert app.post("20", processDefinitionKey="travel").status == 500
    app.restart()
    eventually(lambda: len(starttls.mails) == 2)
    assert [mail["Subject"] for _, mail in starttls.mails] == [
        "[flowhooks] dead: handlers:grant",
        "[flowhooks] dead: handlers:book",
    ]
    assert starttls.encrypted == [True, True]


@handler(process_key="leave")
def grant(event: Event) -> None:
    """Fail finally."""
    raise ValueError("no")


@handler(process_key="travel")
def book(event: Event) -> None:
    """Fail finally."""
    raise ValueError("no")


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


GOOD = {"host": "mail.example.com", "from": "a@example.com", "to": ["b@example.com"]}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"emial": {}}, "emial"),
    ({"language": "fr"}, "language"),
    ({"causes": ["ded"]}, "causes"),
    ({"causes": []}, "causes"),
    ({"subject_prefix": "a\nb"}, "subject_prefix"),
    ({"console_url": "javascript:alert(1)"}, "console_url"),
    ({"email": {}}, "email"),
    ({"email": GOOD | {"to": []}}, "to"),
    ({"email": GOOD | {"to": ["b@example.com\nBcc: c@example.com"]}}, "to"),
    ({"email": GOOD | {"from": "Flow <a@example.com>"}}, "from"),
    ({"email": GOOD | {"security": "ssl"}}, "security"),
    ({"email": GOOD | {"user": "u"}}, "password"),
    ({"email": GOOD | {"security": "none", "user": "u", "password": "s3cret"}}, "password"),
    ({"email": GOOD | {"user": "u", "password": "s3cret-\u00e4"}}, "password"),
    ({"email": GOOD | {"timeout": 0}}, "timeout"),
    ({"chats": [{"name": "a"}]}, "url"),
    ({"chats": [{"name": "a", "url": "file:///etc/s3cret"}]}, "url"),
    ({"chats": [{"name": "a", "url": "https://h/", "form": "irc"}]}, "form"),
    ({"chats": [{"name": "a", "url": "https://h/", "secret": "s3cret"}]}, "secret"),
    ({"chats": [{"name": "a b", "url": "https://h/"}]}, "name"),
]


@pytest.mark.parametrize(("settings", "named"), REFUSED)
def test_invalid_settings_quarantine_the_plugin(
    flowhooks_app: AppFactory, settings: dict[str, Any], named: str
) -> None:
    """A misspelt or revealing setting quarantines the plugin; the reason has its name, not its value."""
    with pytest.raises(FlowhooksError) as raised:
        flowhooks_app(names={"notice": Notice()}, settings={"notice": settings})
    assert named in str(raised.value)
    assert "s3cret" not in str(raised.value)
