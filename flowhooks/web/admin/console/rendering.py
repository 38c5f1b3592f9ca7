"""Render templates into pages, with all values escaped."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from jinja2 import Environment, FunctionLoader, StrictUndefined, pass_context
from markupsafe import Markup, escape, escape_silent

from flowhooks.clock import to_datetime, to_text
from flowhooks.operations.time_parsing import parse_time
from flowhooks.text import escape_invisible, truncate
from flowhooks.web.admin.console.texts import TEXTS, text
from flowhooks.web.admin.console.translation import alert_message, translate_reason
from flowhooks.web.admin.origin_check import CONSOLE_ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONTENT_SECURITY_POLICY: Final = (
    ("default-src", "'none'"),
    ("style-src", "'self'"),
    ("script-src", "'self'"),
    ("img-src", "'self'"),
    ("connect-src", "'self'"),
    ("form-action", "'self'"),
    ("frame-ancestors", "'none'"),
    ("base-uri", "'none'"),
)
_SENTENCE_END: Final = re.compile(r"(?<=\.)\s|(?<=。)")
HEADERS: Final = (
    ("Content-Security-Policy", "; ".join(f"{what} {whence}" for what, whence in _CONTENT_SECURITY_POLICY)),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "same-origin"),  # with "no-referrer", browsers would send our forms with "Origin: null"
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)
"""Headers of every page: no foreign or inline content, no caching, no referrer to other sites."""
STATIC_FILES: Final[Mapping[str, str]] = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The static files of pages, with their types. No other files are served."""

MAX_VALUE_CHARS: Final = 120
"""Maximum number of characters of a value in a listing."""
MAX_TEXT_CHARS: Final = 65_536
"""Maximum number of characters of a text of several lines on a page."""

