"""Close files of this process, and reset its signal handlers, in processes that are forked from it.

Plugins and handlers may fork a server without executing a program, as `multiprocessing` does by default on Linux up to
Python 3.13. The new process has a copy of each open file. It would write its own signals into the pipe from which the
server reads them, and hold the lock of the ledger and the listening sockets after the end of the server.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

Owner = TypeVar("Owner")

_owners: Final[WeakKeyDictionary[Any, Callable[[Any], object]]] = WeakKeyDictionary()
_thread: Final = threading.local()


def close_in_children(owner: Owner, close: Callable[[Owner], object]) -> Owner:
    """Have a function called with an object in each process that is forked from this one.

    Args:
        owner: what has the files, such as a socket; nothing is called once it does not exist any more.
        close: closes the files; called in the only thread of the new process, before anything else runs there.

    Returns:
        The object.
    """
    _owners[owner] = close
    return owner


def _before_fork() -> None:
    # A signal may be sent to the new process before it has closed the pipe: it waits until then.
    _thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _thread.mask)


def _after_fork() -> None:
    for owner, close in list(_owners.items()):
        with suppress(OSError):  # the plugin may have closed the file
            close(owner)
    _owners.clear()
    _unblock_signals()


os.register_at_fork(before=_before_fork, after_in_parent=_unblock_signals, after_in_child=_after_fork)
