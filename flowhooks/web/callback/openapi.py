"""The callback contract as an OpenAPI 3.1 document, generated from the schema files."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

from flowhooks import __version__
from flowhooks.schema.files import DIALECT, SUFFIX, locate
from flowhooks.schema.keywords import subschemas

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from flowhooks.schema.schemas import Schemas

_ANSWER: Final = f"answer{SUFFIX}"
ERROR: Final = f"error{SUFFIX}"
"""The schema file of all error bodies."""
_FLOW_INSTANCE_ID: Final = f"flow-instance-id{SUFFIX}"
_TEXT: Final = {"type": "string"}
"""The schema of a header's value."""


class _Response(NamedTuple):
    description: str
    body: str = ERROR
    headers: tuple[str, ...] = ()


_HEADERS: Final = {
    "Flowhooks-Event": "The id of the event that stores the callback. / 该回调对应的事件 ID。",
    "Preference-Applied": "The part of Prefer that was followed (RFC 7240). / 实际采用的 Prefer 选项（RFC 7240）。",
    "Retry-After": "Seconds after which to send the callback again. / 建议在多少秒后重发。",
    "WWW-Authenticate": "How to send a credential: Bearer. / 凭证的提供方式：Bearer。",
    "Allow": "The methods that the path supports. / 该路径支持的请求方法。",
}
_STORED: Final = ("Flowhooks-Event", "Preference-Applied")
_PARAMETERS: Final = {
    "Prefer": "How long to wait for the handlers (RFC 7240): wait=N for N seconds, at most 60; respond-async: do not "
    "wait. / 等待处理器执行的时间（RFC 7240）：wait=N 表示最多等待 N 秒（不超过 60），respond-async 表示不等待。",
    "Accept-Language": "The language of messages: Chinese if zh is preferred, otherwise English. / "
    "消息的语言：优先 zh 时为中文，否则为英文。",
}
"""Headers that a callback may have."""
_RESPONSES: Final = {
    "200": _Response(
        "Every delivery has succeeded or was closed, now or on an earlier identical callback; or no handler needs "
        "to process this event, and the event is dismissed. / "
        "所有投递均已成功或已关闭（本次，或此前的同一回调）；或者没有处理器需要处理该事件，事件已忽略。",
        _ANSWER,
        _STORED,
    ),
    "202": _Response(
        "Stored; a delivery waits, runs or is unknown, or the event is parked. The message says which, and names "
        "the member that the event lacks. Do not send the callback again. / "
        "已存储；仍有投递在等待、执行中或结果未知，或者事件被暂存，详见 message（会指出事件缺少的字段）。无需重发。",
        _ANSWER,
        _STORED,
    ),
    "400": _Response(
        "Not strict JSON in UTF-8, not an object, or not valid HTTP; with line and column if known. / "
        "请求体不是严格的 UTF-8 JSON、不是对象，或 HTTP 请求格式有误；尽可能给出行号和列号。"
    ),
    "401": _Response("No valid credential. / 未提供有效的凭证。", headers=("WWW-Authenticate",)),
    "403": _Response(
        "The credential is not allowed from this address; or no source is configured, and the request came through a "
        "proxy, from a web page or under a name of another machine. / "
        "不允许从当前地址使用该凭证；或者尚未配置来源，而请求经过了代理、由网页发出，或使用了其他主机名。"
    ),
    "404": _Response("Unknown path or kind of callback. / 路径不存在，或没有这种回调类型。"),
    "405": _Response("The path does not support this method. / 该路径不支持此请求方法。", headers=("Allow",)),
    "408": _Response("The request did not arrive in time. / 未在规定时间内收到完整的请求。"),
    "409": _Response(
        "An earlier callback of this process instance had other data. The first callback remains valid. / "
        "该流程实例此前已用不同的数据回调过，以第一次为准。",
        headers=("Flowhooks-Event",),
    ),
    "413": _Response("The body is too large. / 请求体过大。"),
    "415": _Response("The declared type of the body is not JSON in UTF-8. / 请求体声明的类型不是 UTF-8 编码的 JSON。"),
    "422": _Response(
        "The flowInstanceId or the body does not match the schema: the first 20 violations, each with its JSON "
        "Pointer; or no handler matches, and the server is configured to reject such callbacks. / "
        "flowInstanceId 或请求体不符合 schema：列出前 20 处错误及其 JSON Pointer；"
        "或者没有匹配的处理器，且服务器设置为拒绝这种回调。"
    ),
    "429": _Response(
        "The engine exceeds its rate limit, or too many callbacks from its address had an invalid signature; nothing "
        "is stored. Send the callback again later. / "
        "流程引擎发送过于频繁，或来自该地址的回调中签名无效的过多；回调未存储，可以稍后重发。",
        headers=("Retry-After",),
    ),
    "431": _Response("The headers are too large. / 请求头过大。"),
    "500": _Response(
        "A handler has failed and has no retry left: errorInfo.message names it and gives the reason. The event is "
        "stored; do not send the callback again. Without Flowhooks-Event: internal server error, safe to send again. / "
        "处理器执行失败：errorInfo.message 给出处理器名称和原因。回调已存储并会提示运维人员，无需重发。"
        "如果没有 Flowhooks-Event 响应头，则为服务器内部错误，可以重发。",
        headers=_STORED,
    ),
    "501": _Response("The request uses a part of HTTP that is not supported. / 请求使用了不支持的 HTTP 功能。"),
    "503": _Response(
        "It is not known whether the callback is stored. It is safe to send it again. / "
        "不确定是否已存储，可以放心重发。",
        headers=("Retry-After",),
    ),
    "505": _Response("The client uses HTTP/2; use HTTP/1.1. / 客户端使用了 HTTP/2；请使用 HTTP/1.1。"),
}

