"""Messages by their key and language."""

from __future__ import annotations

from typing import Any, Final

from flowhooks.messages import administration, callbacks, ingress

LANGUAGES: Final = ("en", "zh")
MESSAGES: Final[dict[str, dict[str, str]]] = callbacks.MESSAGES | ingress.MESSAGES | administration.MESSAGES


def text(key: str, language: str, /, **params: Any) -> str:
    """Return the message `key` in `language`, with `params` filled in.

    Args:
        key: a key of `MESSAGES`.
        language: `"zh"` or `"en"`.
        **params: the values of the placeholders in the message.

    Raises:
        KeyError: the message, the language or a parameter does not exist.
    """
    return MESSAGES[key][language].format_map(params)
