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
}
