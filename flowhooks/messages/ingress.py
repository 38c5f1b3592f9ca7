"""Further messages of responses to requests to the fixed URL of a source."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

from typing import Final

MESSAGES: Final[dict[str, dict[str, str]]] = {
    "body_not_array": {
        "en": "The body is JSON, but not an array; send the events of the batch in [ and ].",
        "zh": "请求体是 JSON，但不是数组；请用 [ 和 ] 包围批量事件。",
    },
    "form_empty": {
        "en": "The body is empty; send the fields of the form.",
        "zh": "请求体为空；请发送表单字段。",
    },
    "form_not_utf8": {
        "en": "A field of the form is not percent-encoded UTF-8.",
        "zh": "表单字段不是按 UTF-8 进行的百分号编码。",
    },
    "form_too_long": {"en": "The form has more than {limit} fields.", "zh": "表单字段超过 {limit} 个。"},
    "form_nul": {
        "en": "A field of the form contains the character NUL, which databases cannot store.",
        "zh": "表单字段含有 NUL 字符，数据库无法存储。",
    },
    "batch_size": {
        "en": "The batch has {count} events; send 1 to {limit}.",
        "zh": "批量请求中有 {count} 个事件；每次请发送 1 到 {limit} 个。",
    },
    "batch_not_objects": {
        "en": "The batch contains a value that is not an object; send one object per event.",
        "zh": "批量请求中有不是对象的值；每个事件请发送一个对象。",
    },
    "cloudevent_header": {
        "en": "A ce- header is not percent-encoded UTF-8, or contains the character NUL.",
        "zh": "某个 ce- 请求头不是按 UTF-8 进行的百分号编码，或含有 NUL 字符。",
    },
    "cloudevent_unsigned_headers": {
        "en": "The attributes of the event are in headers, which the signature does not cover; send the event in the "
        "structured mode, or send a token.",
        "zh": "事件属性位于请求头中，而签名不包含请求头；请使用结构化模式发送事件，或改用令牌。",
    },
    # The event does not follow CloudEvents: an introduction, then one clause for each pointer.
    "cloudevent_refused": {
        "en": "The body does not follow CloudEvents 1.0.",
        "zh": "请求体不符合 CloudEvents 1.0。",
    },
    "cloudevent.no_text": {"en": "must be a text that is not empty", "zh": "应为非空文本"},
    "cloudevent.version": {"en": "must be 1.0", "zh": "应为 1.0"},
    "cloudevent.not_base64": {"en": "must be Base64", "zh": "应为 Base64 编码"},
    "cloudevent.two_data": {"en": "must not be sent beside data", "zh": "不能与 data 同时出现"},
    # The mapping of the settings does not fit the body: an introduction, then one clause for each pointer.
    "ingress_refused": {
        "en": "The body does not fit the mapping that the settings of this source define.",
        "zh": "请求体与该来源配置中的映射不符。",
    },
    "ingress.absent": {"en": "is missing or empty", "zh": "缺失或为空"},
    "ingress.kind": {
        "en": "has a value that the table of kinds does not contain",
        "zh": "值不在 kind 对照表中",
    },
    "ingress.not_text": {"en": "must be a text or a whole number", "zh": "应为文本或整数"},
    "ingress.not_whole": {"en": "must be a whole number", "zh": "应为整数"},
    "ingress_media_type": {
        "en": "The Content-Type is {given}, but this source must send {expected}, in UTF-8.",
        "zh": "Content-Type 为 {given}，但该来源应发送 UTF-8 编码的 {expected}。",
    },
    # The data of a callback that the mapping or a receiver made: an introduction, then one clause for each violation.
    "callback_refused": {
        "en": "The request can be read, but is not valid for this callback.",
        "zh": "请求可以读取，但不符合该回调的格式。",
    },
    "ingress_kind_unavailable": {
        "en": "The kind of callback that the settings of this source name is not available now; send the request again "
        "later.",
        "zh": "该来源配置中的回调类型暂时不可用；请稍后重发。",
    },
    "receiver_unavailable": {
        "en": "The plugin that reads the requests of this source is not available now; send the request again later.",
        "zh": "负责读取该来源请求的插件暂时不可用；请稍后重发。",
    },
    "receiver_slow": {
        "en": "The plugin that reads the requests of this source did not answer in time; send the request again later.",
        "zh": "负责读取该来源请求的插件未及时响应；请稍后重发。",
    },
    "receiver_failed": {
        "en": "The plugin that reads the requests of this source failed; send the request again later.",
        "zh": "负责读取该来源请求的插件出错；请稍后重发。",
    },
    "query_too_long": {
        "en": "The query of the path has more than {limit} parameters.",
        "zh": "路径的查询参数超过 {limit} 个。",
    },
    "raw_body_nul": {
        "en": "The body contains the character NUL, which databases cannot store.",
        "zh": "请求体含有 NUL 字符，数据库无法存储。",
    },
    # Reasons of a 401, for operators only.
    "unauthorized.source_unknown": {
        "en": "The path names no source with a section ingress.",
        "zh": "路径中的名称不是带有 ingress 小节的来源。",
    },
    "unauthorized.no_receiver": {
        "en": "The request is a GET, but no plugin reads the requests of this source.",
        "zh": "请求方法为 GET，但该来源的请求不由插件读取。",
    },
    "unauthorized.receiver_address": {
        "en": "This source may not call from this address; the receiver was not called.",
        "zh": "不允许该来源从当前地址调用；未调用接收插件。",
    },
    "unauthorized.receiver_refused": {
        "en": "The plugin that reads the requests of this source found no valid credential.",
        "zh": "负责读取该来源请求的插件未找到有效的凭证。",
    },
    "unauthorized.token_of_another": {
        "en": "The token belongs to another source than the one that the path names.",
        "zh": "其令牌属于另一个来源，而不是路径中的来源。",
    },
    "unauthorized.scheme_incomplete": {
        "en": "A header that the section signature of this source names is missing or empty.",
        "zh": "该来源 signature 小节中指定的请求头缺失或为空。",
    },
    "unauthorized.scheme_malformed": {
        "en": "A header that the section signature of this source names does not have the form that the section "
        "describes, or was sent twice.",
        "zh": "该来源 signature 小节中指定的请求头格式与设置不符，或出现了多次。",
    },
    "unauthorized.scheme_time": {
        "en": "The time of the signature differs from the server's time by more than 5 minutes; check both clocks, and "
        "sign again at each retry.",
        "zh": "签名时间与本机时间相差超过 5 分钟；请检查双方的时钟，并在每次重试时重新签名。",
    },
    "unauthorized.scheme_unknown": {
        "en": "The signature matches no valid secret of this source, or was made for another body.",
        "zh": "其签名不是由该来源的有效密钥生成的，或者所签的不是此请求体。",
    },
    "receiver_response": {
        "en": "The plugin that reads the requests of this source answered {status}, by its rule: {why}",
        "zh": "负责读取该来源请求的插件返回了 {status}，规则：{why}",
    },
}
