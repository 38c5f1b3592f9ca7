"""Value types of settings, and how they are parsed."""

from __future__ import annotations

import base64
import binascii
import difflib
import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from flowhooks.model.search_fields import FIELD_POINTER
from flowhooks.settings.addresses import database_url, host_and_port
from flowhooks.text import truncate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
"""Syntax of the names of plugins and sources."""
MAX_CONCLUSION_CHARS: Final = 128
"""Maximum length of a conclusion; `process-end-call-back-ro.schema.json` has the same limit."""
MAX_TEXT_CHARS: Final = 255
"""Maximum length of a text such as a user's or a variable's name."""

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,30}")
_DECIMAL: Final = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?")
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])")
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*)+")
_TOKEN_SHA256: Final = re.compile(r"[0-9A-Fa-f]{64}")
_ARGON2ID: Final = re.compile(
    r"\$argon2id\$v=19\$m=([0-9]{1,7}),t=([0-9]{1,2}),p=([0-9]{1,2})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"
)
_MAX_ARGON2_KIB: Final = 262_144
"""Maximum memory per log-in in KiB. A hash that asks for more could exhaust the server's memory."""
_MAX_ARGON2_PASSES: Final = 20
_MAX_ARGON2_LANES: Final = 16
_URL: Final = re.compile(r"[!-~]{1,2000}")
_ORIGIN: Final = re.compile(r"(https?)://([^/?#@\\\s]+)/?", re.IGNORECASE)
_PORTED: Final = re.compile(r":[0-9]+\Z")
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
_BOOLEANS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_MAX_SHOWN_CHARS: Final = 60
_MAX_LINE_CHARS: Final = 200  # a long path is one line


@dataclass(frozen=True, slots=True)
class SettingType:
    """Value type of a setting.

    Attributes:
        allowed: allowed values, to follow "must be …"; `""` if the messages of `check` are complete.
        check: converts a TOML value into the value used by the program; raises ValueError ("must be …, not …").
        parse: converts the text of an environment variable into a TOML value; text that it cannot parse is returned
            unchanged, for `check` to refuse.
    """

    allowed: str
    check: Callable[[Any], Any]
    parse: Callable[[str], Any] = str


