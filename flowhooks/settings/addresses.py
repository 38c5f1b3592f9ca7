"""Parse listener addresses and database URLs, without opening or resolving them."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Callable

_PORT: Final = re.compile(r"[0-9]{1,5}")
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*)(\.[A-Za-z0-9_-]+)*")
_ZONED: Final = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]{1,32})?")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_POSTGRESQL: Final = re.compile(
    r"postgres(?:ql)?://"
    r"(?:[^:/]*(?::[^@]*)?@)?"  # user and password, as SQLAlchemy reads them: a password may contain a slash
    r"(?P<host>\[[^\]/?@]*\]|[^\[\]:/?@]*)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>[/?].*)?"
)
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SQLITE: Final = "sqlite:///"
_FILE_OPTIONS: Final = frozenset({"passfile", "sslcert", "sslcrl", "sslcrldir", "sslkey", "sslrootcert"})
"""Options of a PostgreSQL URL whose values are paths."""


def host_and_port(address: str) -> tuple[str, int]:
    """Split `host:port`.

    Args:
        address: such as `127.0.0.1:8080`, `localhost:8080` or `[::1]:8080`; port 0 lets the system choose.

    Returns:
        The host, an IPv6 address without its brackets, and the port.

    Raises:
        ValueError: the text is not such an address; the message says why.
    """
    if "://" in address:
        raise ValueError("leave out the scheme: write host:port")
    host, colon, port = address.rpartition(":")
    if not colon:
        raise ValueError("the port is missing: write host:port")
    if not _PORT.fullmatch(port) or int(port) > 65535:  # noqa: PLR2004 (16 bits)
        raise ValueError("the port must be a number from 0 to 65535")
    if host in {"", "*"}:
        raise ValueError(f"write 0.0.0.0:{port} for all interfaces, 127.0.0.1:{port} for this machine only")
    if host.startswith("[") and host.endswith("]"):
        return _ip(host[1:-1], 6), int(port)
    if ":" in host:
        raise ValueError("write an IPv6 address in brackets: [::1]:8080")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        # The system would accept "0", "127.1" and "0x7f.1" as addresses, which a reader would not recognize.
        return _ip(host, 4), int(port)
    if not _HOST.fullmatch(host):
        raise ValueError("the host is neither an IP address nor a name")
    return host, int(port)


def _ip(host: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    # ipaddress accepts any characters in a zone, as in fe80::1%eth0.
    if address is None or address.version != version or not _ZONED.fullmatch(host):
        raise ValueError(f"the host is not an IPv{version} address")
    return str(address)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach `host`. Names other than `localhost` count as reachable by others."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def database_url(database: str, folder: Path = Path()) -> str:
    """Return the SQLAlchemy URL of a database given as a path, as `sqlite:///path` or as `postgresql://…`.

    Args:
        database: a path, in which `~` is the home folder, or a URL.
        folder: where a relative path starts; default: the working folder.

    Returns:
        The URL. A path becomes absolute and is percent-encoded; `postgres://` becomes `postgresql://`.

    Raises:
        ValueError: the text is neither. The message says why, and does not repeat the text, which may hold a password.
    """
    if ":memory:" in database or database == "sqlite://":
        raise ValueError("a ledger in memory is lost at a restart: give the path of a file")
    if not database or not database.isprintable():
        raise ValueError("a path must not be empty and must have only printable characters")
    if database.startswith(_SQLITE):
        if "?" in database:
            raise ValueError("remove the '?' and the text after it: the ledger sets its own options")
        if not database.removeprefix(_SQLITE):
            raise ValueError("the path is missing after sqlite:///")
        return database
    if scheme := _SCHEME.match(database):
        if scheme.group(1) == "sqlite":
            raise ValueError("write three slashes and the path: sqlite:///path")
        if scheme.group(1) not in {"postgresql", "postgres"}:
            raise ValueError(
                f"{scheme.group(1)}:// is not supported: use sqlite:///path or postgresql://user@host/name"
            )
        _check_postgresql(database)
        return f"postgresql://{database[scheme.end() :]}"
    return _SQLITE + quote(str(_absolute(database, folder)))


def _absolute(path: str, folder: Path) -> Path:
    try:
        return (folder / Path(path).expanduser()).absolute()
    except RuntimeError:
        raise ValueError("'~' cannot be expanded: there is no home folder") from None
    except OSError as error:
        raise ValueError(f"the working folder cannot be used: {error.strerror}") from None


def resolve_database(database: str, resolve: Callable[[str], str]) -> str:
    """Return a database that `database_url` accepts, with each of its paths replaced by the result of `resolve`."""
    if database.startswith(_SQLITE):
        return _SQLITE + quote(resolve(unquote(database.removeprefix(_SQLITE))))
    if not _SCHEME.match(database):
        return resolve(database)
    rest = match["rest"] or "" if (match := _POSTGRESQL.fullmatch(database)) else ""
    name, mark, query = rest.partition("?")
    options = "&".join(_resolve_option(option, resolve) for option in query.split("&"))
    return f"{database.removesuffix(rest)}{name}{mark}{options}"


def _resolve_option(option: str, resolve: Callable[[str], str]) -> str:
    name, _, value = option.partition("=")
    if name not in _FILE_OPTIONS or value in {"", "system"}:
        return option
    path = unquote_plus(value)
    # `sslkey` may be `engine:key`, so a colon would change the meaning of a path, too.
    if name == "sslkey" and (":" in path or ":" in resolve(path)):
        return option
    return f"{name}={quote(resolve(path))}"


def _check_postgresql(url: str) -> None:
    """Check the parts of a URL that later would fail with an error about something else.

    Raises:
        ValueError: the message does not repeat the URL.
    """
    match = _POSTGRESQL.fullmatch(url)
    if not match or not 0 < int(match["port"] or 5432) <= 65535:  # noqa: PLR2004 (16 bits)
        raise ValueError(
            "write postgresql://user@host:port/name, with a port from 1 to 65535, an IPv6 address in brackets, and %40 "
            "for each @ of the user name or password, %3A for each :, %2F for each /"
        )
    if match["host"].startswith("["):
        _ip(match["host"][1:-1], 6)
    if "%00" in url:
        raise ValueError("it must not contain %00")
