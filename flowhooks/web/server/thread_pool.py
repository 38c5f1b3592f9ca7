"""The threads that run the requests of a listener.

Written against waitress 3.0.2. `tests/unit/test_private_names.py` lists the internals of waitress that this module
uses.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from waitress.task import ThreadedTaskDispatcher  # type: ignore[import-untyped]  # waitress has no types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from wsgiref.types import StartResponse, WSGIApplication

_SPARE_THREAD: Final = "flowhooks.spare_thread"


class ThreadPool(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress has no types
    """Waitress's thread pool with named threads, without its warning for each queued request.

    Args:
        name: the prefix of the threads' names.
        threads: the number of threads.
    """

    # A child of waitress's logger, so that the warnings can still be enabled by its name.
    queue_logger = logging.getLogger("waitress.queue.flowhooks")
    queue_logger.setLevel(logging.ERROR)

    def __init__(self, name: str, threads: int) -> None:
        super().__init__()
        self._name = name
        self._resizing = threading.Lock()
        self._size = threads
        self._ended = False
        self.on_last_thread_exit: Callable[[], None] = lambda: None
        self.set_thread_count(threads)

    def handler_thread(self, thread_no: int) -> None:
        """Run requests until the server closes. The last thread that ends calls `on_last_thread_exit`."""
        super().handler_thread(thread_no)
        if not self.threads:
            self.on_last_thread_exit()

    def start_new_thread(self, target: Any, thread_no: int) -> None:
        """Start a thread with a name."""
        threading.Thread(target=target, args=(thread_no,), name=f"{self._name}-{thread_no}", daemon=True).start()

    @contextmanager
    def spare_thread(self) -> Iterator[None]:
        """Have one more thread while a thread of this pool waits, so that other requests do not wait, too."""
        self._resize(1)
        try:
            yield
        finally:
            self._resize(-1)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        """End the threads; see waitress."""
        with self._resizing:
            self._ended = True
        return bool(super().shutdown(cancel_pending, timeout))

    def _resize(self, change: int) -> None:
        with self._resizing:
            if not self._ended:
                self._size += change
                self.set_thread_count(self._size)


def offer_spare_threads(application: WSGIApplication, pool: ThreadPool) -> WSGIApplication:
    """Return a WSGI application that can call `spare_thread`."""

    def offering(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        environ[_SPARE_THREAD] = pool.spare_thread
        return application(environ, start_response)

    return offering


def spare_thread(environ: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Return a context in which a request may wait without taking a thread away; on other servers it does nothing."""
    enter: Callable[[], AbstractContextManager[None]] = environ.get(_SPARE_THREAD, nullcontext)
    return enter()
