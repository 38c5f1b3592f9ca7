"""Messages of responses to callbacks."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

from typing import Final

MESSAGES: Final[dict[str, dict[str, str]]] = {
    # The body is not JSON.
    "body_empty": {
        "en": "The body is empty; send a JSON object, or {{}} if there are no members.",
        "zh": "请求体为空；请发送 JSON 对象，没有内容时发送 {{}}。",
    },
    "body_not_utf8": {
        "en": "The body is not UTF-8: byte {byte} cannot be decoded.",
        "zh": "请求体不是 UTF-8 编码：第 {byte} 个字节无法解码。",
    },
    "body_bom": {
        "en": "The body starts with a byte order mark; send UTF-8 without one.",
        "zh": "请求体以 BOM（字节顺序标记）开头；请使用不带 BOM 的 UTF-8。",
    },
    "body_not_json": {
        "en": "The body is not JSON: it cannot be read at line {line}, column {column}.",
        "zh": "请求体不是合法的 JSON：第 {line} 行第 {column} 列无法解析。",
    },
    "body_not_object": {
        "en": "The body is JSON, but not an object; send members in {{ and }}.",
        "zh": "请求体是 JSON，但不是对象；请发送由 {{ 和 }} 包围的对象。",
    },
    "body_too_deep": {
        "en": "The body is nested more than {limit} levels deep.",
        "zh": "请求体的嵌套超过 {limit} 层。",
    },
    "duplicate_member": {
        "en": "The body has an object with two members named {name}; send each member once.",
        "zh": "请求体的同一个对象中有重复的字段 {name}；每个字段只能出现一次。",
    },
    "number_constant": {
        "en": "The body contains {constant}, which is not JSON; send null or leave the member out.",
        "zh": "请求体中含有 {constant}，它不是合法的 JSON；请改为 null 或去掉该字段。",
    },
    "number_not_finite": {
        "en": "The body has a number that is too large for a double.",
        "zh": "请求体中有数值超出了 double 的范围。",
    },
    "number_too_long": {
        "en": "The body has an integer of more than {limit} digits.",
        "zh": "请求体中有超过 {limit} 位的整数。",
    },
    "string_nul": {
        "en": "The body has the character NUL (\\u0000) in a string at line {line}, column {column}; leave it out.",
        "zh": "请求体第 {line} 行第 {column} 列的字符串中含有空字符（\\u0000）；请去掉。",
    },
    "string_surrogate": {
        "en": "The body has half of a surrogate pair in a string at line {line}, column {column}; send whole "
        "characters.",
        "zh": "请求体第 {line} 行第 {column} 列的字符串中含有不成对的代理项（surrogate）；请发送完整的字符。",
    },
    # The body violates the schema: an introduction, then one clause for each violation.
    "body_refused": {
        "en": "The body is JSON, but is not valid for this callback.",
        "zh": "请求体是合法的 JSON，但不符合该回调的格式。",
    },
    "body_refused_more": {
        "en": "The body is JSON, but is not valid for this callback: {total} violations; the first {shown} are shown.",
        "zh": "请求体是合法的 JSON，但不符合该回调的格式：共 {total} 处错误，仅列出前 {shown} 处。",
    },
    "body_refused_many": {
        "en": "The body is JSON, but is not valid for this callback: more than {total} violations; the first {shown} "
        "are shown.",
        "zh": "请求体是合法的 JSON，但不符合该回调的格式：错误超过 {total} 处，仅列出前 {shown} 处。",
    },
    "body_unchecked": {
        "en": "The body could not be checked against the schema of this callback; send smaller numbers and less "
        "deeply nested members.",
        "zh": "无法按该回调的 schema 校验请求体；请减小数值的大小或减少嵌套层数。",
    },
    "path_id": {
        "en": "The flowInstanceId in the path is not valid.",
        "zh": "路径中的 flowInstanceId 不合法。",
    },
    "path_id_encoding": {
        "en": "The flowInstanceId in the path is not percent-encoded UTF-8.",
        "zh": "路径中的 flowInstanceId 不是按 UTF-8 进行的百分号编码。",
    },
    "schema.id_character": {
        "en": "must not contain the character {code}: control characters, line separators and direction marks are "
        "refused",
        "zh": "不能含有字符 {code}：控制字符、行分隔符和文字方向标记会被拒绝",
    },
    "schema.id_edges": {"en": "must not begin or end with white space", "zh": "首尾不能有空白字符"},
    "schema.id_bytes": {
        "en": "must not be longer than {limit} bytes in UTF-8",
        "zh": "按 UTF-8 编码后不能超过 {limit} 字节",
    },
    "schema.type": {"en": "must be of type {types}", "zh": "类型应为 {types}"},
    "schema.type_process_key": {
        "en": "must be of type string: the id of the process in its diagram. Camunda 8 calls this id bpmnProcessId; "
        "its own processDefinitionKey is a number that no handler has",
        "zh": "类型应为 string：流程图中流程的 id。Camunda 8 把该 id 称为 bpmnProcessId，"
        "它自己的 processDefinitionKey 是数字，没有处理器使用",
    },
    "schema.enum": {"en": "must be one of {allowed}", "zh": "应为以下值之一：{allowed}"},
    "schema.const": {"en": "must be {allowed}", "zh": "应为 {allowed}"},
    "schema.multipleOf": {"en": "must be a multiple of {limit}", "zh": "应为 {limit} 的整数倍"},
    "schema.maximum": {"en": "must be at most {limit}", "zh": "不能大于 {limit}"},
    "schema.exclusiveMaximum": {"en": "must be less than {limit}", "zh": "应小于 {limit}"},
    "schema.minimum": {"en": "must be at least {limit}", "zh": "不能小于 {limit}"},
    "schema.exclusiveMinimum": {"en": "must be greater than {limit}", "zh": "应大于 {limit}"},
    "schema.maxLength": {
        "en": "must not be longer than {limit} characters",
        "zh": "长度不能超过 {limit} 个字符",
    },
    "schema.minLength": {
        "en": "must not be shorter than {limit} characters",
        "zh": "长度不能少于 {limit} 个字符",
    },
    "schema.pattern": {
        "en": "must match the regular expression {pattern}",
        "zh": "应匹配正则表达式 {pattern}",
    },
    "schema.maxItems": {"en": "must not have more than {limit} items", "zh": "元素不能超过 {limit} 个"},
    "schema.minItems": {"en": "must not have fewer than {limit} items", "zh": "元素不能少于 {limit} 个"},
    "schema.uniqueItems": {"en": "must not have the same item twice", "zh": "元素不能重复"},
    "schema.contains": {
        "en": "must have an item that matches the schema's contains",
        "zh": "至少要有一个符合 schema 中 contains 要求的元素",
    },
    "schema.maxContains": {
        "en": "must not have more than {limit} items that match the schema's contains",
        "zh": "符合 schema 中 contains 要求的元素不能超过 {limit} 个",
    },
    "schema.minContains": {
        "en": "must not have fewer than {limit} items that match the schema's contains",
        "zh": "符合 schema 中 contains 要求的元素不能少于 {limit} 个",
    },
    "schema.maxProperties": {"en": "must not have more than {limit} members", "zh": "字段不能超过 {limit} 个"},
    "schema.minProperties": {"en": "must not have fewer than {limit} members", "zh": "字段不能少于 {limit} 个"},
    "schema.required": {
        "en": "must have the member {name} (null counts as absent)",
        "zh": "缺少必填字段 {name}（值为 null 视为未填）",
    },
    "schema.dependentRequired": {
        "en": "must have the member {name} too, because it has {given} (null counts as absent)",
        "zh": "填写了 {given} 时必须同时填写 {name}（值为 null 视为未填）",
    },
    "schema.anyOf": {
        "en": "matches none of the schema's alternatives",
        "zh": "不符合 schema 允许的任何一种形式",
    },
    "schema.oneOf": {
        "en": "must match exactly one of the schema's alternatives, but matches none",
        "zh": "应当且只应符合 schema 允许的一种形式，实际一种也不符合",
    },
    "schema.oneOf_several": {
        "en": "must match exactly one of the schema's alternatives, but matches more than one",
        "zh": "应当且只应符合 schema 允许的一种形式，实际符合多种",
    },
    "schema.not": {"en": "has a form that the schema does not allow", "zh": "属于 schema 禁止的形式"},
    "schema.nothing": {"en": "is not allowed here", "zh": "此处不允许出现"},
    "schema.name": {"en": "has a name that the schema does not allow", "zh": "字段名不符合 schema 的要求"},
    "schema.unevaluatedItems": {
        "en": "has items that the schema does not allow",
        "zh": "含有 schema 不允许的元素",
    },
    "schema.unevaluatedProperties": {
        "en": "has members that the schema does not allow",
        "zh": "含有 schema 不允许的字段",
    },
    "schema.other": {
        "en": "does not satisfy the schema's keyword {keyword}",
        "zh": "不满足 schema 关键字 {keyword} 的要求",
    },
    # The request cannot be accepted.
    "bad_request": {
        "en": "This is not a well-formed HTTP request.",
        "zh": "HTTP 请求格式有误。",
    },
    "unauthorized": {
        "en": "No valid credential was sent; send the header Authorization: Bearer with the token of this engine, or "
        "sign the callback with its secret.",
        "zh": "未提供有效的凭证；请在请求头 Authorization 中以 Bearer 方式携带本流程引擎的令牌，"
        "或使用其密钥对回调签名。",
    },
    # Causes that only the operator sees.
    "unauthorized.nothing_sent": {
        "en": "The request has neither a token nor a signature.",
        "zh": "请求既没有令牌，也没有签名。",
    },
    "unauthorized.token_malformed": {
        "en": "The header Authorization does not hold a single bearer token.",
        "zh": "请求头 Authorization 中不是单个 Bearer 令牌。",
    },
    "unauthorized.token_unknown": {
        "en": "The token belongs to no source.",
        "zh": "其令牌不属于任何来源。",
    },
    "unauthorized.signature_incomplete": {
        "en": "A header webhook-id, webhook-timestamp or webhook-signature is missing or empty.",
        "zh": "请求头 webhook-id、webhook-timestamp 和 webhook-signature 中有缺失或为空的。",
    },
    "unauthorized.signature_malformed": {
        "en": "A header webhook-id, webhook-timestamp or webhook-signature does not conform to Standard Webhooks, or "
        "was sent twice.",
        "zh": "请求头 webhook-id、webhook-timestamp 或 webhook-signature 不符合 Standard Webhooks 规范，或出现了多次。",
    },
    "unauthorized.signature_time": {
        "en": "The webhook-timestamp differs from the server's time by more than 5 minutes; check both clocks, and "
        "sign again at each retry.",
        "zh": "其 webhook-timestamp 与本机时间相差超过 5 分钟；请检查双方的时钟，并在每次重试时重新签名。",
    },
    "unauthorized.signature_unknown": {
        "en": "The signature matches no valid secret of a source that is allowed from this address, or was made for "
        "another body.",
        "zh": "其签名不是由允许从该地址调用的来源的有效密钥生成的，或者所签的不是此请求体。",
    },
    "unauthorized.message_reused": {
        "en": "The webhook-id was used before for another path or other data, so the request may be a copy by an "
        "attacker.",
        "zh": "其 webhook-id 此前已用于其他路径或其他数据，可能有人在重放请求。",
    },
    "forbidden": {
        "en": "The credential is valid, but is not allowed from this address; ask the operator to allow it.",
        "zh": "凭证有效，但不允许从当前地址调用；请联系运维人员放行该地址。",
    },
    "forbidden_address": {
        "en": "Signed callbacks are not allowed from this address; ask the operator to allow it.",
        "zh": "不允许从当前地址发送签名的回调；请联系运维人员放行该地址。",
    },
    "no_source_proxy": {
        "en": "No source is configured, so callbacks are accepted from this machine only, and this request came "
        "through a proxy; ask the operator to add a section [sources.NAME] to the settings (flowhooks sources "
        "new prints it).",
        "zh": "尚未配置来源，因此只接受来自本机的回调，而此请求经过了代理；"
        "请联系运维人员在配置中添加 [sources.NAME]（可用 flowhooks sources new 生成）。",
    },
    "no_source_page": {
        "en": "No source is configured, so callbacks are accepted from programs on this machine only, and this "
        "request was sent by a web page; ask the operator to add a section [sources.NAME] to the settings "
        "(flowhooks sources new prints it).",
        "zh": "尚未配置来源，因此只接受本机程序发送的回调，而此请求由网页发出；"
        "请联系运维人员在配置中添加 [sources.NAME]（可用 flowhooks sources new 生成）。",
    },
    "no_source_host": {
        "en": "No source is configured, so callbacks are accepted from this machine only, and the header Host is not "
        "localhost, 127.0.0.1 or the address in the setting listen; use one of these addresses, or ask the "
        "operator to add a section [sources.NAME] to the settings (flowhooks sources new prints it).",
        "zh": "尚未配置来源，因此只接受来自本机的回调，而请求头 Host 不是 localhost、127.0.0.1 或配置项 listen 的地址；"
        "请改用这些地址调用，或联系运维人员在配置中添加 [sources.NAME]（可用 flowhooks sources new 生成）。",
    },
    "too_many": {
        "en": "This engine exceeds its rate limit; send the callback again after the seconds in Retry-After.",
        "zh": "本流程引擎发送的回调超过了允许的频率；请在 Retry-After 给出的秒数之后重发。",
    },
    "too_many_invalid": {
        "en": "Too many callbacks from this address had an invalid signature; send the callback again after the "
        "seconds in Retry-After.",
        "zh": "来自该地址的回调中，签名无效的过多；请在 Retry-After 给出的秒数之后重发。",
    },
    "not_found": {
        "en": "There is nothing at this path; send callbacks to /flow/{{flowInstanceId}}/call-back/ followed by "
        "their kind, or to /in/ followed by the name of their source.",
        "zh": "路径不存在；回调地址的格式为 /flow/{{flowInstanceId}}/call-back/ 加上回调类型，或 /in/ 加上来源名称。",
    },
    "path_slashes": {
        "en": "The path starts with two slashes; write one. The base URL of the client may end with a slash.",
        "zh": "路径以两个斜杠开头；只能写一个。客户端的基础 URL 末尾可能多写了斜杠。",
    },
    "unknown_kind": {
        "en": "There is no callback of this kind; the kinds are {kinds}.",
        "zh": "没有这种类型的回调；可用的类型：{kinds}。",
    },
    "not_found_slash": {
        "en": "There is nothing at this path; send callbacks to /flow/{{flowInstanceId}}/call-back/ followed by "
        "their kind, or to /in/ followed by the name of their source, without a slash at the end.",
        "zh": "路径不存在；回调地址的格式为 /flow/{{flowInstanceId}}/call-back/ 加上回调类型，或 /in/ 加上来源名称，"
        "末尾没有斜杠。",
    },
    "method_not_allowed": {
        "en": "This path does not support the method; it supports {allowed}.",
        "zh": "该路径不支持此请求方法；支持的方法：{allowed}。",
    },
    "request_timeout": {
        "en": "The request did not arrive completely in time; send it again.",
        "zh": "在规定时间内未收到完整的请求；请重新发送。",
    },
    "conflict": {
        "en": "An earlier callback for this process instance had other data. The earlier callback remains valid; "
        "this one is kept beside it for the operator.",
        "zh": "该流程实例此前已用不同的数据回调过。以第一次回调为准，本次数据已另行保存，供运维人员查看。",
    },
    "conflict_purged": {
        "en": "An earlier callback for this process instance had other data. The earlier callback remains valid; its "
        "event has been purged, so this one is not kept either.",
        "zh": "该流程实例此前已用不同的数据回调过。以第一次回调为准；其事件记录已清理，因此本次数据也不再保存。",
    },
    "too_large": {
        "en": "The body is larger than {limit} bytes.",
        "zh": "请求体超过 {limit} 字节。",
    },
    "headers_too_large": {
        "en": "The request line and headers are larger than {limit} bytes.",
        "zh": "请求行和请求头超过 {limit} 字节。",
    },
    "media_type": {
        "en": "The body's Content-Type is {given}; send application/json in UTF-8.",
        "zh": "请求体的 Content-Type 为 {given}；请使用 UTF-8 编码的 application/json。",
    },
    "content_encoding": {
        "en": "The body is compressed or otherwise encoded ({given}); send it without Content-Encoding.",
        "zh": "请求体经过压缩或其他编码（{given}）；请去掉 Content-Encoding，直接发送原文。",
    },
    "no_handler": {
        "en": "No handler is installed for this callBackProcessClass or processDefinitionKey; nothing was stored.",
        "zh": "没有处理器对应该 callBackProcessClass 或 processDefinitionKey；回调未存储。",
    },
    "no_name": {
        "en": "The callback has neither callBackProcessClass nor processDefinitionKey, so no handler can match; "
        "nothing was stored. Send one of them.",
        "zh": "回调既没有 callBackProcessClass，也没有 processDefinitionKey，无法找到处理器；回调未存储。"
        "请至少填写其中一个字段。",
    },
    "not_implemented": {
        "en": "The request uses a feature of HTTP that this server does not support.",
        "zh": "请求使用了服务器不支持的 HTTP 功能。",
    },
    "http_2": {
        "en": "This server does not support HTTP/2; use HTTP/1.1.",
        "zh": "服务器不支持 HTTP/2；请使用 HTTP/1.1。",
    },
    # The administration API cannot answer the request.
    "ledger_unread": {
        "en": "The database cannot be read now; try again later.",
        "zh": "数据库暂时无法读取；请稍后重试。",
    },
    # The event is stored, but not all of its deliveries have succeeded.
    "pending": {
        "en": "The callback is stored and need not be sent again. Its unfinished deliveries: {waiting} waiting, "
        "{running} running, {unknown} unknown (an operator decides on those).",
        "zh": "回调已存储，无需重发。尚未完成的投递：等待执行 {waiting} 个，执行中 {running} 个，"
        "结果未知 {unknown} 个（由运维人员处理）。",
    },
    "parked": {
        "en": "The callback is stored and need not be sent again, but no handler is installed for it yet; it is "
        "delivered once a handler is installed.",
        "zh": "回调已存储，无需重发；目前没有对应的处理器，安装处理器后会自动投递。",
    },
    "parked_name": {
        "en": "The callback is stored and need not be sent again, but it has neither callBackProcessClass nor "
        "processDefinitionKey, so no handler can match. Send one of them with later callbacks; an operator "
        "decides on this one.",
        "zh": "回调已存储，无需重发；但它既没有 callBackProcessClass，也没有 processDefinitionKey，无法找到处理器。"
        "以后的回调请至少填写其中一个字段；本次回调由运维人员处理。",
    },
    "parked_digits": {
        "en": "The callback is stored and need not be sent again, but no handler is installed for it yet; it is "
        "delivered once a handler is installed. Its processDefinitionKey has only digits: if the engine is Camunda 8, "
        "send its bpmnProcessId as processDefinitionKey instead.",
        "zh": "回调已存储，无需重发；目前没有对应的处理器，安装处理器后会自动投递。它的 processDefinitionKey 只有数字："
        "如果引擎是 Camunda 8，请改为把 bpmnProcessId 作为 processDefinitionKey 发送。",
    },
    "parked_condition": {
        "en": "The callback is stored and need not be sent again, but a handler needs {member} to decide whether it "
        "matches, and {member} is absent or has another type. Send it with later callbacks; an operator "
        "decides on this one.",
        "zh": "回调已存储，无需重发；但处理器需要 {member} 才能判断是否处理，而该字段缺失或类型不符。"
        "以后的回调请正确填写该字段；本次回调由运维人员处理。",
    },
    "dead": {
        "en": "The callback is stored and need not be sent again, but its handler {handler} failed: {why}",
        "zh": "回调已存储，无需重发，但处理器 {handler} 执行失败：{why}",
    },
    "dead_several": {
        "en": "The callback is stored and need not be sent again, but {count} of its handlers failed; the first is "
        "{handler}: {why}",
        "zh": "回调已存储，无需重发，但有 {count} 个处理器执行失败；第一个是 {handler}：{why}",
    },
    # It is not known whether the event is stored, or flowhooks itself has failed.
    "draining": {
        "en": "The server is shutting down and accepts no more callbacks; send this one again later.",
        "zh": "服务器正在停机，不再接收回调；请稍后重发。",
    },
    "ledger_full": {
        "en": "Too many callbacks are waiting to be stored; send this one again later.",
        "zh": "等待存储的回调过多；请稍后重发。",
    },
    "ledger_slow": {
        "en": "The callback could not be stored in time; send it again. That is safe even if it was stored.",
        "zh": "未能在规定时间内存储回调；请重发。即使回调实际已存储，重发也不会重复执行。",
    },
    "ledger_down": {
        "en": "The callback could not be stored because the database cannot be used now; send it again later.",
        "zh": "数据库暂时不可用，回调未能存储；请稍后重发。",
    },
    "event_damaged": {
        "en": "The callback was received before, but its stored event is damaged; send it again later.",
        "zh": "此前已收到该回调，但所存储的事件已损坏；请稍后重发。",
    },
    "newer_handlers": {
        "en": "The server cannot route callbacks now: a newer version of flowhooks has registered handlers; send "
        "this one again later.",
        "zh": "服务器暂时无法路由回调：处理器已由更新版本的 flowhooks 注册；请稍后重发。",
    },
    "no_room": {
        "en": "The server has no room for a body of this size now; send it again later.",
        "zh": "服务器暂时没有空间存放这样大的请求体；请稍后重发。",
    },
    "internal": {
        "en": "The server failed because of an internal error, which is in its log; send the request again later.",
        "zh": "服务器内部错误，详情已记录在服务器日志中；请稍后重发请求。",
    },
}
