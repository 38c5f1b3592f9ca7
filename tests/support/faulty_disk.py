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
LOSS_MODES: Final = ("none", "some", "torn", "all")
"""The fates of writes that were not synced: none is kept; each is kept or not, so that a later one may exist without
an earlier one; all up to one, of which some sectors are kept; all are kept."""


class Operation(NamedTuple):
    """One operation: `create`, `write`, `truncate`, `sync` or `delete` of a file; or `event`: an event of the test."""

    kind: str
    name: str = ""
    offset: int = 0
    data: bytes = b""
    event: Any = None


class _File(apsw.VFSFile):
    """A file whose writes are recorded. It is not synced, because this machine keeps its power."""

    def __init__(self, vfs: str, name: Any, flags: list[int], operations: list[Operation]) -> None:
        self._operations = operations
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        self._name = path.name
        if not path.exists() or (path.name == "flowhooks.db" and not path.stat().st_size):
            # The lock has created the empty database file just before.
            operations.append(Operation("create", self._name))
        super().__init__(vfs, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 (apsw's name)
        """Write and record."""
        self._operations.append(Operation("write", self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 (apsw's name)
        """Truncate and record."""
        self._operations.append(Operation("truncate", self._name, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802 (apsw's name)
        """Record that the data written so far is durable."""
        self._operations.append(Operation("sync", self._name))


class Recorder(apsw.VFS):
    """A file system, by its `name`, whose writes are recorded in `operations`."""

    def __init__(self) -> None:
        self.name = f"recorder-{uuid.uuid4().hex}"
        self.operations: list[Operation] = []
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 (apsw's name)
        """Open a file; temporary files, which have no name, are not recorded."""
        return _File("", name, flags, self.operations) if name else apsw.VFSFile("", name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802 (apsw's name)
        """Delete a file and record it."""
        super().xDelete(filename, syncdir)
        self.operations.append(Operation("delete", Path(filename).name, int(syncdir)))

    def record_event(self, *event: Any) -> None:
        """Record an event."""
        self.operations.append(Operation("event", event=event))


class _Inode:
    """A file's durable bytes, and the later operations."""

    def __init__(self) -> None:
        self.durable = bytearray()
        self.pending: list[Operation] = []

    def sync(self) -> None:
        for operation in self.pending:
            _apply(self.durable, operation)
        self.pending = []


def _apply(content: bytearray, operation: Operation) -> None:
    if operation.kind == "truncate":
        del content[operation.offset :]
        content.extend(bytes(operation.offset - len(content)))
        return
    content.extend(bytes(max(0, operation.offset - len(content))))
    content[operation.offset : operation.offset + len(operation.data)] = operation.data


class Disk:
    """The files of one folder, as processes see them and as they would be after a loss of power."""

    def __init__(self) -> None:
        self._visible: dict[str, _Inode] = {}
        self._durable: dict[str, _Inode] = {}
        self._pending: list[tuple[str, _Inode | None]] = []

    def apply(self, operation: Operation) -> None:
        """Apply the next operation."""
        match operation.kind:
            case "create":
                self._visible[operation.name] = _Inode()
                self._pending.append((operation.name, self._visible[operation.name]))
            case "write" | "truncate":
                self._visible[operation.name].pending.append(operation)
            case "sync":
                self._visible[operation.name].sync()
                if any(inode is self._visible[operation.name] for _, inode in self._pending):
                    # SQLite syncs a new file's folder with it; of the database's own file systems do.
                    self._sync_names()
            case "delete":
                self._pending.append((operation.name, None))
                del self._visible[operation.name]
                if operation.offset:
                    self._sync_names()

    def _sync_names(self) -> None:
        for name, inode in self._pending:
            _link(self._durable, name, inode)
        self._pending = []

    def after_power_loss(self, mode: str, rng: random.Random) -> Iterator[tuple[str, bytes]]:
        """Yield the files as they are when power returns; `mode` is one of `LOSS_MODES`."""
        names = dict(self._durable)
        count = {"none": 0, "all": len(self._pending)}.get(mode, rng.randint(0, len(self._pending)))
        for name, inode in self._pending[:count]:  # folders are written in order
            _link(names, name, inode)
        for name, inode in names.items():
            content = bytearray(inode.durable)
            for operation in _survivors(inode.pending, mode, rng):
                _apply(content, operation)
            yield name, bytes(content)


def _link(names: dict[str, _Inode], name: str, inode: _Inode | None) -> None:
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode


def _survivors(pending: list[Operation], mode: str, rng: random.Random) -> Iterator[Operation]:
    match mode:
        case "all":
            yield from pending
        case "some":
            yield from (operation for operation in pending if rng.random() < 0.5)
        case "torn" if pending:
            last = rng.randrange(len(pending))
            yield from pending[:last]
            operation = pending[last]
            yield from (
                Operation("write", operation.name, operation.offset + start, operation.data[start : start + SECTOR])
                for start in range(0, len(operation.data), SECTOR)
                if rng.random() < 0.5
            )
