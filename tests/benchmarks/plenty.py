"""The row about what many stored events cost on PostgreSQL; it must not know how results are shown."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import load
import plans
from bench import CONNECTIONS, LATER, ROUNDS
from cluster import cluster
from figures import Figure
from sharing import run_all

if TYPE_CHECKING:
    from bench import Bench
    from cluster import Shared

SECONDS = 4.0
"""Of each load, at the most."""
FILL = """
SET session_replication_role = replica;  -- no look-up of each row's parent, which is known to be there
INSERT INTO events (id, source, kind, flow_instance_id, callback_class, business_key, process_definition_id,
    process_definition_key, process_definition_version, body, digest, state, route, route_size, repeats, received_at)
SELECT '01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'), 'default', 'complete', md5(n::text),
    'com.cnooc.test.CallbackHandler', 'HT-' || n, 'contract_approval:3:' || md5(n::text), 'contract_approval', 3,
    '{{"businessKey": "HT-' || n || '", "callBackProcessClass": "com.cnooc.test.CallbackHandler",'
    || ' "processDefinitionKey": "contract_approval", "processDefinitionVersion": 3}}',
    md5(n::text) || md5(n::text), 'routed', '{{"bench:handler-0": "class com.cnooc.test.CallbackHandler"}}', 1, 0,
    1700000000000000 + n * 1000
FROM generate_series(1, {events}) AS n;
INSERT INTO deliveries (id, event_id, handler, state, attempt, retries_from, note, created_at, changed_at)
SELECT '01900000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'), '01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'),
    'bench:handler-0', 'succeeded', 1, 0, '', 1700000000000000 + n * 1000, 1700000000000000 + n * 1000
FROM generate_series(1, {events}) AS n;
INSERT INTO attempts (delivery_id, number, process, started_at, finished_at, outcome, error, traceback)
SELECT '01900000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'), 1, 'before', 1700000000000000 + n * 1000,
    1700000000000000 + n * 1000, 'succeeded', '', ''
FROM generate_series(1, {events}) AS n;
"""
SIZES = """
SELECT relname, pg_relation_size(oid), relkind FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') AND relname ~ '^(events|deliveries|attempts)'
ORDER BY relname
"""


def stored(bench: Bench) -> tuple[list[Figure], list[str]]:
    """Accept rate, and rate of one worker, with many events stored ÷ with an empty database."""
    rounds: list[tuple[dict[str, float], dict[str, float]]] = []
    with bench.scratch() as folder, cluster(folder) as postgresql, postgresql.ledger("embedded") as full:
        bench.tell("filling the tables")
        full.rows(FILL.format(events=bench.events))
        full.rows("VACUUM ANALYZE")
        sizes = full.rows(SIZES)
        for _ in range(ROUNDS):
            with postgresql.ledger("embedded") as empty:
                rounds.append((_rates(bench, empty, "empty"), _rates(bench, full, "full")))
        bench.kept["plans"] = plans.of(full.url)
        total = full.ask("SELECT count(*) FROM events")
    figures = [
        Figure(
            case=case,
            measured=f"{median(full[case] for _, full in rounds):,.0f}/s",
            yardstick=f"{median(empty[case] for empty, _ in rounds):,.0f}/s when empty",
            judged=median(full[case] / empty[case] for empty, full in rounds),
        )
        for case in rounds[0][0]
    ]
    listed = ", ".join(f"{name} {size / bench.events:,.0f}" for name, size, _ in sizes)
    return figures, [
        f"{total:,} events are stored at the end",
        f"bytes for each event, once filled, tables and indexes: {listed}",
    ]


def _rates(bench: Bench, ledger: Shared, name: str) -> dict[str, float]:
    found = {}
    with ledger.serve() as server:
        for connections in CONNECTIONS:
            bench.tell(f"{name}, {connections} connections")
            for seconds in (1, min(bench.seconds, SECONDS)):
                last = load.run(server.url, connections=connections, seconds=seconds, prefer=LATER)
            found[f"accept, {connections} connections"] = last.rate
    bench.tell(f"{name}, running what was stored")
    found["claim, run and settle, 1 worker"] = run_all(ledger, 1).rate
    return found
