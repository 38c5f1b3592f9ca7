"""The baseline: Falcon on waitress that parses JSON and returns a constant."""

from __future__ import annotations

import logging
import sys

import click
import falcon
import waitress

SWITCH_INTERVAL = 0.0002
"""Seconds between switches of threads. At Python's default of 0.005 Falcon on waitress loses half its rate at
32 connections on two cores; both sides of every comparison run with the same figure."""
CONNECTIONS = 1000
"""Open connections at most, as in flowhooks. Of more than waitress' own 100, the others would never be served."""


class CallBack:
    """`POST /flow/{flow_instance_id}/call-back/complete` of the contract without any processing."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, flow_instance_id: str) -> None:
        """Parse the body and return the response of a success."""
        req.get_media()
        resp.media = {"success": True}


def create_app() -> falcon.App:
    """The bare WSGI app."""
    app = falcon.App()
    app.add_route("/flow/{flow_instance_id}/call-back/complete", CallBack())
    return app


@click.command()
@click.option("--port", type=int, required=True, help="Port on 127.0.0.1.")
@click.option("--threads", type=int, default=16, show_default=True, help="HTTP threads.")
@click.option("--switch-interval", type=float, default=SWITCH_INTERVAL, show_default=True, help="Seconds.")
def main(port: int, threads: int, switch_interval: float) -> None:
    """Serve the bare app until the process ends."""
    sys.setswitchinterval(switch_interval)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # waitress warns once for every queued request
    waitress.serve(
        create_app(), host="127.0.0.1", port=port, threads=threads, connection_limit=CONNECTIONS, _quiet=True
    )


if __name__ == "__main__":
    main()
