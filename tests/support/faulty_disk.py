"""A disk that records the order of its writes, and the possible contents after a loss of power.

`Recorder` is between SQLite and the real file system and records each operation. `Disk` replays the operations and
distinguishes synced data from other data, so that a recorded run can lose power after each of its operations.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import apsw

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

SECTOR: Final = 512
"""Bytes that a disk writes as a whole or not at all; larger writes may be torn between them."""
WAYS: Final = ("none", "some", "torn", "all")
"""The fate of writes that were not synced: none is kept; each is kept or not, so that a later one may exist without
an earlier one; all up to one, of which some sectors are kept; all are kept."""


class Op(NamedTuple):
    """One operation: `create`, `write`, `truncate`, `sync` or `delete` of a file; or `say`: another event."""

    what: str
    name: str = ""
    at: int = 0
    data: bytes = b""
    said: Any = None


class _File(apsw.VFSFile):
    """A file whose writes are recorded. It is not synced, because this machine keeps its power."""

    def __init__(self, vfs: str, name: Any, flags: list[int], ops: list[Op]) -> None:
        self._ops = ops
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        self._name = path.name
        if not path.exists() or (path.name == "flowhooks.db" and not path.stat().st_size):
            # The lock has created the empty database file just before.
            ops.append(Op("create", self._name))
        super().__init__(vfs, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 (apsw's name)
        """Write and record."""
        self._ops.append(Op("write", self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 (apsw's name)
        """Truncate and record."""
        self._ops.append(Op("truncate", self._name, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802 (apsw's name)
        """Record that the data written so far is durable."""
        self._ops.append(Op("sync", self._name))


class Recorder(apsw.VFS):
    """A file system, by its `name`, whose writes are recorded in `ops`."""

    def __init__(self) -> None:
        self.name = f"recorder-{uuid.uuid4().hex}"
        self.ops: list[Op] = []
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 (apsw's name)
        """Open a file; temporary files, which have no name, are not recorded."""
        return _File("", name, flags, self.ops) if name else apsw.VFSFile("", name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 (apsw's name)
        """Delete a file and record it."""
        super().xDelete(filename, syncdir)
        self.ops.append(Op("delete", Path(filename).name, int(syncdir)))

    def say(self, *said: Any) -> None:
        """Record an event."""
        self.ops.append(Op("say", said=said))


class _Inode:
    """A file's durable bytes, and the later operations."""

    def __init__(self) -> None:
        self.sure = bytearray()
        self.pending: list[Op] = []

    def sync(self) -> None:
        for op in self.pending:
            _do(self.sure, op)
        self.pending = []


def _do(content: bytearray, op: Op) -> None:
    if op.what == "truncate":
        del content[op.at :]
        content.extend(bytes(op.at - len(content)))
        return
    content.extend(bytes(max(0, op.at - len(content))))
    content[op.at : op.at + len(op.data)] = op.data


class Disk:
    """The files of one folder, as they are seen and as they would be after a loss of power."""

    def __init__(self) -> None:
        self._seen: dict[str, _Inode] = {}
        self._sure: dict[str, _Inode] = {}
        self._pending: list[tuple[str, _Inode | None]] = []

    def do(self, op: Op) -> None:
        """Apply the next operation."""
        match op.what:
            case "create":
                self._seen[op.name] = _Inode()
                self._pending.append((op.name, self._seen[op.name]))
            case "write" | "truncate":
                self._seen[op.name].pending.append(op)
            case "sync":
                self._seen[op.name].sync()
                if any(inode is self._seen[op.name] for _, inode in self._pending):
                    # SQLite syncs a new file's folder with it; of the database's own file systems do.
                    self._sync_names()
            case "delete":
                self._pending.append((op.name, None))
                del self._seen[op.name]
                if op.at:
                    self._sync_names()

    def _sync_names(self) -> None:
        for name, inode in self._pending:
            _link(self._sure, name, inode)
        self._pending = []

    def left(self, way: str, chance: random.Random) -> Iterator[tuple[str, bytes]]:
        """The files when power returns; `way` is one of `WAYS`."""
        names = dict(self._sure)
        many = {"none": 0, "all": len(self._pending)}.get(way, chance.randint(0, len(self._pending)))
        for name, inode in self._pending[:many]:  # folders are written in order
            _link(names, name, inode)
        for name, inode in names.items():
            content = bytearray(inode.sure)
            for op in _survivors(inode.pending, way, chance):
                _do(content, op)
            yield name, bytes(content)


def _link(names: dict[str, _Inode], name: str, inode: _Inode | None) -> None:
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode


def _survivors(pending: list[Op], way: str, chance: random.Random) -> Iterator[Op]:
    match way:
        case "all":
            yield from pending
        case "some":
            yield from (op for op in pending if chance.random() < 0.5)
        case "torn" if pending:
            last = chance.randrange(len(pending))
            yield from pending[:last]
            op = pending[last]
            yield from (
                Op("write", op.name, op.at + start, op.data[start : start + SECTOR])
                for start in range(0, len(op.data), SECTOR)
                if chance.random() < 0.5
            )