def format_value(value: Any) -> str:
    """Format a value for an error message: one line, printable, short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(truncate(value, _MAX_SHOWN_CHARS, count_ellipsis=False))
    if isinstance(value, float) or (isinstance(value, int) and value.bit_length() <= 64):  # noqa: PLR2004 (as in TOML)
        return str(value)
    names = {int: "such a large number", list: "a list", tuple: "a list", dict: "a section"}
    return names.get(type(value), f"a {type(value).__name__}")


def format_line(text: object) -> str:
    """Return text unchanged for an error message, or formatted as a value if it is long or not printable."""
    line = str(text)
    return line if line.isprintable() and len(line) <= _MAX_LINE_CHARS else format_value(line)


def did_you_mean(name: str, candidates: Iterable[str], prefix: str = "") -> str:
    """Return a question that suggests known names for an unknown one, each after `prefix`; `""` if none is similar."""
    name = name[:_MAX_SHOWN_CHARS].lower()
    names = {candidate.lower(): candidate for candidate in candidates}
    ends = tuple(mark + name.rpartition(".")[2] for mark in "._")
    matches = (
        difflib.get_close_matches(name, names, n=1, cutoff=0.8)
        or [candidate for candidate in names if candidate.endswith(ends)]
        or difflib.get_close_matches(name, names, n=1)
    )
    return f"; did you mean {' or '.join(prefix + names[candidate] for candidate in matches)}?" if matches else ""


def _invalid(allowed: str, value: Any, hint: str = "") -> ValueError:
    return ValueError(f"must be {allowed}, not {format_value(value)}{hint and ': ' + hint}")


def integer(minimum: int, maximum: int) -> SettingType:
    """Return the type of whole numbers in a range, both ends included. Booleans and strings are refused."""
    allowed = f"a whole number, {minimum} to {maximum}"

    def check(value: Any) -> int:
        if type(value) is not int or not minimum <= value <= maximum:
            raise _invalid(allowed, value, _unquote(value, _WHOLE))
        return value

    return SettingType(allowed, check, lambda text: int(text) if _WHOLE.fullmatch(text) else text)


def seconds(minimum: float, maximum: float, *, zero: bool = False) -> SettingType:
    """Return the type of seconds up to `maximum`, and from `minimum` with `zero`, otherwise above `minimum`."""
    allowed = (
        f"a number of seconds, {minimum:.10g} to {maximum:.10g}"
        if zero
        else f"a number of seconds, more than {minimum:.10g} and at most {maximum:.10g}"
    )

    def check(value: Any) -> float:
        if (
            type(value) not in {int, float}
            or not (minimum <= value if zero else minimum < value)
            or not value <= maximum
        ):
            raise _invalid(allowed, value, _unquote(value, _DECIMAL))
        return float(value)

    return SettingType(allowed, check, lambda text: float(text) if _DECIMAL.fullmatch(text) else text)


def duration(minimum: float, maximum: float) -> SettingType:
    """Return the type of a time in a range, both ends included: seconds, or a number with a unit, as in `"5m"`."""
    allowed = f'a number of seconds, {minimum:.10g} to {maximum:.10g}, or a text such as "30s", "5m", "2h" or "1d"'

    def check(value: Any) -> float:
        if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
            value = float(match.group(1)) * _UNIT_SECONDS[match.group(2)]
        if type(value) not in {int, float} or not minimum <= value <= maximum:
            raise _invalid(allowed, value, _unquote(value, _DECIMAL))
        return float(value)

    return SettingType(allowed, check, lambda text: float(text) if _DECIMAL.fullmatch(text) else text)


def number(minimum: float, maximum: float, unit: str) -> SettingType:
    """Return the type of numbers with a unit in a range, both ends included."""
    allowed = f"a number of {unit}, {minimum:.10g} to {maximum:.10g}"

    def check(value: Any) -> float:
        if type(value) not in {int, float} or not minimum <= value <= maximum:
            raise _invalid(allowed, value, _unquote(value, _DECIMAL))
        return float(value)

    return SettingType(allowed, check, lambda text: float(text) if _DECIMAL.fullmatch(text) else text)


def _unquote(value: Any, pattern: re.Pattern[str]) -> str:
    return "write it without quotes" if isinstance(value, str) and pattern.fullmatch(value) else ""


def boolean() -> SettingType:
    """Return the type of booleans."""

    def check(value: Any) -> bool:
        if type(value) is not bool:
            raise _invalid("true or false", value)
        return value

    return SettingType("true or false", check, lambda text: _BOOLEANS.get(text.lower(), text))


def one_of(*words: str) -> SettingType:
    """Return the type of a fixed set of words."""
    *first, last = (f'"{word}"' for word in words)
    allowed = f"{', '.join(first)} or {last}"

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(
                f"{_invalid(allowed, value)}{did_you_mean(value, words) if isinstance(value, str) else ''}"
            )
        return value

    return SettingType(allowed, check)


def _string(allowed: str, convert: Callable[[str], Any]) -> SettingType:
    """Return a type whose values `convert` accepts; its ValueError becomes the hint."""

    def check(value: Any) -> Any:
        if not isinstance(value, str):
            raise _invalid(allowed, value)
        try:
            return convert(value)
        except ValueError as error:
            raise _invalid(allowed, value, str(error)) from None

    return SettingType(allowed, check)


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError
        return text

    return convert


def address() -> SettingType:
    """Return the type of a listener address, host:port."""
    return _string("host:port", lambda text: (host_and_port(text), text)[1])


def name() -> SettingType:
    """Return the type of a plugin's name."""
    return _string("a name of 1 to 100 letters, digits, '.', '_' or '-'", _matching(NAME))


def process_key() -> SettingType:
    """Return the type of a processDefinitionKey."""
    return _string("a string that is not empty", _matching(re.compile(r".+", re.DOTALL)))


def conclusion() -> SettingType:
    """Return the type of a conclusion."""
    allowed = f"a conclusion of 1 to {MAX_CONCLUSION_CHARS} characters other than NUL"
    return _string(allowed, _matching(re.compile(rf"[^\0]{{1,{MAX_CONCLUSION_CHARS}}}")))


