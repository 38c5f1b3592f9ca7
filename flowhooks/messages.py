"""Every sentence that an engine may be answered, in English and Chinese; it must not know when each is said."""

from __future__ import annotations

from typing import Any, Final

LANGUAGES: Final = ("en", "zh")
SENTENCES: Final[dict[str, dict[str, str]]] = {}


def text(key: str, language: str, **params: Any) -> str:
    """The sentence `key` in `language`, with `params` filled in.

    Args:
        key: a key of `SENTENCES`.
        language: `"zh"` or `"en"`.
        **params: what the sentence names.

    Raises:
        KeyError: there is no such sentence, language or param.
    """
    return SENTENCES[key][language].format_map(params)
