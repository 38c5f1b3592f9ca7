"""Who is at the console or asks the administration API, and what they may do."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, cast

import structlog

from flowhooks.errors import SettingsError
from flowhooks.settings import check_operators, operator_tokens
from flowhooks.web.admin.passwords import PasswordVerifier
from flowhooks.web.callback.credentials import parse_bearer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.app import App
    from flowhooks.settings import Settings

_log = structlog.get_logger(__name__)


class Role(StrEnum):
    """What an operator may do."""

    VIEW = "view"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Somebody who looks after this server.

    Attributes:
        name: as the audit has it.
        role: what they may do.
    """

    name: str
    role: Role

    @property
    def may_operate(self) -> bool:
        """Whether they may change anything."""
        return self.role is Role.OPERATE


LOCAL: Final = Operator(name="local", role=Role.OPERATE)
"""Whoever is at this machine, where no operators are named in the settings; and commands, which can read the lock
file."""


def operator_of(request: falcon.Request) -> Operator:
    """Who asks, as whoever lets requests in has found out; not for what anybody may ask for."""
    return cast("Operator", request.context.operator)


class Operators:
    """The operators that the settings name, as the settings are just now.

    Args:
        app: whose settings they are. When those are read again, so are the files that hold tokens.

    Raises:
        SettingsError: an operator's credential cannot be used.
    """

    def __init__(self, app: App) -> None:
        check_operators(app.settings)
        self._app = app
        self._passwords = PasswordVerifier()
        self._cached_tokens: tuple[Settings, Mapping[str, str]] = app.settings, operator_tokens(app.settings)

    def __bool__(self) -> bool:
        return bool(self._app.settings.operators)

    def by_name(self, name: str) -> Operator | None:
        """The operator of this name; None if there is none, or none any more."""
        settings = self._app.settings.operators.get(name)
        return None if settings is None else Operator(name=name, role=Role(settings.role))

    def by_token(self, authorization: str) -> Operator | None:
        """The operator whose bearer token a request carries; None if it is nobody's, or no bearer token."""
        token = parse_bearer(authorization)
        if token is None:
            return None
        digest = hashlib.sha256(token.encode("ascii")).hexdigest()
        name_found = None
        for (
            token_digest,
            name,
        ) in self._tokens().items():  # to the end, always: the time taken does not tell whose it was
            if hmac.compare_digest(digest, token_digest):
                name_found = name
        return None if name_found is None else self.by_name(name_found)

    def authenticate(self, name: str, password: str) -> Operator | None:
        """The operator of this name, if this is their password; takes the same time whether there is one or not.

        Raises:
            TooManyVerifications: too many passwords are being compared just now.
        """
        passwords = self.passwords()
        if not passwords:
            return None
        matches = self._passwords.verify(password, passwords.get(name), next(iter(passwords.values()), ""))
        return self.by_name(name) if matches else None

    def passwords(self) -> Mapping[str, str]:
        """The hash of each operator's password, by name, of those who have one."""
        return {name: operator.password for name, operator in self._app.settings.operators.items() if operator.password}

    def _tokens(self) -> Mapping[str, str]:
        settings, tokens = self._cached_tokens
        if settings is not self._app.settings:
            settings = self._app.settings
            try:
                tokens = operator_tokens(settings)
            except SettingsError as error:
                _log.error("operators_read_failed", why=str(error), next="the tokens that were known before are taken")
            self._cached_tokens = settings, tokens
        return tokens
