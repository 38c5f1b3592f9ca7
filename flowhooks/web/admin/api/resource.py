"""The base class of all paths of the administration API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import structlog

from flowhooks.errors import LedgerUnusable, NewerSelectorsError, NotFound, Unavailable
from flowhooks.web import errors
from flowhooks.web.admin.api.query import parse_query

if TYPE_CHECKING:
    from collections.abc import Mapping

    import falcon

    from flowhooks.app import App
    from flowhooks.web.admin.api.query import Parameter

_log = structlog.get_logger(__name__)


class Resource:
    """A resource that is read with GET. Each subclass defines its response.

    Attributes:
        path: its path template.
        description: its content, in English and Chinese.
        parameters: its query parameters.
        response_type: the type of its response.
        path_description: the meaning of the variable part of its path, in English and Chinese; `""` if there is none.
        not_found: key of the message for an object that does not exist.
    """

    path: ClassVar[str]
    description: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    response_type: ClassVar[type]
    path_description: ClassVar[str] = ""
    not_found: ClassVar[str] = "no_such_event"

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

    def on_get(self, request: falcon.Request, response: falcon.Response, **path: str) -> None:
        """Answer with the body, or with an error."""
        query = parse_query(request, self.parameters)
        try:
            body = self.get(query, path)
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