def table(value: SettingType) -> SettingType:
    """Return the type of a section with arbitrary names and values of one type."""
    allowed = f"a section in which each value is {value.allowed}"

    def check(section: Any) -> Mapping[str, Any]:
        if not isinstance(section, dict):
            raise _invalid(allowed, section)
        checked = {}
        for name, item in section.items():
            try:
                checked[name] = value.check(item)
            except ValueError as error:
                raise ValueError(f"at {format_value(name)} {error}") from None
        return MappingProxyType(checked)

    return SettingType(allowed, check)


def pointer() -> SettingType:
    """Return the type of a JSON Pointer (RFC 6901) to a member. The empty pointer, to the whole body, is refused."""
    return _string('a JSON Pointer such as "/timestamp"', _matching(_POINTER))


def search_field() -> SettingType:
    """Return the type of an indexed field: a JSON Pointer without the characters of an operator."""

    def convert(text: str) -> str:
        if len(text) > MAX_TEXT_CHARS or not text.isprintable() or not FIELD_POINTER.fullmatch(text):
            raise ValueError
        return text

    allowed = f'a JSON Pointer such as "/amount", at most {MAX_TEXT_CHARS} characters, without "=", "<" and ">"'
    return _string(allowed, convert)


def text(*, min_chars: int = 0) -> SettingType:
    """Return the type of a printable text of at most 255 characters."""

    def convert(value: str) -> str:
        if not min_chars <= len(value) <= MAX_TEXT_CHARS or not value.isprintable():
            raise ValueError
        return value

    return _string(f"a printable text of {min_chars} to {MAX_TEXT_CHARS} characters", convert)


def http_url() -> SettingType:
    """Return the type of a base URL without credentials, query and fragment. A `/` at its end is removed."""
    allowed = 'a URL such as "http://oa.internal:8080/flowable-rest/service"'

    def check(value: Any) -> str:
        # Errors do not repeat the value, which may have a password in it.
        if not isinstance(value, str):
            raise ValueError(f"must be {allowed}")  # noqa: TRY004 (as every check does)
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            raise ValueError(f"must be {allowed}") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or not _URL.fullmatch(value):
            raise ValueError(f"must be {allowed}")
        if "@" in parts.netloc or not {"?", "#"}.isdisjoint(value):  # even if the query is empty: paths are appended
            raise ValueError(f"must be {allowed}, without a user, a password, a query and a fragment")
        return value.rstrip("/")

    return SettingType(allowed, check)


def folder(*, optional: bool = False) -> SettingType:
    """Return the type of a folder's path; `~` becomes the home folder."""
    return _path("a folder's path", optional=optional)


def file() -> SettingType:
    """Return the type of a file's path; `~` becomes the home folder."""
    return _path("a file's path")


def _path(allowed: str, *, optional: bool = False) -> SettingType:
    def convert(text: str) -> str:
        if not text and optional:
            return text
        if not text or not text.isprintable():
            raise ValueError("a path must not be empty and must have only printable characters")
        try:
            return str(Path(text).expanduser())
        except RuntimeError:
            raise ValueError("'~' cannot be expanded: there is no home folder") from None

    return _string(allowed, convert)


