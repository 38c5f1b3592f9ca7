"""`flowhooks sources list`: list the configured engines, without secrets or their hashes."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import click

from flowhooks.cli import output
from flowhooks.cli.options import json_option, settings_options
from flowhooks.cli.sources.toml import has_ended
from flowhooks.clock import to_text
from flowhooks.errors import FlowhooksError
from flowhooks.ledger import database
from flowhooks.ledger.reader import Reader
from flowhooks.operations.json.sources import fixed_url_to_json
from flowhooks.settings import database_url
from flowhooks.settings.credentials import expires_at

if TYPE_CHECKING:
    from flowhooks.settings import Settings, Source


_HEADINGS: Final = ("name", "credentials", "fixed URL", "ignored", "from", "limits")


@click.command("list", short_help="List the sources in the settings.")
@json_option
@settings_options
def list_command(settings: Settings, *, as_json: bool) -> None:
    r"""List the sources in the settings with their credentials, expiry times, networks and limits.

    For a source with a fixed URL the list has the URL, the format or the receiver, and how many requests were ignored.
    Secrets and hashes are neither read nor shown. `flowhooks check` says whether the secrets can be read.

    \b
    Examples:
      flowhooks sources list
      flowhooks sources list --json | jq '.sources[].secrets[] | select(.not_after != null)'

    Exit codes: 0 listed, 2 wrong usage.
    """
    sources = sorted(settings.sources.items())
    ignored = _ignored_counts(settings)
    if as_json:
        output.print_json(
            {"sources": [_source_to_json(name, source, settings, ignored[name]) for name, source in sources]}
        )
    elif sources:
        rows = [
            (
                name,
                "\n".join(_credential_texts(source)),
                _url(name, source),
                f"{ignored[name]:,}" if source.ingress else "-",
                "\n".join(map(str, source.allow)) or "anywhere",
                _limits(source, settings),
            )
            for name, source in sources
        ]
        output.print_table(_HEADINGS, rows, optional=("fixed URL", "ignored"))
    if not as_json and not settings.calling_sources:
        none = "no source with a credential" if sources else "no source"
        output.print_line(
            f"The settings have {none}: programs on the server's machine may send callbacks without a credential, as "
            "the source default."
        )


def _ignored_counts(settings: Settings) -> Counter[str]:
    """Read the number of ignored requests by source; nothing without a ledger."""
    counts: Counter[str] = Counter()
    url = database_url(settings)
    file = database.database_file(url)
    if any(source.ingress for source in settings.sources.values()) and (file is None or file.exists()):
        try:
            with closing(Reader(url)) as reader:
                for (source, _), count in reader.ignored_counts().items():
                    counts[source] += count
        except FlowhooksError as error:
            output.print_line(f"Without the number of ignored requests: {error}", err=True)
    return counts


def _source_to_json(name: str, source: Source, settings: Settings, ignored: int) -> dict[str, Any]:
    return {
        "name": name,
        "pull_only": not source.has_credential,
        "fixed_url": fixed_url_to_json(name, source.ingress),
        "ignored": ignored,
        "engine": None if source.engine is None else {"client": source.engine.client, "url": source.engine.url},
        "tokens": len(source.token_sha256),
        "token_file": source.token_file or None,
        "secrets": [
            {
                "file": secret.file or None,
                "env": secret.env or None,
                "not_after": to_text(expires_at(secret)),
                "ended": has_ended(secret),
            }
            for secret in source.secrets
        ],
        "allow": [str(network) for network in source.allow],
        "rate": source.rate or None,
        "burst": source.burst or None,
        "max_body_bytes": settings.http.max_body_bytes if source.max_body_bytes is None else source.max_body_bytes,
    }


def _url(name: str, source: Source) -> str:
    if source.ingress is None:
        return "-"
    return f"/in/{name} ({source.ingress.format or source.ingress.receiver})"


def _credential_texts(source: Source) -> list[str]:
    words = [output.pluralize(len(source.token_sha256), "token")] if source.token_sha256 else []
    if source.token_file:
        words.append(f"token in {source.token_file}")
    if source.ingress is not None and source.ingress.receiver:
        words.append(f"checked by the plugin {source.ingress.receiver}")
    if not source.has_credential:
        words.append("none: pull-only")
    for secret in source.secrets:
        until = "" if secret.not_after is None else f", until {output.format_time(expires_at(secret))}"
        words.append(f"secret in {secret.file or secret.env}{until}{' (expired)' if has_ended(secret) else ''}")
    return words


def _limits(source: Source, settings: Settings) -> str:
    limit = settings.http.max_body_bytes if source.max_body_bytes is None else source.max_body_bytes
    words = [f"{limit:,} bytes"]
    if source.rate:
        words.append(f"{source.rate:g} per second" + (f", burst of {source.burst}" if source.burst else ""))
    return "\n".join(words)
