"""The administration API as an OpenAPI 3.1 document, made of its resources and operations; it must not repeat them."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_type_hints

from flowhooks import __version__
from flowhooks.operations.registry import CALLS
from flowhooks.schema.files import DIALECT
from flowhooks.web.admin.api.json_schema import NAMES, Shapes, described
from flowhooks.web.admin.api.resources import RESOURCES
from flowhooks.web.callback.openapi import ERROR, components, or_null

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowhooks.schema import Schemas
    from flowhooks.web.admin.api.resource import Resource


class _Error(NamedTuple):
    description: str
    headers: tuple[str, ...] = ()


_HEADERS: Final = {
    "Retry-After": "Seconds after which to ask again. / 建议多少秒后重试。",
    "WWW-Authenticate": "How to send a credential: Bearer. / 凭证的提供方式：Bearer。",
    "Allow": "The methods that the path takes. / 该路径支持的请求方法。",
}
_ERRORS: Final = {
    "400": _Error(
        "A parameter that the path does not take, or one given twice; or a body that is not strict JSON. / "
        "参数不存在或重复，或者请求体不是严格的 JSON。"
    ),
    "401": _Error("No valid credential. / 未提供有效的凭证。", ("WWW-Authenticate",)),
    "403": _Error("Whoever asks may not. / 没有权限。"),
    "404": _Error("There is nothing of this id or name. / 没有该 ID 或名称。"),
    "405": _Error("Not a method of this path. / 该路径不支持此请求方法。", ("Allow",)),
    "409": _Error("It is in a state from which that cannot be done. / 当前状态不允许该操作。"),
    "413": _Error("The body is too large. / 请求体过大。"),
    "422": _Error("A value that cannot be taken. / 参数值无法接受。"),
    "500": _Error("An error of the server's own, which it has logged. / 服务器内部错误，详情已记录在服务器日志中。"),
    "503": _Error(
        "The database cannot be used just now; ask again later. / 数据库暂时不可用；请稍后重试。", ("Retry-After",)
    ),
}
_READING: Final = ("400", "401", "403", "404", "405", "422", "500", "503")
_CHANGING: Final = ("400", "401", "403", "404", "405", "409", "413", "422", "500", "503")
_DONE: Final = "What was done, or would be. / 已完成（或试运行时将会完成）的内容。"
_LANGUAGE: Final = {
    "name": "Accept-Language",
    "in": "header",
    "description": "The language of messages: Chinese where zh is preferred, else English. / "
    "消息的语言：优先 zh 时为中文，否则为英文。",
    "schema": {"type": "string"},
}
_NOT_CALLED: Final = frozenset({"desk", "return"})


def openapi(schemas: Schemas) -> dict[str, Any]:
    """The administration API.

    Args:
        schemas: the schema files in force, of which one says what an error is.

    Returns:
        An OpenAPI 3.1 document, ready for `json.dumps`.

    Raises:
        TypeError: an operation takes or gives something that JSON has nothing like.
        NameError: an operation's annotation names what `shapes.NAMES` does not have.
    """
    shapes = Shapes()
    paths = {one.path: {"get": _get(one, shapes)} for one in RESOURCES}
    for name, (function, takes) in CALLS.items():
        paths[f"/api/operations/{name}"] = {"post": _post(name, function, tuple(takes), shapes)}
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": DIALECT,
        "info": {
            "title": "flowhooks: administration / 运维接口",
            "summary": "See everything, mend anything. / 查看一切，修复一切。",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": dict(sorted(shapes.components.items())) | components(schemas.documents, (ERROR,)),
            "headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()},
            "responses": {status: _refusal(one) for status, one in _ERRORS.items()},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An operator's token; commands of the same machine use the one in the lock file. / "
                    "运维人员的令牌；本机命令使用锁文件中的令牌。",
                }
            },
        },
    }


def _get(resource: type[Resource], shapes: Shapes) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "description": resource.named, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)\}", resource.path)
    ]
    for one in resource.takes:
        several = {"type": "array", "items": one.schema, "maxItems": 100} if one.several else one.schema
        parameters.append({"name": one.name, "in": "query", "description": one.means, "schema": several})
    words = re.findall(r"\w+", resource.path)[1:]
    return {
        "operationId": "-".join(("get", *words)),
        "summary": resource.means,
        "security": [{}, {"bearer": []}],
        "parameters": [*parameters, _LANGUAGE],
        "responses": {"200": _answer("What there is. / 查询结果。", shapes.of(resource.gives))} | _errors(_READING),
    }


def _post(name: str, function: Callable[..., Any], takes: tuple[str, ...], shapes: Shapes) -> dict[str, Any]:
    hints = get_type_hints(function, localns=dict(NAMES), include_extras=True)
    needed = [
        one.name for one in inspect.signature(function).parameters.values() if one.default is inspect.Parameter.empty
    ]
    said = described(function)
    required = [one for one in takes if one in needed and one not in _NOT_CALLED]
    members = {}
    for one in takes:
        shape = shapes.of(hints[one], given=True)
        # Of whatever is sent, null counts as absent.
        shape = shape if one in required else or_null(shape)
        members[one] = shape | ({"description": said[one]} if one in said else {})
    body = {"type": "object", "properties": members, "additionalProperties": False}
    body |= {"required": required} if required else {}
    return {
        "operationId": name,
        "summary": (inspect.getdoc(function) or name).partition("\n")[0],
        "security": [{"bearer": []}],
        "parameters": [_LANGUAGE],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": _answer(_DONE, shapes.of(hints["return"]))} | _errors(_CHANGING),
    }


def _answer(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _errors(statuses: tuple[str, ...]) -> dict[str, Any]:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _refusal(one: _Error) -> dict[str, Any]:
    return {
        "description": one.description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in one.headers},
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/error"}}},
    }
