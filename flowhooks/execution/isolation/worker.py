"""The main loop of a handler process: receive one delivery at a time, call the function, reply.

The process is forked from the single-threaded fork server, so it starts with one thread. If it crashes, only one
attempt is lost.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import resource
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from flowhooks.errors import TransactionError
from flowhooks.execution.isolation import log_forwarding, protocol
from flowhooks.execution.result_encoding import EncodedResult, encode_result
from flowhooks.model.delivery import Delivery
from flowhooks.model.invocation import Invocation
from flowhooks.plugins.default_hooks import call_handler, call_probe
from flowhooks.plugins.error_text import clear_tracebacks
from flowhooks.text import to_storable

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from flowhooks.plugins.plugins import Plugins

MEBIBYTE: Final = 1024**2
_STATM_DATA_FIELD: Final = 5
"""Index of the field of /proc/self/statm with the private writable memory of the process, in pages."""


def serve(stream: socket.socket, plugins: Plugins, level: int) -> NoReturn:
    """Run deliveries until the server closes the connection or kills this process.

    Args:
        stream: the connection to the server.
        plugins: the loaded plugins.
        level: the lowest log level that is logged.
    """
    os.setsid()  # a process group of its own, so that processes that the handler starts can be killed with it
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for file in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            file.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # plugins may have replaced it
    faulthandler.enable(file=2, all_threads=True)  # a crash prints its tracebacks to stderr, which the server captures
    try:
        _Worker(stream, plugins, level).serve()
    except (protocol.ConnectionClosed, OSError):
        os._exit(0)
    except BaseException:  # noqa: BLE001 (the stack is still the fork server's: none of its code may run here)
        os._exit(70)


class _Worker:
    def __init__(self, stream: socket.socket, plugins: Plugins, level: int) -> None:
        self._stream = stream
        self._plugins = plugins
        self._sending = threading.Lock()
        self._memory = _MemoryLimit()
        self._run = 0
        log_forwarding.install(lambda record: self._send({"log": record, "run": self._run}), level, plugins.redact)

    def serve(self) -> NoReturn:
        frames = protocol.FrameReader(self._stream)
        while True:
            request = frames.next()
            self._run = request["run"]
            answer = self._answer(request)
            for file in (sys.stdout, sys.stderr):
                with suppress(Exception):  # the handler may have closed the stream
                    file.flush()
            self._send({"run": request["run"], "grown": self._memory.grown(), **answer})

    def _send(self, message: Mapping[str, Any]) -> None:
        with self._sending:
            self._stream.sendall(protocol.encode_frame(message))

    def _answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Call the requested function; each exception becomes a reply."""
        event = protocol.to_event(request["event"])
        delivery = Delivery(**request["delivery"])
        invocation = Invocation(delivery.id, delivery.attempt, begin_transaction=_refuse_transaction)
        handler = self._plugins.handlers[delivery.handler]
        logging.getLogger().setLevel(request["level"])
        self._memory.limit(request["memory_mib"])
        try:
            with invocation:
                if request["probe"]:
                    # If the handler loaded here has no probe, reply None (not known); never call its function instead.
                    return {"verdict": call_probe(handler.probe, event, delivery) if handler.probe else None}
                # Within the memory limit: the value may have any size, its encoded text has not.
                encoded = encode_result(call_handler(handler, event, delivery), protocol.MAX_VALUE_CHARS)
        except BaseException as error:  # noqa: BLE001 (any exception, even SystemExit, is this attempt's outcome)
            self._memory.lift()
            fields = protocol.from_error(error, self._plugins.redact)
            clear_tracebacks(error)
            return {"raised": fields}
        finally:
            self._memory.lift()
        return _result_message(encoded)


def _result_message(encoded: EncodedResult) -> dict[str, Any]:
    if encoded.dropped:
        return {"dropped": to_storable(encoded.dropped, protocol.MAX_DROPPED_CHARS)}
    return {} if encoded.text is None else {"value": json.loads(encoded.text)}


def _refuse_transaction() -> NoReturn:
    raise TransactionError(
        "delivery.transaction() needs a handler that runs in the server's own process, because only the server "
        'writes to its ledger; run it in a thread (isolation="thread")'
    )


class _MemoryLimit:
    """Limits a worker's memory beyond what it had at its start, which it shares with the other workers.

    It is a soft limit, so that the code after an attempt has memory again. It guards against accidents, not against a
    plugin that raises it.
    """

    def __init__(self) -> None:
        _, self._hard = resource.getrlimit(resource.RLIMIT_DATA)
        try:
            self._file: int | None = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # not Linux
            self._file = None
        self._page = resource.getpagesize()
        self._start = self._used_bytes()

    def limit(self, mebibytes: int) -> None:
        """Limit further allocations to this many MiB above the memory at the start."""
        if self._file is not None:
            self._set(self._start + mebibytes * MEBIBYTE)

    def lift(self) -> None:
        """Remove the limit."""
        if self._file is not None:
            self._set(self._hard)

    def grown(self) -> int:
        """Return the growth of private memory since the start, in bytes."""
        return max(0, self._used_bytes() - self._start)

    def _set(self, soft: int) -> None:
        if self._hard != resource.RLIM_INFINITY:
            soft = min(soft, self._hard)
        with suppress(ValueError, OSError):  # a handler may have lowered the hard limit
            resource.setrlimit(resource.RLIMIT_DATA, (soft, self._hard))

    def _used_bytes(self) -> int:
        if self._file is None:
            return 0
        try:
            return int(os.pread(self._file, 200, 0).split()[_STATM_DATA_FIELD]) * self._page
        except (OSError, ValueError, LookupError):  # a handler may have closed the file
            return 0
