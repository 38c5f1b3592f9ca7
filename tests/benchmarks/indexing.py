"""The row about members of the body that are indexed for searches, compared with a server that indexes none."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from accepting import modes
from bench import CONNECTIONS, LATER, Bench, compare, cost, rate
from figures import Figure
from measuring import Target, measure_load

if TYPE_CHECKING:
    from collections.abc import Collection

    import load

CONFIG = """
[search]
fields = ["/amount", "/vendor"]
"""
"""Settings that index a number and a text, which each body of the load has."""


def accept_rate(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Rate with two indexed members in each body ÷ that of the same bodies without an index; the deliveries wait."""
    figures = []
    for cores, (server, client) in modes().items():
        for many in CONNECTIONS:
            bench.show_progress(f"{many} connections, {cores}")
            subjects = (partial(_measure_config, bench, config, many, server, client) for config in ("", CONFIG))
            (pair,) = compare(bench.rounds, *subjects)
            figures.append(
                Figure(
                    case=f"{many} connections, {cores}",
                    measured=f"{rate(pair.ours)} with two indexed members",
                    yardstick=f"{rate(pair.yardstick)} without",
                    judged=pair.ratio,
                    ours=cost(pair.ours),
                    theirs=cost(pair.yardstick),
                )
            )
    return figures, []


def _measure_config(
    bench: Bench, config: str, connections: int, server: Collection[int], client: Collection[int]
) -> load.Load:
    with bench.site() as plain:
        site = replace(plain, config=config)
        with site.serve():  # registers its handler, so that deliveries wait for it
            pass
        with site.serve(plugin=False, cores=server) as running_server:
            target = Target(url=running_server.url)
            return measure_load(
                target, connections=connections, seconds=bench.seconds, prefer=LATER, values=True, cores=client
            )
