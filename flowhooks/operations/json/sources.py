"""Encode sources as JSON, the same for commands and the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypedDict

from flowhooks.clock import to_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flowhooks.operations.json.encoding import TimestampJson
    from flowhooks.operations.json.engines import EngineJson
    from flowhooks.operations.sources import SourceStatus
    from flowhooks.settings import IngressSettings

MAX_IGNORED_BODY_CHARS: Final = 4096
"""Maximum length of the body of an ignored request in a list of sources, because each has up to 200 rules."""


class RejectionsJson(TypedDict):
    """Requests that were rejected with the same status for the same reason.

    Attributes:
        status: HTTP status.
        requests: number of requests, as far as they are stored.
        last_at: when the last of them was rejected.
        reason_en: the reason, in English.
        reason_zh: the same in Chinese.
    """

    status: int
    requests: int
    last_at: TimestampJson
    reason_en: str
    reason_zh: str


class CredentialAgeJson(TypedDict):
    """A credential of a source, without the credential.

    Attributes:
        kind: `token` or `secret`.
        location: where it is: a file, a variable of the environment, or `settings` for hashes of tokens.
        changed_at: when its file was changed last; null: not known.
        expires_at: when it expires; null: it does not.
    """

    kind: str
    location: str
    changed_at: TimestampJson | None
    expires_at: TimestampJson | None


class FixedUrlJson(TypedDict):
    """The fixed URL of a source, to which its sender posts each request.

    Attributes:
        path: its path.
        format: `json`, `form` or `cloudevent`; null: a receiver reads the requests.
        receiver: name of the plugin that reads the requests; null: the settings map them.
    """

    path: str
    format: str | None
    receiver: str | None


class IgnoredRuleJson(TypedDict):
    """The requests of a source that one rule ignored: they were answered as a success, and stored nowhere.

    Attributes:
        rule: the rule: a value of the table of kinds, such as `/status = 1`, or the name that a receiver gave.
        requests: number of requests.
        first_at: when the first one was received.
        last_at: when the last one was received.
        media_type: Content-Type of the last one; null: it had none.
        body: body of the last one, or the start of it.
        body_truncated: whether only the start of the body is given.
    """

    rule: str
    requests: int
    first_at: TimestampJson
    last_at: TimestampJson
    media_type: str | None
    body: str
    body_truncated: bool


class SourceJson(TypedDict):
    """The state of one source.

    Attributes:
        name: its name.
        pull_only: whether it has no credential, so that flowhooks only asks its engine.
        last_callback_at: when its last callback was received, of the last 24 hours; null: there is none. If truncated,
            null: there is none among the newest events.
        last_hour: number of its callbacks in the last hour.
        last_day: number of its callbacks in the last 24 hours.
        truncated: whether there may be more callbacks than were counted.
        missed: instances of the last 24 hours that completed without a callback; null: it has no engine, or none is
            expected to call.
        rejections: its rejected requests, by status and reason.
        credentials: its credentials, without their values.
        engine: its engine; null: it has none.
        settings: its settings in force, without secrets.
        fixed_url: its fixed URL; null: it has none.
        ignored: its requests that were ignored, by rule, the rule of the last request first.
    """

    name: str
    pull_only: bool
    last_callback_at: TimestampJson | None
    last_hour: int
    last_day: int
    truncated: bool
    missed: int | None
    rejections: list[RejectionsJson]
    credentials: list[CredentialAgeJson]
    engine: EngineJson | None
    settings: dict[str, str]
    fixed_url: FixedUrlJson | None
    ignored: list[IgnoredRuleJson]


def source_to_json(
    status: SourceStatus, engines: Mapping[str, EngineJson], *, max_body_chars: int = MAX_IGNORED_BODY_CHARS
) -> SourceJson:
    """Return a source; `engines` has the engines by source. Longer bodies of ignored requests are cut."""
    return {
        "name": status.name,
        "pull_only": status.pull_only,
        "last_callback_at": to_text(status.rate.last_at),
        "last_hour": status.rate.last_hour,
        "last_day": status.rate.last_day,
        "truncated": status.rate.truncated,
        "missed": status.missed,
        "rejections": [
            {
                "status": entry.status,
                "requests": entry.requests,
                "last_at": to_text(entry.last_at),
                "reason_en": entry.reason_en,
                "reason_zh": entry.reason_zh,
            }
            for entry in status.rejections
        ],
        "credentials": [
            {
                "kind": entry.kind,
                "location": entry.location,
                "changed_at": to_text(entry.changed_at),
                "expires_at": to_text(entry.expires_at),
            }
            for entry in status.credentials
        ],
        "engine": engines.get(status.name) if status.has_engine else None,
        "settings": dict(status.settings),
        "fixed_url": fixed_url_to_json(status.name, status.ingress),
        "ignored": [
            {
                "rule": rule.rule,
                "requests": rule.count,
                "first_at": to_text(rule.first_at),
                "last_at": to_text(rule.last_at),
                "media_type": rule.media_type,
                "body": rule.body[:max_body_chars],
                "body_truncated": len(rule.body) > max_body_chars,
            }
            for rule in status.ignored
        ],
    }


def fixed_url_to_json(name: str, ingress: IngressSettings | None) -> FixedUrlJson | None:
    """Return the fixed URL of a source; None if it has none."""
    if ingress is None:
        return None
    return {"path": f"/in/{name}", "format": ingress.format, "receiver": ingress.receiver or None}