_INGRESS_PATH: Final = "/in/{source}"
_INGRESS_RESPONSE: Final = "ingress-200"
"""The component of the response to everything that a fixed URL stores, keeps or ignores."""
_INGRESS_INTERNAL_ERROR: Final = "ingress-500"
_INGRESS_STATUSES: Final = {
    status: status
    for status in ("400", "401", "403", "405", "408", "413", "415", "422", "429", "431", "500", "501", "503", "505")
} | {"500": _INGRESS_INTERNAL_ERROR}
"""Further statuses of a fixed URL, with their components. A conflict or a failed handler is no error there."""
_INGRESS_BODIES: Final = {
    "application/json": {"type": "object"},
    "application/x-www-form-urlencoded": {"type": "object"},
    "application/cloudevents+json": {"type": "object"},
    "application/cloudevents-batch+json": {"type": "array", "items": {"type": "object"}, "minItems": 1},
}
"""The media types of all formats. The settings of the source, or its receiver, decide which one it has."""


def openapi(schemas: Schemas) -> dict[str, Any]:
    """Return the callback contract.

    Args:
        schemas: the schema files in force, which alone define the bodies.

    Returns:
        An OpenAPI 3.1 document, ready for `json.dumps`. It has one path for each kind of callback. Its components are
        the schema files that it needs, with their references rewritten, and the parameters and responses, which all
        kinds share.
    """
    kinds = {kind: f"call-back/{kind}{SUFFIX}" for kind in schemas.kinds}
    shared_files = (_ANSWER, ERROR, _FLOW_INSTANCE_ID)
    bodies = _referenced_files(schemas.documents, kinds.values()) - _referenced_files(schemas.documents, shared_files)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": DIALECT,
        "info": {
            "title": "flowhooks: callbacks of workflow engines / 流程回调",
            "summary": "Callbacks that a workflow engine sends when a process has completed. / "
            "流程完成时由流程引擎发送的回调。",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": {
            f"/flow/{{flowInstanceId}}/call-back/{kind}": _path(kind, name, schemas.documents)
            for kind, name in kinds.items()
        }
        | {_INGRESS_PATH: _ingress_path()},
        "components": {
            "schemas": components(schemas.documents, (*shared_files, *kinds.values()), bodies=bodies),
            "parameters": {
                "flowInstanceId": {
                    "name": "flowInstanceId",
                    "in": "path",
                    "required": True,
                    "description": schemas.documents[_FLOW_INSTANCE_ID].get("description", ""),
                    "schema": _reference(_FLOW_INSTANCE_ID),
                },
                "source": {
                    "name": "source",
                    "in": "path",
                    "required": True,
                    "description": "The name of the source in the settings of the server. / 服务器配置中的来源名称。",
                    "schema": _TEXT | {"minLength": 1},
                },
                **{
                    name: {"name": name, "in": "header", "description": text, "schema": _TEXT}
                    for name, text in _PARAMETERS.items()
                },
            },
            "responses": {
                status: {
                    "description": response.description,
                    "headers": {header: _component_reference("headers", header) for header in response.headers},
                    "content": _content(response.body, schemas.documents),
                }
                for status, response in _RESPONSES.items()
            }
            | {
                _INGRESS_RESPONSE: _ingress_response(),
                _INGRESS_INTERNAL_ERROR: {
                    "description": "Internal server error. It is safe to send the request again. / "
                    "服务器内部错误，可以重发。",
                    "content": _content(ERROR, schemas.documents),
                },
            },
            "headers": {name: {"description": text, "schema": _TEXT} for name, text in _HEADERS.items()},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of the engine. A token or a signature is required if the server has "
                    "sources in its settings. / "
                    "流程引擎的令牌；服务器配置了流程引擎时必须提供令牌或签名。",
                },
                "signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "webhook-signature",
                    "description": "A Standard Webhooks signature, with webhook-id and webhook-timestamp. / "
                    "符合 Standard Webhooks 规范的签名，须同时携带 webhook-id 和 webhook-timestamp。",
                },
            },
        },
    }


