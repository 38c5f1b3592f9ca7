"""The base class of all paths of the administration API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import structlog

from flowhooks.errors import Forbidden, LedgerUnusable, NewerSelectorsError, NotFound, Unavailable
from flowhooks.web import errors
from flowhooks.web.admin.api.query import parse_query
from flowhooks.web.admin.operators import operator_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.app import App
    from flowhooks.operations.access import Access
    from flowhooks.web.admin.api.query import Parameter

_log = structlog.get_logger(__name__)


class Resource:
    """A resource that is read with GET. Each subclass defines its response.

    Attributes:
        path: its path template.
        description: its content, in English and Chinese.
        parameters: its query parameters.
        response_type: the type of its response.
        id_has_slashes: whether the variable part of its path may have slashes; it is then at the end of the path.
        path_description: the meaning of the variable part of its path, in English and Chinese; `""` if there is none.
        not_found: key of the message for an object that does not exist.
        for_limited_roles: whether roles limited to plugins get it, from `get_restricted`.
        for_masked_roles: whether masked roles get it, from `get_restricted`.
    """

    path: ClassVar[str]
    description: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    response_type: ClassVar[type]
    id_has_slashes: ClassVar[bool] = False
    path_description: ClassVar[str] = ""
    not_found: ClassVar[str] = "no_such_event"
    for_limited_roles: ClassVar[bool] = False
    for_masked_roles: ClassVar[bool] = False

    def __init__(self, app: App) -> None:
        self.app = app

    def get(self, query: Mapping[str, list[str]], path: Mapping[str, str], /) -> Mapping[str, Any]:
        """Return the body of the response.

        Args:
            query: the values of the query, by parameter.
            path: the variable parts of the path.

        Raises:
            LocalizedHTTPError: a value is invalid.
            NotFound: the resource does not exist.
            LedgerUnusable: the ledger cannot be read.
        """
        raise NotImplementedError

    def get_restricted(
        self,
        query: Mapping[str, list[str]],  # noqa: ARG002 (subclasses use them)
        path: Mapping[str, str],  # noqa: ARG002 (as above)
        access: Access,  # noqa: ARG002 (as above)
        /,
    ) -> Mapping[str, Any]:
        """Return the body for an operator who may not see everything.

        Args:
            query: as of `get`.
            path: as of `get`.
            access: what the operator may see.

        Raises:
            Forbidden: the role may not see this resource, or may not search like this.
            NotFound: the resource does not exist, or the operator may not see it.
        """
        raise Forbidden("operator_scope")

    def on_get(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Answer with the body, or with an error."""
        query = parse_query(request, self.parameters)
        try:
            access = operator_of(request).access
            body = self.get(query, path) if access.is_full else self.get_restricted(query, path, access)
        except NotFound:
            raise errors.LocalizedHTTPError(404, self.not_found) from None
        except NewerSelectorsError as error:
            _log.warning("api_request_failed", path=errors.raw_path(request.env), why=str(error))
            raise Unavailable("newer_handlers") from None
        except LedgerUnusable as error:
            _log.warning("api_request_failed", path=errors.raw_path(request.env), why=str(error))
            raise Unavailable("ledger_unread") from None
        response.data = errors.encode(body)
        response.set_headers(errors.HEADERS)

    on_head = on_get
