"""Check the sources and their credentials."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from flowhooks.clock import DAY, to_text
from flowhooks.errors import SettingsError
from flowhooks.operations.check.finding import note, ok, problem
from flowhooks.settings import check_sources, host_and_port, is_loopback
from flowhooks.settings.credentials import expires_at
from flowhooks.text import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flowhooks.operations.check.finding import CheckFinding
    from flowhooks.plugins.plugins import Plugins
    from flowhooks.settings import Settings, Source

EXPIRY_WARNING: Final = 14 * DAY
"""Microseconds before the expiry of a secret at which a check starts to warn: 14 days."""
_MAX_NAMED: Final = 5


def findings(settings: Settings) -> Iterator[CheckFinding]:
    """Yield the findings about the sources that may call; none if there are none."""
    if unmatched := settings.unmatched_sources:
        yield note(
            "sources",
            f"callbacks without a credential do not belong to {', '.join(unmatched)}",
            "an instance that the engine calls for, and that is also taken in from its history, runs twice",
            'if an engine of these sources calls, give the source a credential, or former_names = ["default"]',
        )
    if not settings.calling_sources:
        return
    try:
        check_sources(settings, os.environ)
    except SettingsError as error:
        for line in str(error).splitlines():
            yield problem(
                "sources",
                line,
                "a server does not start with it, and SIGHUP keeps the previous sources",
                "`flowhooks sources list`",
            )
        return
    now = time.time_ns() // 1000
    for name, source in sorted(settings.calling_sources.items()):
        yield from _expiry(name, source, now)
    yield _transport(settings)


def ingress_findings(settings: Settings, plugins: Plugins) -> Iterator[CheckFinding]:
    """Yield the findings about the kinds and the receivers of fixed URLs."""
    if settings.safe_mode:
        return
    for what in plugins.ingress_problems(settings.sources):
        yield problem("sources", what, "a server does not start with it")
    states = {info.name: info.state for info in plugins.infos}
    for name, source in sorted(settings.sources.items()):
        receiver = "" if source.ingress is None else source.ingress.receiver
        if receiver in states and (state := states[receiver]) != "loaded":
            yield problem(
                "sources",
                f"the receiver of {name}, the plugin {receiver}, is {state}",
                f"each request to /in/{name} is answered with 503",
                f"`{command_line('plugins', 'show', receiver)}` shows why",
            )


def _expiry(name: str, source: Source, now: int) -> Iterator[CheckFinding]:
    """Report credentials that expire soon or have expired; a warning only if another one is valid."""
    if not source.secrets:
        return
    end_times = [expires_at(secret) for secret in source.secrets]
    has_unlimited = bool(source.token_sha256 or source.token_file) or None in end_times
    until = max((end_time for end_time in end_times if end_time is not None), default=0)
    rotate = f"`{command_line('sources', 'rotate', name)}` creates another secret"
    if not has_unlimited and until < now:
        yield problem(
            "sources",
            f"every secret of {name} has expired",
            f"the last one at {to_text(until)}; its callbacks are rejected",
            rotate,
        )
    elif not has_unlimited and until < now + EXPIRY_WARNING:
        yield note(
            "sources",
            f"the last secret of {name} expires at {to_text(until)}",
            "after that its callbacks are rejected",
            rotate,
        )
    elif any(end_time is not None and end_time < now for end_time in end_times):
        yield note(
            "sources",
            f"a secret of {name} has expired",
            "another credential is still valid",
            "remove it from the settings, and delete it",
        )


def _transport(settings: Settings) -> CheckFinding:
    names = sorted(settings.calling_sources)
    listed = ", ".join(names[:_MAX_NAMED]) + (", …" if len(names) > _MAX_NAMED else "")
    who = f"{len(names):,} source{'' if len(names) == 1 else 's'} can send callbacks: {listed}"
    tokens = any(source.token_sha256 or source.token_file for source in settings.calling_sources.values())
    if is_loopback(host_and_port(settings.listen)[0]) or settings.http.trusted_proxy:
        return ok("sources", who)
    return note(
        "sources",
        who,
        "callbacks travel without TLS, so anyone on the network path can read them"
        + (" and use their tokens" if tokens else ""),
        "put a proxy with TLS in front, listen on 127.0.0.1, and set http.trusted_proxy to the proxy's address",
    )
