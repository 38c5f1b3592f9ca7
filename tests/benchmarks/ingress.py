"""The row about requests to the fixed URL of a source, compared with the same callbacks on the contract's path."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import load
from accepting import modes
from bench import CONNECTIONS, LATER, Bench, compare, cost, rate
from figures import Figure
from measuring import Target, measure_load

if TYPE_CHECKING:
    from collections.abc import Collection

PATH = ("/in/bench", "")
"""The fixed URL: the id is in the body."""
TOKEN = "bench-0123456789abcdefghijklmnopqrstuvwxyz"
CONFIG = f"""
[sources.bench]
token_sha256 = ["{hashlib.sha256(TOKEN.encode()).hexdigest()}"]

[sources.bench.ingress]
format = "json"
flow_instance_id = "/id"
process_definition_key = "/processDefinitionKey"
process_definition_id = "/processDefinitionId"
process_definition_version = "/processDefinitionVersion"
business_key = "/businessKey"
call_back_process_class = "/callBackProcessClass"
kind = {{pointer = "/status", values = {{"2" = "complete", "3" = "complete", "4" = "cancel"}}, other = "ignore"}}
conclusion = {{pointer = "/status", values = {{"2" = "approved", "3" = "rejected"}}}}
"""
"""Settings of both subjects, so that both check the same token."""


def ingress_processor(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Processor time of a mapped JSON request ÷ that of a callback with the same members; the deliveries wait."""
    figures = []
    for cores, (server, client) in modes().items():
        for many in CONNECTIONS:
            bench.show_progress(f"{many} connections, {cores}")
            subjects = (
                partial(measure_path, bench, path, many, server=server, client=client) for path in (load.PATH, PATH)
            )
            (pair,) = compare(bench.rounds, *subjects)
            figures.append(
                Figure(
                    case=f"{many} connections, {cores}",
                    measured=f"{rate(pair.ours)} at the fixed URL",
                    yardstick=f"{rate(pair.yardstick)} on the contract's path",
                    judged=pair.processor,
                    ours=cost(pair.ours),
                    theirs=cost(pair.yardstick),
                )
            )
    return figures, []


def measure_path(
    bench: Bench,
    path: tuple[str, str],
    connections: int,
    *,
    server: Collection[int] = (),
    client: Collection[int] = (),
) -> load.Load:
    """One load on a new server whose handler is missing, so that the deliveries wait.

    Args:
        bench: duration and folder.
        path: `PATH` or that of the contract.
        connections: concurrent connections.
        server: the cores of the server; default: all.
        client: the cores of wrk; default: all.
    """
    with bench.site() as plain:
        site = replace(plain, config=CONFIG)
        with site.serve():  # registers its handler, so that deliveries wait for it
            pass
        with site.serve(plugin=False, cores=server) as running_server:
            target = Target(url=running_server.url, path=path, token=TOKEN)
            return measure_load(target, connections=connections, seconds=bench.seconds, prefer=LATER, cores=client)
