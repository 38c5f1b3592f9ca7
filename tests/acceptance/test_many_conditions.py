"""A thousand handlers with conditions on one key: each callback runs only the handler for its conclusion."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from contextlib import closing

import pytest

HANDLERS = 1_000

PLUGIN = f"""
from flowhooks import handler, hookimpl

def make(number):
    @handler(process_key="loan", conclusion=f"c{{number}}", name=f"h{{number}}")
    def handle(event):
        return event.conclusion

    return handle

@hookimpl
def handlers():
    return [make(number) for number in range({HANDLERS})]
"""

RAN = """
SELECT events.conclusion, deliveries.handler, deliveries.state FROM events
JOIN deliveries ON deliveries.event_id = events.id
"""


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def many(request, site):
    """A site with the handlers, on each database."""
    if request.param == "postgresql":
        site.database = site.url = request.getfixturevalue("postgresql_url")
    site.plugin("many", PLUGIN)
    return site


def test_each_conclusion_runs_exactly_its_handler(many):
    """A thousand conclusions run a thousand handlers; an unmatched or missing conclusion runs none."""
    server = many.start(answer_wait=20, ledger__write_timeout=20)  # a commit may take seconds on a busy machine
    answers = []
    with closing(http.client.HTTPConnection(*server.address, timeout=60)) as connection:
        for number in range(HANDLERS):
            body = json.dumps({"processDefinitionKey": "loan", "conclusion": f"c{number}"})
            headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
            connection.request("POST", f"/flow/i{number}/call-back/complete", body, headers)
            answer = connection.getresponse()
            answer.read()
            answers.append(answer.status)
    assert set(answers) <= {200, 202}
    assert server.post("other", {"processDefinitionKey": "loan", "conclusion": "C1"}).body == b'{"success": true}'
    missing = server.post("missing", {"processDefinitionKey": "loan"}, accept_language="en")
    assert missing.status == 202
    assert "conclusion" in missing.json["message"]

    def is_done(ledger):
        tally = ledger.count_by_state()
        return tally["waiting"] + tally["running"] == 0

    many.until(is_done, within=120)
    with many.ledger() as ledger, ledger.connection() as connection:
        ran = Counter(map(tuple, connection.exec_driver_sql(RAN)))
    assert ran == Counter((f"c{number}", f"many:h{number}", "succeeded") for number in range(HANDLERS))
    server.stop()
    server.check_log()
    assert many.balance().deliveries == {"succeeded": HANDLERS}