def _ingress_path() -> dict[str, Any]:
    """Return the path of all fixed URLs."""
    responses = {"200": _component_reference("responses", _INGRESS_RESPONSE)} | {
        status: _component_reference("responses", name) for status, name in _INGRESS_STATUSES.items()
    }
    shared = {
        "security": [{}, {"bearer": []}, {"signature": []}],
        "parameters": [_component_reference("parameters", name) for name in _PARAMETERS],
        "responses": responses,
    }
    return {
        "parameters": [_component_reference("parameters", "source")],
        "post": {
            "operationId": "ingress",
            "summary": "Request to the fixed URL of a source. / 发送到来源固定 URL 的请求。",
            "description": "For senders that have one fixed URL. The settings of the source say how the body becomes a "
            "callback. A plugin that reads the requests may answer an error with a body of its own. / "
            "适用于只有一个固定 URL 的发送方；来源的配置决定请求体如何转换为回调。"
            "由插件读取请求时，错误响应的正文可由插件自行决定。",
            "requestBody": {"content": {name: {"schema": schema} for name, schema in _INGRESS_BODIES.items()}},
            **shared,
        },
        "get": {
            "operationId": "ingress-handshake",
            "summary": "Handshake with a receiver. / 与接收插件握手。",
            "description": "Only for a source whose requests a plugin reads; otherwise the answer is 401. The plugin "
            "may answer an error with a body of its own. / "
            "仅适用于由插件读取请求的来源，否则返回 401；错误响应的正文可由插件自行决定。",
            **shared,
        },
    }


def _ingress_response() -> dict[str, Any]:
    return {
        "description": "Stored, kept or ignored, with the body that this sender takes for success. / "
        "已存储、保留或忽略；响应体为该发送方视为成功的内容。",
        "headers": {header: _component_reference("headers", header) for header in _STORED},
        "content": {"*/*": {}},
    }


def components(
    documents: Mapping[str, dict[str, Any]], names: Iterable[str], *, bodies: Collection[str] = ()
) -> dict[str, Any]:
    """Return schema files, and the files that they refer to, as components of a document.

    Args:
        documents: all schema files, by name.
        names: the files that are needed.
        bodies: the files of request bodies, in which a null member counts as absent.
    """
    schemas = {}
    required = _required_members(documents, bodies)
    for name in sorted(_referenced_files(documents, names)):
        schemas[_component(name)] = published = _as_component(name, documents)
        for schema in _object_schemas(published) if name in bodies else ():
            for member, property_schema in schema.get("properties", {}).items():
                if isinstance(property_schema, dict) and member not in required:
                    property_schema.update(nullable(property_schema))
    return schemas


def nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that also accepts null if the schema states types; otherwise an unchanged copy."""
    types = schema.get("type", [])
    names = [types] if isinstance(types, str) else list(types)
    if not names or "const" in schema:
        return dict(schema)
    listed = {"enum": list(dict.fromkeys([*schema["enum"], None]))} if "enum" in schema else {}
    return {**schema, "type": list(dict.fromkeys([*names, "null"])), **listed}


def _path(kind: str, name: str, documents: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    document = documents[name]
    return {
        "parameters": [_component_reference("parameters", "flowInstanceId")],
        "post": {
            "operationId": f"call-back-{kind}",
            "summary": document.get("title", kind),
            "description": document.get("description", ""),
            "security": [{}, {"bearer": []}, {"signature": []}],
            "parameters": [_component_reference("parameters", name) for name in _PARAMETERS],
            "requestBody": {"required": True, "content": _content(name, documents)},
            "responses": {status: _component_reference("responses", status) for status in _RESPONSES},
        },
    }


def _content(name: str, documents: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    examples = {
        f"example-{number}": {"value": example} for number, example in enumerate(documents[name].get("examples", ()), 1)
    }
    return {"application/json": {"schema": _reference(name)} | ({"examples": examples} if examples else {})}


def _referenced_files(documents: Mapping[str, dict[str, Any]], names: Iterable[str]) -> set[str]:
    """Return the named files and all files they refer to."""
    needed: set[str] = set()
    remaining = set(names)
    while remaining:
        name = remaining.pop()
        needed.add(name)
        remaining |= {
            locate(documents, name, schema["$ref"])[0]
            for schema in _object_schemas(documents[name])
            if "$ref" in schema
        } - needed
    return needed


def _as_component(name: str, documents: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Rewrite a schema file's references to components."""
    document = copy.deepcopy(documents[name])
    for schema in _object_schemas(document):
        for keyword in ("$schema", "$id", "$anchor"):
            schema.pop(keyword, None)
        if "$ref" in schema:
            schema["$ref"] = _reference(*locate(documents, name, schema["$ref"]))["$ref"]
    return document


def _object_schemas(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a schema and its subschemas, except `true` and `false`."""
    return [schema for _, schema in subschemas(document) if isinstance(schema, dict)]


def _required_members(documents: Mapping[str, dict[str, Any]], names: Iterable[str]) -> set[str]:
    # For these members null may be invalid where their absence is valid.
    return {
        member for name in names for schema in _object_schemas(documents[name]) for member in schema.get("required", ())
    }


def _component(name: str) -> str:
    return name.removesuffix(SUFFIX).replace("/", ".")


def _component_reference(section: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{section}/{name}"}


def _reference(name: str, pointer: str = "") -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{_component(name)}{quote(pointer, safe='/~$')}"}