def database() -> SettingType:
    """Return the type of a SQLite file or PostgreSQL database. Errors never repeat it: a URL may hold a password."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise _invalid("a file's path", value)
        try:
            database_url(value, Path("/"))  # the working folder may not exist
        except ValueError as error:
            raise ValueError(f"must be a file's path or a database URL: {error}") from None
        return value

    return SettingType("a file's path, sqlite:///path, or postgresql://user@host/name", check)


def network() -> SettingType:
    """Return the type of an address or network; IPv4 written as IPv6 (`::ffff:10.0.0.0/104`) becomes IPv4."""

    def convert(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        try:
            parsed = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError from None  # the message of `ip_network` only repeats the value
        if isinstance(parsed, ipaddress.IPv6Network) and parsed.subnet_of(_MAPPED):
            mapped = parsed.network_address.ipv4_mapped
            return ipaddress.IPv4Network((int(mapped or 0), parsed.prefixlen - 96))
        return parsed

    return _string('a network such as "10.0.0.0/8"', convert)


def ip_address() -> SettingType:
    """Return the type of one optional IP address, in the form in which a listener reports its peers."""

    def convert(text: str) -> str:
        if not text:
            return text
        try:
            parsed = ipaddress.ip_address(text)
        except ValueError:
            raise ValueError("write one address, not a name or a network") from None
        return str(getattr(parsed, "ipv4_mapped", None) or parsed)

    return _string('one IP address such as "10.0.0.1"', convert)


def token_sha256() -> SettingType:
    """Return the type of a bearer token's SHA-256. Errors never repeat the value, which may be the token itself."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or not _TOKEN_SHA256.fullmatch(value):
            raise ValueError("must be the SHA-256 of a token in 64 hexadecimal digits, not the token itself")
        return value.lower()

    return SettingType("the SHA-256 of a token in 64 hexadecimal digits", check)


def password() -> SettingType:
    """Return the type of an Argon2id hash. Errors never repeat the value, which may be the password itself."""
    allowed = "an Argon2id hash, as flowhooks operators new prints it"

    def check(value: Any) -> str:
        match = _ARGON2ID.fullmatch(value) if isinstance(value, str) else None
        if not match or not all(_is_base64(part) for part in match.group(4, 5)):
            raise ValueError(f"must be {allowed}, not the password itself")
        memory, passes, lanes = map(int, match.group(1, 2, 3))
        if not (
            8 * lanes <= memory <= _MAX_ARGON2_KIB
            and 0 < passes <= _MAX_ARGON2_PASSES
            and 0 < lanes <= _MAX_ARGON2_LANES
        ):
            raise ValueError(
                f"must be {allowed}: m is at most {_MAX_ARGON2_KIB} and at least 8 times p, "
                f"t at most {_MAX_ARGON2_PASSES}, p at most {_MAX_ARGON2_LANES}"
            )
        return match.group()

    return SettingType(allowed, check)


def _is_base64(text: str) -> bool:
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return False
    return base64.b64encode(decoded).decode().rstrip("=") == text  # Argon2 itself refuses non-zero padding bits


def origin() -> SettingType:
    """Return the type of an origin as sent in the header `Origin`: scheme, host, and a port other than the default."""

    def convert(text: str) -> str:
        if not text:
            return text
        match = _ORIGIN.fullmatch(text)
        if not match or not match.group().isascii():
            raise ValueError("write the scheme, the host and, if needed, the port; leave out any path")
        scheme = match.group(1).lower()
        port = urlsplit(text).port  # ValueError if it is none
        usual = {"http": 80, "https": 443}[scheme]
        host, _ = host_and_port(match.group(2) if _PORTED.search(match.group(2)) else f"{match.group(2)}:{usual}")
        shown_host = f"[{host}]" if ":" in host else host.lower()
        return f"{scheme}://{shown_host}" + (f":{port}" if port not in {None, usual} else "")

    return _string('an address such as "https://ops.example.com"', convert)


def list_of(item: SettingType, *, min_items: int = 0, max_items: int | None = None) -> SettingType:
    """Return the type of a list or comma-separated text. Duplicates are removed."""
    allowed = f"a list, each {item.allowed}"

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            given_type = "string" if isinstance(value, str) else "single value"
            raise ValueError(f"must be {allowed}, not a {given_type}")  # noqa: TRY004 (as every check does)
        if len(value) < min_items:
            raise ValueError(f"must be {allowed}: the list is empty")
        if max_items is not None and len(value) > max_items:
            raise ValueError(f"must be {allowed}: at most {max_items}")
        checked: dict[Any, None] = {}
        for number, element in enumerate(value, start=1):
            try:
                checked[item.check(element)] = None
            except ValueError as error:
                raise ValueError(f"item {number} {error}") from None
        return tuple(checked)

    return SettingType(
        allowed, check, lambda text: [item.parse(part.strip()) for part in text.split(",")] if text.strip() else []
    )
