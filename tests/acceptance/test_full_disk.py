"""A disk that is full: no false 2xx, nothing that was taken is lost, and work goes on when there is room again."""

from __future__ import annotations

import resource

PLUGIN = '''
from flowhooks import handler, hookimpl

@handler(process_key="good")
def good(event):
    """Do nothing."""

@hookimpl
def handlers():
    return [good]
'''
ROOM = 4_000_000
"""Bytes that a file of the server may grow to: a few call-backs' worth."""
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def test_a_full_disk_is_503_and_loses_nothing(site):
    """The log says once what is wrong, and once that it works again."""
    site.plugin("demo", PLUGIN)
    server = site.start(wait=5)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (ROOM, resource.RLIM_INFINITY))
    taken = {}
    body = {"processDefinitionKey": "good", "pad": "x" * 300_000}
    for number in range(60):
        answer = server.post(f"a-{number}", body)
        if answer.status == 503:
            break
        assert answer.status in {200, 202}
        taken[f"a-{number}"] = answer.event_id
    assert len(taken) > 2
    # Now not even the small write goes through by which the server finds out whether there is room again.
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    for _ in range(3):
        # A large body has to go to the disk before it gets as far as the database.
        refused = server.post(f"a-{len(taken)}", body)
        assert "no room" in refused.message_of_error(503)
        assert refused.headers["Retry-After"]
        refused = server.post("small", {"processDefinitionKey": "good"})
        assert "database cannot be used" in refused.message_of_error(503)
        assert refused.headers["Retry-After"]
    ready = server.ask("GET", "/readyz", admin=True)
    assert (ready.status, ready.json["ready"]) == (503, False)
    record = server.logged("ledger_write_failed")[-1]
    assert record["level"] == "error"
    assert "disk" in record["why"]
    assert record["why"] in ready.json["trouble"][0]
    assert len(server.logged("ledger_write_failed")) <= 1 + len(server.logged("ledger_writes_again"))
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, UNLIMITED)
    for instance in (*taken, f"a-{len(taken)}"):
        answer = server.post(instance, body)
        assert (answer.status, answer.body) == (200, b'{"success": true}')
        assert answer.event_id == taken.get(instance, answer.event_id)
    assert server.until_logged("ledger_writes_again")
    assert server.ask("GET", "/readyz", admin=True).status == 200
    server.stop()
    server.check_log()
    books = site.balance()
    assert books.accepted == len(taken) + 1
    assert books.deliveries == {"succeeded": len(taken) + 1}
    with site.ledger() as ledger:
        assert ledger.quick_check() is None