_HERE: Final = Path(__file__).parent
_TEMPLATES: Final = _HERE / "templates"
_COMMAND_OR_TIME: Final = re.compile(
    r"`(?P<command>flowhooks [^`]*)`|\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII
)
"""A command in a message, or a time as `to_text` writes it."""
_UNITS: Final = (("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000))
_CHINESE_UNITS: Final = {"d": "天", "h": "小时", "min": "分钟", "s": "秒", "ms": "毫秒", "µs": "微秒"}


def read_static_file(name: str) -> tuple[bytes, str]:
    """Return the content of one of the `STATIC_FILES`, and its digest, by which pages request it."""
    content = (_HERE / "static" / name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:12]


def format_duration(microseconds: int | None, language: str = "en") -> str:
    """Return a duration in its one or two largest units, such as `2 h 5 min`, `1.24 s` or `3 ms`; a dash for None."""
    if microseconds is None:
        return "–"  # noqa: RUF001 (an en dash is intended)
    names = _CHINESE_UNITS if language == "zh" else {}
    return " ".join(f"{number} {names.get(unit, unit)}" for number, unit in _split_duration(microseconds))


def _split_duration(microseconds: int) -> list[tuple[str, str]]:
    """Return a duration as one or two pairs of a number and a unit."""
    if not microseconds:
        return [("0", "s")]
    if microseconds < 1_000:  # noqa: PLR2004 (a millisecond)
        return [(str(microseconds), "µs")]
    if microseconds < 60_000_000:  # noqa: PLR2004 (a minute)
        # From 999.5 ms on, three digits would be those of a second.
        unit, size = ("s", 1_000_000) if microseconds >= 999_500 else ("ms", 1_000)  # noqa: PLR2004 (almost a second)
        return [(f"{microseconds / size:.3g}", unit)]
    index = next(number for number, (_, size) in enumerate(_UNITS) if microseconds >= size)
    (unit, size), (lesser, lesser_size) = _UNITS[index], _UNITS[index + 1]
    remainder = microseconds % size // lesser_size
    return [(str(microseconds // size), unit), *([(str(remainder), lesser)] if remainder else [])]


def time_element(microseconds: int) -> Markup:
    """Return a time as an HTML element, in UTC. The page's script converts it to the viewer's time zone."""
    time = to_datetime(microseconds)
    return Markup('<time datetime="{}">{} UTC</time>').format(to_text(microseconds), f"{time:%Y-%m-%d} {time:%H:%M:%S}")


def with_time_elements(value: str) -> Markup:
    """Return an escaped text whose commands in backquotes are code, and whose other times are elements.

    A time looks like `2026-11-24T09:30:00.000Z`. In a command it stays as it is, because commands read it as UTC.
    """
    rendered, end = Markup(), 0
    for found in _COMMAND_OR_TIME.finditer(value):
        if found["command"]:
            element = Markup("<code>{}</code>").format(escape_invisible(found["command"]))
        else:
            try:
                element = time_element(parse_time(found[0], UTC))
            except ValueError:  # text that only looks like a time
                continue
        rendered += escape(escape_invisible(value[end : found.start()])) + element
        end = found.end()
    return rendered + escape(escape_invisible(value[end:]))


def format_number(value: float) -> str:
    """Return a number with a comma between thousands."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"  # noqa: PLR2004 (three digits are enough)


def format_percent(share: float | None) -> str:
    """Return a share as a percentage. A share below 1 is never shown as 100 %; None is shown as a dash."""
    if share is None:
        return "–"  # noqa: RUF001 (as above)
    text = f"{100 * share:.1f}"
    return f"{'99.9' if text == '100.0' and share < 1 else text.removesuffix('.0')} %"


def shorten(value: str | None, max_chars: int = MAX_VALUE_CHARS) -> str:
    """Return a text on one line, shortened to `max_chars` characters; `""` for None."""
    return truncate((value or "")[: max_chars + 1].replace("\n", "\\n").replace("\t", "\\t"), max_chars)


def first_sentence(message: str) -> str:
    """Return the first sentence of a message in English or Chinese."""
    return _SENTENCE_END.split(message, maxsplit=1)[0]


class Templates:
    """The templates in `templates/`. All files are read when this object is made, and compiled at their first use.

    So a page can be rendered for the first time when the process may open no more files, and it always belongs to the
    running version, even if another version has been installed meanwhile.
    """

    def __init__(self) -> None:
        self._read = {file.name: (file.read_text("utf-8"), str(file), None) for file in _TEMPLATES.glob("*.html")}
        self._versions = {name: read_static_file(name)[1] for name in STATIC_FILES}

    @cached_property
    def _environment(self) -> Environment:
        # Cached at the first use, because it takes long and a start must not wait for it. Two threads may both make it.
        environment = Environment(
            loader=FunctionLoader(self._read.get),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        environment.filters |= {
            "brief": shorten,
            "alert_message": pass_context(lambda context, alert: alert_message(alert, context["language"])),
            "duration": pass_context(lambda context, value: format_duration(value, context["language"])),
            "first_sentence": first_sentence,
            "entered": escape_silent,  # for values of forms, which must stay those that are searched
            "field_name": pass_context(
                # A field of a later version is shown by its own name.
                lambda context, key: text(key, context["language"]) if key in TEXTS else key
            ),
            "long": lambda value: truncate(value, MAX_TEXT_CHARS, count_ellipsis=False),
            "megabytes": lambda size: f"{format_number(size / 1_000_000)} MB",
            "moment": time_element,
            "number": format_number,
            "percent": format_percent,
            "reason": pass_context(lambda context, value: translate_reason(value, context["language"])),
            "signed_seconds": pass_context(
                lambda context, seconds: f"{seconds:+.1f} {_CHINESE_UNITS['s'] if context['language'] == 'zh' else 's'}"
            ),
            "with_times": with_time_elements,
            "segment": lambda value: quote(value, safe=""),
        }
        environment.globals |= {
            "root": CONSOLE_ROOT,
            "static": lambda name: f"{CONSOLE_ROOT}/static/{name}?v={self._versions[name]}",
        }
        return environment

    def render(self, name: str, language: str, **values: Any) -> bytes:
        """Return a rendered page.

        Args:
            name: the file name of the template.
            language: `"zh"` or `"en"`.
            **values: the values for the template.
        """

        def say(key: str, /, **params: Any) -> str:
            return text(key, language, **params)

        page = self._environment.get_template(name).render(t=say, language=language, **values)
        return page.encode("utf-8", "replace")


def _finalize(value: Any) -> Any:
    """Escape control characters in a template's value; None is an error of the template."""
    if value is None:
        return ""
    return value if isinstance(value, Markup) or not isinstance(value, str) else escape_invisible(value)
