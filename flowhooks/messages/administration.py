"""Messages of responses to requests to the administration listener."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

from typing import Final

MESSAGES: Final[dict[str, dict[str, str]]] = {
    "operator_unauthorized": {
        "en": "No valid credential was sent; send the header Authorization: Bearer with the token of an operator.",
        "zh": "未提供有效的凭证；请在请求头 Authorization 中以 Bearer 方式携带运维人员的令牌。",
    },
    "operator_role": {
        "en": "This operator may only read; use the token of an operator with the role operate.",
        "zh": "该运维人员只能查看，不能修改；请使用角色为 operate 的令牌。",
    },
    "operator_not_here": {
        "en": "Only this machine may call this, under the name localhost or 127.0.0.1; to allow other machines, add "
        "operators to the settings.",
        "zh": "此接口只允许本机以 localhost 或 127.0.0.1 访问；如需从其他机器访问，请在配置中添加运维人员。",
    },
    "operator_other_name": {
        "en": "Send the token of an operator, or use the address in the setting public_url.",
        "zh": "请携带运维人员的令牌，或使用配置项 public_url 中的地址。",
    },
    "admin_ledger": {
        "en": "The ledger cannot be read now; the server's log has the reason.",
        "zh": "暂时无法读取台账；原因见服务器日志。",
    },
    "operator_login_header": {
        "en": "The request has a header that names an operator, but it does not come from the proxy that the settings "
        "name, or the header has no usable value; the server's log has the reason.",
        "zh": "请求带有指明运维人员的请求头，但它不是来自配置中指定的代理，或者其值不可用；原因见服务器日志。",
    },
    "operator_no_role": {
        "en": "You are logged in at the proxy, but none of your groups has a role here; ask for a group that the "
        "setting login.groups names.",
        "zh": "您已在代理处登录，但您所在的组在此没有角色；请申请加入配置项 login.groups 中列出的组。",
    },
    "operator_scope": {
        "en": "Your role does not allow this; the page about access in the documentation lists what a restricted role "
        "may see and change.",
        "zh": "您的角色不允许此操作；受限角色可以查看和修改的内容见文档中关于访问权限的页面。",
    },
    "operator_masked": {
        "en": "Your role may not search by this field, because its values are hidden from the role.",
        "zh": "您的角色不能按此字段搜索，因为该字段的值对该角色隐藏。",
    },
    "query_unknown": {
        "en": "There is no parameter {name} here; the parameters are: {allowed}.",
        "zh": "没有参数 {name}；可用的参数：{allowed}。",
    },
    "query_twice": {
        "en": "The parameter {name} is given twice; give it once.",
        "zh": "参数 {name} 重复；只能出现一次。",
    },
    "query_not_utf8": {
        "en": "The query string is not percent-encoded UTF-8.",
        "zh": "查询字符串不是按 UTF-8 进行的百分号编码。",
    },
    "query_text": {
        "en": "The parameter {name} is empty, longer than {limit} characters, or contains the character NUL; leave "
        "it out if it is not needed.",
        "zh": "参数 {name} 为空、超过 {limit} 个字符，或含有空字符（NUL）；不需要时请去掉该参数。",
    },
    "query_many": {
        "en": "The parameter {name} is given more than {limit} times.",
        "zh": "参数 {name} 出现超过 {limit} 次。",
    },
    "query_id": {
        "en": "The parameter {name} must be an id from an earlier answer.",
        "zh": "参数 {name} 应为 ID，取自之前的响应。",
    },
    "query_trace_id": {
        "en": "The parameter {name} must be a trace id: 32 hexadecimal digits in lower case.",
        "zh": "参数 {name} 应为链路 ID：32 位小写十六进制数字。",
    },
    "query_field": {
        "en": "The parameter {name} must be a condition such as /vendor=ACME, /amount>=1000 or /amount<=1000.",
        "zh": "参数 {name} 应为条件，例如 /vendor=ACME、/amount>=1000 或 /amount<=1000。",
    },
    "query_field_unknown": {
        "en": "The parameter {name} may name only the fields of the setting search.fields: {names}.",
        "zh": "参数 {name} 只能使用配置项 search.fields 列出的字段：{names}。",
    },
    "query_number": {
        "en": "The parameter {name} must be a whole number from {low} to {high}.",
        "zh": "参数 {name} 应为 {low} 到 {high} 的整数。",
    },
    "query_truth": {
        "en": "The parameter {name} must be true or false.",
        "zh": "参数 {name} 应为 true 或 false。",
    },
    "query_choice": {
        "en": "The parameter {name} must be one of: {values}.",
        "zh": "参数 {name} 应为以下值之一：{values}。",
    },
    "query_time": {
        "en": "The parameter {name} is not a time; write {examples}.",
        "zh": "参数 {name} 不是时间；写法如 {examples}。",
    },
    "query_times": {
        "en": "The parameter since must be before until.",
        "zh": "参数 since 必须早于 until。",
    },
    "query_range": {
        "en": "The parameter from must be before to, in the past, and at most {days} days before to.",
        "zh": "参数 from 必须早于 to 和现在，且与 to 相差不超过 {days} 天。",
    },
    "no_such_event": {
        "en": "There is no event and no delivery with this id.",
        "zh": "没有该 ID 的事件或投递。",
    },
    "no_such_error_group": {
        "en": "There is no error group with this id.",
        "zh": "没有该 ID 的错误分组。",
    },
    "no_such_handler": {
        "en": "There is no handler with this id.",
        "zh": "没有该 ID 的处理器。",
    },
    "no_such_source": {
        "en": "There is no source with this name.",
        "zh": "没有该名称的来源。",
    },
    "no_such_engine": {
        "en": "There is no source with this name and an engine.",
        "zh": "没有该名称且配置了流程引擎的来源。",
    },
    "no_such_operation": {
        "en": "There is no bulk operation with this id.",
        "zh": "没有该 ID 的批量操作。",
    },
    "no_such_operation_name": {
        "en": "There is no such operation; the operations are {names}.",
        "zh": "没有该操作；可用的操作：{names}。",
    },
    "no_such_path": {
        "en": "There is nothing at this path; GET /openapi.json lists all paths.",
        "zh": "路径不存在；全部路径见 GET /openapi.json。",
    },
    "no_such_admin_path": {
        "en": "There is nothing at this path of the administration listener; GET /openapi.json lists all paths. Send "
        "callbacks to the address in the setting listen.",
        "zh": "管理监听地址上没有该路径；全部路径见 GET /openapi.json。回调应发送到配置项 listen 中的地址。",
    },
    "export_not_recorded": {
        "en": "The export cannot be recorded in the audit log now, so it is not sent; the server's log has the reason.",
        "zh": "暂时无法把导出记入审计日志，因此未发送；原因见服务器日志。",
    },
    "too_many_exports": {
        "en": "The server sends {limit} exports already; try again when one of them has ended.",
        "zh": "服务器正在发送 {limit} 个导出文件；请待其中之一结束后重试。",
    },
}
