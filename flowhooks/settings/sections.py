"""Sections that the user names: sources, operators, handlers."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Literal, TypeAlias

from flowhooks.settings import types
from flowhooks.settings.field import setting
from flowhooks.settings.signing_keys import MAX_SECRETS, Secret, secret

if TYPE_CHECKING:
    from collections.abc import Mapping

Network: TypeAlias = IPv4Network | IPv6Network
"""A network from which a source may call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An engine that may send callbacks. Its name is the section's name: [sources.NAME].

    The name is part of an event's identity. Callbacks received while no source is configured have the name `default`. A
    source may be named `default`: so an engine that gets a credential later keeps its identities.
    """

    token_sha256: tuple[str, ...] = field(
        default=(),
        repr=False,
        metadata={
            "doc": "SHA-256 of each bearer token that names this source; several, while one is being replaced.",
            "kind": types.list_of(types.token_sha256(), min_items=1),
        },
    )
    token_file: str = field(
        default="",
        metadata={
            "doc": "A file that holds a bearer token that names this source, and that only its owner and group "
            "can read.",
            "kind": types.file(),
        },
    )
    secrets: tuple[Secret, ...] = setting(
        (),
        types.list_of(secret(), min_items=1, max_items=MAX_SECRETS),
        "Where the secrets are with which it signs (Standard Webhooks), and until when each holds; several, while one "
        "is being replaced.",
    )
    allow: tuple[Network, ...] = setting(
        (), types.list_of(types.network()), "Networks that it may call from; empty: any."
    )
    rate: float = setting(
        0.0,
        types.number(0, 1_000_000, "call-backs a second"),
        "Call-backs a second that each process takes of it; more are answered 429; 0: any number.",
    )
    burst: int = setting(
        0,
        types.integer(0, 1_000_000),
        "Call-backs that it may send at once after a rest, where there is a rate; 0: as many as in a second.",
    )
    conclusion: Mapping[str, str] = field(
        default_factory=dict,
        metadata={
            "doc": "Its own words for how a process ended, each with the conclusion that handlers name; other words "
            "stay as they are.",
            "kind": types.table(types.conclusion()),
        },
    )
    max_body_bytes: int | None = setting(
        None,
        types.integer(1, 1024**3),
        "Largest body that is taken of it, not above http.max_body_bytes; default: as that.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """A person or program that may operate this server. Its name is the section's name: [operators.NAME]."""

    role: Literal["view", "operate"] = field(
        metadata={
            "doc": "What they may do: look at everything, or also change something.",
            "kind": types.one_of("view", "operate"),
        },
    )
    password: str = field(
        default="",
        repr=False,
        metadata={
            "doc": "The Argon2id hash of the password with which they log in to the console; the extra "
            "flowhooks[operators] checks it.",
            "kind": types.password(),
        },
    )
    token_sha256: tuple[str, ...] = field(
        default=(),
        repr=False,
        metadata={
            "doc": "SHA-256 of each bearer token that names this operator.",
            "kind": types.list_of(types.token_sha256(), min_items=1),
        },
    )
    token_file: str = field(
        default="",
        metadata={
            "doc": "A file that holds a bearer token that names this operator, and that only its owner and group "
            "can read.",
            "kind": types.file(),
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSettings:
    """Run options of a handler, which override its decorator. Its id names the section: [handlers."plugin:name"]."""

    isolation: Literal["thread", "process"] | None = setting(
        None,
        types.one_of("thread", "process"),
        "Where it runs: in a thread of the server, or in a process of its own; default: as it declares.",
    )
    timeout: float | None = setting(
        None,
        types.seconds(0, 86_400),
        "Seconds after which one of its attempts is overdue; default: as it declares, or runner.timeout.",
    )
    memory_mib: int | None = setting(
        None,
        types.integer(64, 1_048_576),
        "Mebibytes that its process may take; default: as it declares, or runner.memory_mib.",
    )
    circuit_breaker_failures: int | None = setting(
        None,
        types.integer(0, 10_000),
        "Attempts that fail in a row after which it is held; 0: never; default: circuit_breaker.failures.",
    )
