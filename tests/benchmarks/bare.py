"""The baseline: Falcon on waitress that parses JSON and returns a constant; `--store` stores each body first."""

from __future__ import annotations

import json
import logging
import sqlite3
import sys
import threading
from concurrent.futures import Future
from queue import SimpleQueue

import click
import falcon
import waitress

SWITCH_INTERVAL = 0.0002
"""Seconds between switches of threads. With Python's default of 0.005, Falcon on waitress has half the rate at 32
connections on two cores. Both servers of every comparison run with the same value."""
CONNECTIONS = 1000
"""The maximum of open connections, as in flowhooks. With waitress' default, 100, further ones would never be served."""


class CallBack:
    """`POST /flow/{flow_instance_id}/call-back/complete` of the contract without any processing."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, flow_instance_id: str) -> None:
        """Parse the body and return the response of a success."""
        req.get_media()
        resp.media = {"success": True}


class StoringCallBack:
    """The same, with each body durable in SQLite before its response: the minimum cost of an accepted callback.

    One thread writes all queued bodies and commits them together. There is one table with one index, and no plugin, no
    validation and no state.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._queue: SimpleQueue[tuple[str, str, Future[None]]] = SimpleQueue()
        threading.Thread(target=self._write, daemon=True).start()

    def on_post(self, req: falcon.Request, resp: falcon.Response, flow_instance_id: str) -> None:
        """Parse the body, store it, and return the response of a success."""
        body = req.bounded_stream.read().decode()
        json.loads(body)
        stored: Future[None] = Future()
        self._queue.put((flow_instance_id, body, stored))
        stored.result()
        resp.media = {"success": True}

    def _write(self) -> None:
        connection = sqlite3.connect(self._file, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS events (flow_instance_id TEXT PRIMARY KEY, body TEXT NOT NULL)")
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR IGNORE INTO events VALUES (?, ?)", [row[:2] for row in batch])
            connection.execute("COMMIT")
            for _, _, stored in batch:
                stored.set_result(None)


def create_app(file: str = "") -> falcon.App:
    """The bare WSGI app; with a file it stores each body there."""
    app = falcon.App()
    app.add_route("/flow/{flow_instance_id}/call-back/complete", StoringCallBack(file) if file else CallBack())
    return app


@click.command()
@click.option("--port", type=int, required=True, help="Port on 127.0.0.1.")
@click.option("--threads", type=int, default=16, show_default=True, help="HTTP threads.")
@click.option("--switch-interval", type=float, default=SWITCH_INTERVAL, show_default=True, help="Seconds.")
@click.option("--store", default="", help="File in which each body is stored; default: none.")
def main(port: int, threads: int, switch_interval: float, store: str) -> None:
    """Serve the bare app until the process ends."""
    sys.setswitchinterval(switch_interval)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # waitress warns once for every queued request
    waitress.serve(
        create_app(store), host="127.0.0.1", port=port, threads=threads, connection_limit=CONNECTIONS, _quiet=True
    )


if __name__ == "__main__":
    main()
