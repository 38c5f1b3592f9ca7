"""The row about the cost of many stored events on PostgreSQL."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import filling
import plans
from bench import CONNECTIONS, LATER, cost
from cluster import cluster
from figures import Figure
from measuring import Target, measure_load
from sharing import run_all

if TYPE_CHECKING:
    from bench import Bench
    from cluster import SharedLedger
    from figures import Cost

SECONDS = 4.0
"""The maximum duration of each load."""
SIZES = """
SELECT relname, pg_relation_size(oid), relkind FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') AND relname ~ '^(events|deliveries|attempts)'
ORDER BY relname
"""


def stored(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Accept rate, and rate of one worker, with many events stored ÷ with an empty database."""
    rounds: list[tuple[dict[str, Cost], dict[str, Cost]]] = []
    with bench.scratch() as folder, cluster(folder) as postgresql, postgresql.ledger("embedded") as full:
        bench.show_progress("filling the tables")
        full.rows(filling.of_postgresql(bench.events))
        full.rows("VACUUM ANALYZE")
        sizes = full.rows(SIZES)
        for _ in range(bench.rounds):
            with postgresql.ledger("embedded") as empty:
                rounds.append((_rates(bench, empty, "empty"), _rates(bench, full, "full")))
        bench.cache["plans"] = plans.collect_plans(full.url)
        total = full.query_value("SELECT count(*) FROM events")
    figures = [
        Figure(
            case=case,
            measured=f"{median(full[case].rate for _, full in rounds):,.0f}/s",
            yardstick=f"{median(empty[case].rate for empty, _ in rounds):,.0f}/s when empty",
            judged=median(full[case].rate / empty[case].rate for empty, full in rounds),
            ours=cost([full[case] for _, full in rounds]),
            theirs=cost([empty[case] for empty, _ in rounds]),
        )
        for case in rounds[0][0]
    ]
    listed = ", ".join(f"{name} {size / bench.events:,.0f}" for name, size, _ in sizes)
    return figures, [
        f"{total:,} events are stored at the end",
        f"bytes for each event, once filled, tables and indexes: {listed}",
    ]


def _rates(bench: Bench, ledger: SharedLedger, name: str) -> dict[str, Cost]:
    costs = {}
    with ledger.serve() as server:
        for connections in CONNECTIONS:
            bench.show_progress(f"{name}, {connections} connections")
            seconds = min(bench.seconds, SECONDS)
            result = measure_load(Target(url=server.url), connections=connections, seconds=seconds, prefer=LATER)
            costs[f"accept, {connections} connections"] = cost([result])
    bench.show_progress(f"{name}, running what was stored")
    costs["claim, run and settle, 1 worker"] = cost([run_all(ledger, 1)])
    return costs
