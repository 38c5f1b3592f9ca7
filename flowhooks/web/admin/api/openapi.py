"""The administration API as an OpenAPI 3.1 document, generated from its resources and operations."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_type_hints

from flowhooks import __version__
from flowhooks.model.bulk_operation import Operation
from flowhooks.operations.engines import RECONCILE_SCHEMA
from flowhooks.operations.registry import OPERATIONS
from flowhooks.schema.files import DIALECT
from flowhooks.web.admin.api.export_resource import FILES, FileResource
from flowhooks.web.admin.api.json_schema import ANNOTATION_TYPES, SchemaBuilder, member_descriptions
from flowhooks.web.admin.api.resources import RESOURCES
from flowhooks.web.callback.openapi import ERROR, components, nullable

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.schema.schemas import Schemas
    from flowhooks.web.admin.api.resource import Resource


class _Error(NamedTuple):
    description: str
    headers: tuple[str, ...] = ()


_HEADERS: Final = {
    "Retry-After": "Seconds after which to repeat the request. / 建议在多少秒后重试。",
    "WWW-Authenticate": "How to send a credential: Bearer. / 凭证的提供方式：Bearer。",
    "Allow": "The methods that the path supports. / 该路径支持的请求方法。",
}
_ERRORS: Final = {
    "400": _Error(
        "An unknown or repeated parameter, or a body that is not strict JSON. / "
        "参数不存在或重复，或者请求体不是严格的 JSON。"
    ),
    "401": _Error("No valid credential. / 未提供有效的凭证。", ("WWW-Authenticate",)),
    "403": _Error("The operator has no permission. / 没有权限。"),
    "404": _Error("There is no object with this id or name. / 没有该 ID 或名称的对象。"),
    "405": _Error("The path does not support this method. / 该路径不支持此请求方法。", ("Allow",)),
    "409": _Error("The current state does not allow the operation. / 当前状态不允许该操作。"),
    "413": _Error("The body is too large. / 请求体过大。"),
    "422": _Error("A parameter has an invalid value. / 参数值无效。"),
    "500": _Error("Internal server error; details are in the server log. / 服务器内部错误，详情见服务器日志。"),
    "503": _Error(
        "The database is not available at present; repeat the request later. / 数据库暂时不可用，请稍后重试。",
        ("Retry-After",),
    ),
}
_READ_STATUSES: Final = ("400", "401", "403", "404", "405", "422", "500", "503")
_WRITE_STATUSES: Final = ("400", "401", "403", "404", "405", "409", "413", "422", "500", "503")
_DONE: Final = (
    "The changes made, or with dry_run the changes that would be made. / 已做的更改；dry_run 为 true 时是将会做的更改。"
)
_LANGUAGE: Final = {
    "name": "Accept-Language",
    "in": "header",
    "description": "The language of messages: Chinese if zh is preferred, otherwise English. / "
    "消息的语言：优先 zh 时为中文，否则为英文。",
    "schema": {"type": "string"},
}
_OPERATION_LANGUAGE: Final = {
    **_LANGUAGE,
    "description": "The language of messages, except of reasons why the operation was refused, which are in English: "
    "Chinese if zh is preferred, otherwise English. / "
    "消息的语言：优先 zh 时为中文，否则为英文；操作被拒绝的原因始终为英文。",
}
"""The parameter for operations."""
_NOT_IN_BODY: Final = frozenset({"context", "return"})
_BODY_SCHEMAS: Final = {"reconcile": RECONCILE_SCHEMA}
"""Requirements of operations on several arguments together."""


def openapi(schemas: Schemas) -> dict[str, Any]:
    """Return the administration API as an OpenAPI document.

    Args:
        schemas: the schema files in force, one of which defines errors.

    Returns:
        An OpenAPI 3.1 document, ready for `json.dumps`.

    Raises:
        TypeError: JSON cannot represent an argument or a result of an operation.
        NameError: an annotation of an operation names a type that is not in `json_schema.ANNOTATION_TYPES`.
    """
    builder = SchemaBuilder()
    paths = {item.path: {"get": _get(item, builder)} for item in (*RESOURCES, *FILES)}
    for name, (function, parsers) in OPERATIONS.items():
        paths[f"/api/operations/{name}"] = {"post": _post(name, function, tuple(parsers), builder)}
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": DIALECT,
        "info": {
            "title": "flowhooks: administration / 管理 API",
            "summary": "Read the stored state and perform operations. / 查看系统状态，执行运维操作。",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(builder.components.items())) | components(schemas.documents, (ERROR,)),
            "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()},
            "responses": {status: _error_response(item) for status, item in _ERRORS.items()},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An operator's token; local commands use the token in the lock file. / "
                    "运维人员的令牌；本机命令使用锁文件中的令牌。",
                }
            },
        },
    }


def _get(resource: type[Resource], builder: SchemaBuilder) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": resource.path_description,
            "schema": {"type": "string"},
        }
        for name in re.findall(r"\{(\w+)\}", resource.path)
    ]
    for parameter in resource.parameters:
        schema = (
            {"type": "array", "items": parameter.schema, "maxItems": parameter.max_values}
            if parameter.max_values > 1
            else parameter.schema
        )
        parameters.append(
            {"name": parameter.name, "in": "query", "description": parameter.description, "schema": schema}
        )
    words = re.findall(r"\w+", resource.path)[1:]
    return {
        "operationId": "-".join(("get", *words)),
        "summary": resource.description,
        "security": [{}, {"bearer": []}],
        "parameters": [*parameters, _LANGUAGE],
        "responses": {"200": _file_or_data(resource, builder)} | _errors(_READ_STATUSES),
    }


def _file_or_data(resource: type[Resource], builder: SchemaBuilder) -> dict[str, Any]:
    if issubclass(resource, FileResource):
        content = {media_type: {"schema": {"type": "string"}} for media_type in resource.media_types}
        return {"description": "The file. / 文件。", "content": content}
    return _response("The requested data. / 查询结果。", builder.schema_for(resource.response_type))


def _post(name: str, function: Callable[..., Any], names: tuple[str, ...], builder: SchemaBuilder) -> dict[str, Any]:
    hints = get_type_hints(function, localns=dict(ANNOTATION_TYPES), include_extras=True)
    without_default = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is inspect.Parameter.empty
    ]
    descriptions = member_descriptions(function)
    required = [argument for argument in names if argument in without_default and argument not in _NOT_IN_BODY]
    members = {}
    for argument in names:
        schema = builder.schema_for(hints[argument], is_argument=True)
        # Null counts as absent in every request body.
        schema = schema if argument in required else nullable(schema)
        members[argument] = schema | ({"description": descriptions[argument]} if argument in descriptions else {})
    body = {"type": "object", "properties": members, "additionalProperties": False}
    body |= ({"required": required} if required else {}) | _BODY_SCHEMAS.get(name, {})
    return {
        "operationId": name,
        "summary": (inspect.getdoc(function) or name).partition("\n")[0],
        "security": [{"bearer": []}],
        "parameters": [_OPERATION_LANGUAGE],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _response(_DONE, _result(hints["return"], builder))} | _errors(_WRITE_STATUSES),
    }


def _result(hint: Any, builder: SchemaBuilder) -> dict[str, Any]:
    # A bulk operation has its times as text, as `GET /api/operations` has them.
    return builder.component(Operation, times=True) if hint is Operation else builder.schema_for(hint)


def _response(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(statuses: tuple[str, ...]) -> dict[str, Any]:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _error_response(error: _Error) -> dict[str, Any]:
    return {
        "description": error.description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in error.headers},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/error"}}},
    }
