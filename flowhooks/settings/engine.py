"""The section `[sources.NAME.engine]`: the engine's REST API, and how its history is reconciled with the events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from flowhooks.settings import types
from flowhooks.settings.field import setting
from flowhooks.settings.signing_keys import Secret, secret_location

KINDS: Final = ("complete", "cancel", "error", "terminate")
"""The kinds of callback that an instance in the history can become."""

BODY_MEMBERS: Final = (
    "processDefinitionId",
    "processDefinitionKey",
    "processDefinitionVersion",
    "businessKey",
    "callBackProcessClass",
    "conclusion",
    "tenantId",
    "startTime",
    "endTime",
    "endState",
)
"""Members of the body of an event that reconciliation takes in, beside its variables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """An engine that flowhooks asks about its finished process instances.

    A source with this section and without a credential is pull-only: no engine can call as this source.
    """

    client: str = field(
        metadata={"doc": "Name of the engine client. A plugin offers it, such as flowable.", "kind": types.name()}
    )
    url: str = field(
        metadata={
            "doc": "Base URL of the engine's REST API, such as http://oa.internal:8080/flowable-rest/service.",
            "kind": types.http_url(),
        }
    )
    username: str = setting("", types.text(), "User for HTTP Basic authentication.")
    password: Secret | None = field(
        default=None,
        metadata={
            "doc": 'Location of that user\'s password, such as {env = "OA_PASSWORD"} or {file = "PATH"}.',
            "kind": secret_location(),
        },
    )
    token: Secret | None = field(
        default=None,
        metadata={"doc": "Location of a bearer token, instead of a user and a password.", "kind": secret_location()},
    )
    timeout: float = setting(30.0, types.seconds(0, 300), "Seconds that one request to the engine may take.")
    page_size: int = setting(200, types.integer(1, 1000), "Number of instances that one request asks for.")
    reconcile_every: float = setting(
        300.0, types.duration(1, 86_400), 'Time between two reconciliations, in seconds or as in "5m".'
    )
    grace: float = setting(
        120.0,
        types.duration(0, 86_400),
        'Time that the engine has to call after an instance has ended, in seconds or as in "2m". Only then '
        "reconciliation takes the instance in.",
    )
    kinds: tuple[str, ...] = setting(
        ("complete",),
        types.list_of(types.one_of(*KINDS), min_items=1),
        "Kinds of ends that reconciliation takes in: complete, cancel, error, terminate. Others are skipped.",
    )
    children: bool = setting(
        False, types.boolean(), "Also take in instances that another instance called. By default they are skipped."
    )
    conclusion_from: Literal["variable", "end_event", "business_status"] = setting(
        "variable",
        types.one_of("variable", "end_event", "business_status"),
        "Where the conclusion comes from: a variable, the id of the end event, or Flowable's business status.",
    )
    conclusion_variable: str = setting(
        "conclusion", types.text(min_chars=1), "Variable that has the conclusion, if conclusion_from is variable."
    )
    class_variable: str = setting(
        "callBackProcessClass", types.text(), "Variable that has callBackProcessClass. Empty: none."
    )
    variables: tuple[str, ...] = setting(
        (),
        types.list_of(types.text(min_chars=1)),
        "Variables that become members of the event's data, at most 64 KiB together.",
    )
    tenants: tuple[str, ...] = setting((), types.list_of(types.text(min_chars=1)), "Tenants to read; empty: all.")
    max_new: int = setting(
        1000,
        types.integer(1, 1_000_000),
        "Maximum number of instances that one reconciliation takes in. Before more are taken in, an operator must "
        "confirm.",
    )

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The locations of the password and the token, as far as they are set."""
        return tuple(secret for secret in (self.password, self.token) if secret is not None)
