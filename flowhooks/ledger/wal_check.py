"""Find damage in SQLite's write-ahead log before SQLite opens it.

SQLite recovers its log up to the first frame whose checksum is wrong, and drops the rest without an error. That is
right for a transaction that a power cut interrupted: it was not acknowledged. A damaged byte in an earlier frame has
the same effect, and then acknowledged transactions are dropped.

The two differ, because flowhooks begins no transaction before the log of the one before it is on the disk
(`synchronous=FULL`). So if an unreadable frame is followed by a whole transaction, and that by a valid frame, then the
unreadable frame was valid once. Each frame has its checksum, which continues the checksum that the frame before it
stores; so a frame can be verified although earlier ones are damaged.

The format is described at https://www.sqlite.org/walformat.html.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

_HEADER: Final = struct.Struct(">8I")
_FRAME: Final = struct.Struct(">6I")
_MAGIC: Final = 0x377F0682
"""The magic number of a log whose checksums read little-endian words; the next number is for big-endian words."""
_WORD: Final = 2**32 - 1
_MIN_PAGE_BYTES: Final = 512
_MAX_PAGE_BYTES: Final = 65536
# The checksum of a frame does not cover its salts, which name the generation of the log. If the header is unreadable,
# one of its eight bytes of salt may be the damaged byte; another generation differs in more of them.
_SAME_SALT_BYTES: Final = 7

_Sums = tuple[int, int]


class _Frame(NamedTuple):
    """A frame of the log.

    Attributes:
        is_commit: whether it is the last one of a transaction.
        is_current: whether it belongs to the generation of the header.
        is_valid: whether its checksum continues that of the frame before it.
    """

    is_commit: bool
    is_current: bool
    is_valid: bool


def find_log_damage(log: Path) -> str | None:
    """Return why SQLite would drop acknowledged transactions of a write-ahead log; None if it would not.

    The log must not be written meanwhile. A log that was truncated is not detected, because it looks like the log of a
    process that was killed earlier.
    """
    try:
        with log.open("rb") as file:
            return _find_damage(file)
    except FileNotFoundError:
        return None


def _find_damage(file: BinaryIO) -> str | None:
    raw = file.read(_HEADER.size)
    if len(raw) < _HEADER.size:
        return None
    magic, _, page_size, _, *salts, sum1, sum2 = _HEADER.unpack(raw)
    is_big_endian = magic == _MAGIC + 1
    is_valid = magic in {_MAGIC, _MAGIC + 1} and _checksum(raw[:24], (0, 0), big_endian=is_big_endian) == (sum1, sum2)
    if not (_MIN_PAGE_BYTES <= page_size <= _MAX_PAGE_BYTES and page_size & (page_size - 1) == 0):
        return None if is_valid else "its header is unreadable"
    unreadable = None if is_valid else 0
    after_commit = False
    salt = struct.pack(">2I", *salts)
    same_bytes = len(salt) if is_valid else _SAME_SALT_BYTES

    def is_current(of_frame: bytes) -> bool:
        return sum(map(int.__eq__, of_frame, salt)) >= same_bytes

    frames = _frames(file, page_size, (sum1, sum2), is_current, big_endian=is_big_endian)
    for number, frame in enumerate(frames, 1):
        if unreadable is not None and after_commit and frame.is_valid and frame.is_current:
            what = "its header is" if unreadable == 0 else f"frame {unreadable} of its frames is"
            return f"{what} unreadable, and frames of later transactions follow"
        if not (frame.is_valid and frame.is_current) and unreadable is None:
            unreadable = number
        after_commit = frame.is_commit and frame.is_current
    return None


def _frames(
    file: BinaryIO, page_size: int, before: _Sums, is_current_salt: Callable[[bytes], bool], *, big_endian: bool
) -> Iterator[_Frame]:
    while len(raw := file.read(_FRAME.size + page_size)) == _FRAME.size + page_size:
        _, commit_size, _, _, *stored = _FRAME.unpack_from(raw)
        sums = (stored[0], stored[1])
        is_current = is_current_salt(raw[8:16])
        is_valid = is_current and (
            _checksum(raw[_FRAME.size :], _checksum(raw[:8], before, big_endian=big_endian), big_endian=big_endian)
            == sums
        )
        yield _Frame(commit_size > 0, is_current, is_valid)
        before = sums


def _checksum(data: bytes, sums: _Sums, *, big_endian: bool) -> _Sums:
    first, second = sums
    words = iter(struct.unpack(f"{'>' if big_endian else '<'}{len(data) // 4}I", data))
    for word, following in zip(words, words, strict=True):
        first = (first + word + second) & _WORD
        second = (second + following + first) & _WORD
    return first, second
