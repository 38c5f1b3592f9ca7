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

    from flowhooks.settings.engine import EngineSettings
    from flowhooks.settings.ingress import IngressSettings
    from flowhooks.settings.signature import SignatureSettings

Network: TypeAlias = IPv4Network | IPv6Network
"""A network from which a source may call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An engine that may send callbacks, or that flowhooks asks. Its name is the section's name: [sources.NAME].

    The name is part of an event's identity. Callbacks received while no source is configured have the name `default`. A
    source may be named `default`: so an engine that gets a credential later keeps its identities.
    """

    token_sha256: tuple[str, ...] = field(
        default=(),
        repr=False,
        metadata={
            "doc": "SHA-256 of each bearer token of this source. List two while you replace a token.",
            "kind": types.list_of(types.token_sha256(), min_items=1),
        },
    )
    token_file: str = field(
        default="",
        metadata={
            "doc": "File that holds a bearer token of this source. Only its owner and group may have access to it.",
            "kind": types.file(),
        },
    )
    secrets: tuple[Secret, ...] = setting(
        (),
        types.list_of(secret(), min_items=1, max_items=MAX_SECRETS),
        "Locations of the secrets with which this source signs, each with an optional expiry time. List two while you "
        "replace a secret. By default it signs by Standard Webhooks; see [sources.NAME.signature].",
    )
    allow: tuple[Network, ...] = setting(
        (), types.list_of(types.network()), "Networks from which this source may call; empty: any."
    )
    rate: float = setting(
        0.0,
        types.number(0, 1_000_000, "callbacks per second"),
        "Callbacks per second that each process accepts from this source. Further callbacks are answered with 429; "
        "0: no limit.",
    )
    burst: int = setting(
        0,
        types.integer(0, 1_000_000),
        "Callbacks that this source may send at once after a pause if rate is set; 0: the callbacks of one second.",
    )
    conclusion: Mapping[str, str] = field(
        default_factory=dict,
        metadata={
            "doc": "Maps this source's words for how a process ended to the conclusions that handlers use. Other "
            "words stay unchanged.",
            "kind": types.table(types.conclusion()),
        },
    )
    max_body_bytes: int | None = setting(
        None,
        types.integer(1, 1024**3),
        "Maximum size of a body from this source, at most http.max_body_bytes. Default: http.max_body_bytes.",
    )
    silent_after: float = setting(
        0.0,
        types.duration(0, 366 * 86_400),
        'Time without a callback after which an alert is raised, in seconds or as in "1d"; 0: never.',
    )
    former_names: tuple[str, ...] = setting(
        (),
        types.list_of(types.name()),
        "Earlier names of this source. Events under these names are its events, so a renamed source does not take "
        "them in again.",
    )
    answer_wait: float | None = setting(
        None,
        types.seconds(0, 60, zero=True),
        "Seconds that a response to this source waits for handlers. Default: answer_wait, and 0 for requests to "
        "/in/NAME.",
    )
    ignore_pointers: tuple[str, ...] | None = setting(
        None,
        types.list_of(types.pointer()),
        "JSON Pointers to members of the data that are ignored when two callbacks of this source are compared. "
        "Default: identity.ignore_pointers.",
    )
    engine: EngineSettings | None = field(
        default=None,
        metadata={"doc": "The engine's REST API, if flowhooks asks it about finished instances.", "section": True},
    )
    ingress: IngressSettings | None = field(
        default=None,
        metadata={"doc": "How requests to the fixed URL /in/NAME become callbacks.", "section": True},
    )
    signature: SignatureSettings | None = field(
        default=None,
        metadata={"doc": "How this source signs requests to /in/NAME, if not by Standard Webhooks.", "section": True},
    )

    @property
    def has_credential(self) -> bool:
        """Whether an engine can call as this source. A source without a credential is pull-only.

        A receiver authenticates the requests itself, so it counts as a credential.
        """
        has_receiver = self.ingress is not None and bool(self.ingress.receiver)
        return bool(self.token_sha256 or self.token_file or self.secrets or has_receiver)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """A person or program that may operate this server. Its name is the section's name: [operators.NAME]."""

    role: str = field(
        metadata={
            "doc": "Role of the operator: view reads everything; operate may also make changes; or a name of "
            "[roles.NAME].",
            "kind": types.name(),
        },
    )
    password: str = field(
        default="",
        repr=False,
        metadata={
            "doc": "Argon2id hash of the password for the console. Checking it needs the extra flowhooks[operators].",
            "kind": types.password(),
        },
    )
    token_sha256: tuple[str, ...] = field(
        default=(),
        repr=False,
        metadata={
            "doc": "SHA-256 of each bearer token of this operator.",
            "kind": types.list_of(types.token_sha256(), min_items=1),
        },
    )
    token_file: str = field(
        default="",
        metadata={
            "doc": "File that holds a bearer token of this operator. Only its owner and group may have access to it.",
            "kind": types.file(),
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSettings:
    """Run options of a handler, which override its decorator. Its id names the section: [handlers."plugin:name"]."""

    isolation: Literal["thread", "process"] | None = setting(
        None,
        types.one_of("thread", "process"),
        "Where this handler runs: in a thread of the server, or in a process of its own. Default: as the handler "
        "declares.",
    )
    timeout: float | None = setting(
        None,
        types.seconds(0, 86_400),
        "Seconds after which an attempt of this handler is overdue. Default: as the handler declares, or "
        "runner.timeout.",
    )
    memory_mib: int | None = setting(
        None,
        types.integer(64, 1_048_576),
        "Memory limit of this handler's process, in mebibytes. Default: as the handler declares, or runner.memory_mib.",
    )
    circuit_breaker_failures: int | None = setting(
        None,
        types.integer(0, 10_000),
        "Consecutive failed attempts after which this handler's circuit opens; 0: never. Default: "
        "circuit_breaker.failures.",
    )
