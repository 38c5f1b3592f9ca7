"""The operators of the settings, their roles, and their authentication."""

from __future__ import annotations

import hashlib
import hmac
from contextlib import nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import structlog

from flowhooks.errors import SettingsError
from flowhooks.operations.access import FULL, Access
from flowhooks.operations.context import Actor
from flowhooks.operations.registry import WAITING_OPERATIONS, run_operation
from flowhooks.settings import check_operators, operator_tokens
from flowhooks.settings.access import BUILT_IN_ROLES
from flowhooks.web.admin.passwords import PasswordVerifier
from flowhooks.web.admin.proxy_login import proxy_user
from flowhooks.web.callback.credentials import parse_bearer
from flowhooks.web.server.thread_pool import spare_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    import falcon

    from flowhooks.app import App
    from flowhooks.operations.context import OperationContext
    from flowhooks.settings import Settings

_log = structlog.get_logger(__name__)


class Role(StrEnum):
    """The role of an operator."""

    VIEW = "view"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """An operator of this server.

    Attributes:
        name: the name, as in the audit log.
        role: the rights.
        role_name: the name of the role in the settings; `""`: it is that of the rights.
        access: what the operator may see and change.
    """

    name: str
    role: Role
    role_name: str = ""
    access: Access = FULL

    @property
    def may_operate(self) -> bool:
        """Whether the operator may change anything."""
        return self.role is Role.OPERATE


class PasswordLogin(NamedTuple):
    """A login with a right password.

    Attributes:
        operator: the operator.
        password_hash: the hash that the password was compared with; a reload may have replaced it since.
    """

    operator: Operator
    password_hash: str


class NoRole(Exception):
    """The proxy has named a user of whose groups the settings name none.

    Args:
        name: the user's name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


LOCAL: Final = Operator(name="local", role=Role.OPERATE)
"""The operator of requests from this machine if the settings name no operators, and of commands, which can read the
lock file."""


def operator_of(request: falcon.Request) -> Operator:
    """Return the operator that the middleware has set on a request; not for public paths, which have none."""
    return cast("Operator", request.context.operator)


def operation_context(app: App, request: falcon.Request, interface: str) -> OperationContext:
    """Return the context of an operation that the operator of a request has asked for.

    Args:
        app: a started `App`.
        request: the request.
        interface: `"console"` or `"api"`.
    """
    operator = operator_of(request)
    return replace(app.operation_context, by=Actor(operator.name, interface), access=operator.access)


def run_for_request(
    request: falcon.Request, context: OperationContext, name: str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Run an operation as `registry.run_operation` does. A long wait takes no thread from other requests."""
    with spare_thread(request.env) if name in WAITING_OPERATIONS else nullcontext():
        return run_operation(context, name, arguments)


class Operators:
    """The operators in the current settings.

    Args:
        app: a started `App`. When its settings are reloaded, the files that hold tokens are read again, too.

    Raises:
        SettingsError: an operator's credential cannot be used.
    """

    def __init__(self, app: App) -> None:
        check_operators(app.settings)
        self._app = app
        self._passwords = PasswordVerifier()
        self._cached_tokens: tuple[Settings, Mapping[str, str]] = app.settings, operator_tokens(app.settings)

    def __bool__(self) -> bool:
        return self._app.settings.requires_login

    def by_name(self, name: str) -> Operator | None:
        """Return the operator of this name; None if the current settings do not have it."""
        settings = self._app.settings.operators.get(name)
        return None if settings is None else self._operator(name, settings.role)

    def _operator(self, name: str, role_name: str) -> Operator | None:
        """Return an operator with a role; None if the settings do not have the role."""
        settings = self._app.settings
        if role_name in BUILT_IN_ROLES:
            return Operator(name=name, role=Role(role_name))
        role = settings.roles.get(role_name)
        if role is None:
            return None
        return Operator(
            name=name,
            role=Role(role.may),
            role_name=role_name,
            access=Access(
                plugins=frozenset(role.plugins) if role.plugins else None,
                masked=settings.masking.fields if role.masked else None,
            ),
        )

    def by_proxy(self, environ: Mapping[str, Any]) -> Operator | None:
        """Return the operator whom the proxy of the settings names in headers; None if the request has none of them.

        Raises:
            InvalidLoginHeader: the request has such a header and must be refused.
            NoRole: no group of the user has a role.
        """
        login = self._app.settings.login
        user = proxy_user(environ, login)
        if user is None:
            return None
        for group, role in login.groups.items():
            if group in user.groups and (operator := self._operator(user.name, role)) is not None:
                return operator
        raise NoRole(user.name)

    def by_token(self, authorization: str) -> Operator | None:
        """Return the operator whose bearer token a request has; None if it has none, or an unknown one."""
        token = parse_bearer(authorization)
        if token is None:
            return None
        digest = hashlib.sha256(token.encode("ascii")).hexdigest()
        name_found = None
        for (
            token_digest,
            name,
        ) in self._tokens().items():  # always all tokens: the time must not reveal which one matched
            if hmac.compare_digest(digest, token_digest):
                name_found = name
        return None if name_found is None else self.by_name(name_found)

    def authenticate(
        self, name: str, password: str, *, while_waiting: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> PasswordLogin | None:
        """Return the login of this name if the password is right; takes the same time if there is no such operator.

        Args:
            name: the entered name.
            password: the entered password.
            while_waiting: a context for the wait while other passwords are verified.

        Raises:
            TooManyVerifications: too many passwords are being verified at present.
        """
        passwords = self.passwords()
        if not passwords:
            return None
        password_hash = passwords.get(name)
        matches = self._passwords.verify(
            password, password_hash, next(iter(passwords.values()), ""), while_waiting=while_waiting
        )
        operator = self.by_name(name) if matches else None
        return None if operator is None or password_hash is None else PasswordLogin(operator, password_hash)

    def passwords(self) -> Mapping[str, str]:
        """Return the password hashes by operator name, of the operators that have a password."""
        return {name: operator.password for name, operator in self._app.settings.operators.items() if operator.password}

    def _tokens(self) -> Mapping[str, str]:
        settings, tokens = self._cached_tokens
        if settings is not self._app.settings:
            settings = self._app.settings
            try:
                tokens = operator_tokens(settings)
            except SettingsError as error:
                _log.error("operators_read_failed", why=str(error), next="the tokens read before stay valid")
            self._cached_tokens = settings, tokens
        return tokens
