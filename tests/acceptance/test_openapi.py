"""Schemathesis checks a real server, given only `/openapi.json`."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = '''
from flowhooks import Retry, handler, hookimpl

@handler(process_key=["good", "test_flow_key"], retry=Retry(attempts=3))
def good(event):
    """Do nothing."""

@hookimpl
def handlers():
    return [good]
'''
TOKENS = {"engine": "engine-token-0123456789abcdefghijklmnopq", "operator": "operator-token-23456789abcdefghijklmnop"}
DIGESTS = {name: hashlib.sha256(token.encode()).hexdigest() for name, token in TOKENS.items()}
CONFIG = f"""
[sources.engine]
token_sha256 = ["{DIGESTS["engine"]}"]
[sources.engine.ingress]
format = "json"
flow_instance_id = "/id"
[operators.li]
token_sha256 = ["{DIGESTS["operator"]}"]
role = "operate"
"""
SETTINGS = """
continue-on-failure = true
request-timeout = 60
suppress-health-check = ["all"]
[generation]
allow-x00 = false  # NUL, which no schema of a string forbids, and every text is refused for
[[operations]]
include-path = "/in/{source}"  # the settings of the source decide which bodies are valid, and who may send a GET
parameters.source = "engine"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "415", "422"]
[[operations]]
include-path = "/api/events"  # what no schema says: `since` lies before `until`
checks.positive_data_acceptance.expected-statuses = ["2xx", "404", "422"]
[[operations]]
include-path-regex = "^/api/(events/export|operations/(dismiss|plan_operation|reroute))$"  # no indexed field
checks.positive_data_acceptance.expected-statuses = ["2xx", "404", "409", "422"]
[[operations]]
include-path-regex = "^/api/(rejected-requests|(handlers|sources|errors)/[^/]+/trend)$"  # a time lies before another
checks.positive_data_acceptance.expected-statuses = ["2xx", "404", "422"]
"""
"""Settings of Schemathesis with all of its checks."""
COUNTED = re.compile(r"(\d+) generated, (\d+) passed")


@pytest.fixture(scope="module")
def server(make_site):
    """A server whose engines and operators need tokens, with a few events."""
    site = make_site()
    site.plugin("demo", PLUGIN)
    # A commit may take seconds on a busy machine.
    server = site.start(config=CONFIG, http__threads=4, ledger__write_timeout=20)
    for number in range(4):
        body = {"processDefinitionKey": "good" if number % 2 else "nobody", "businessKey": f"B-{number}"}
        answer = server.post(f"known-{number}", body, Authorization=f"Bearer {TOKENS['engine']}")
        assert answer.status == (200 if number % 2 else 202)
    yield server
    assert server.process.poll() is None
    server.check_log()
    assert not [record for record in server.records if record["event"] in {"request_failed", "application_failed"}]
    site.balance()


def promises(address, token, *words, folder):
    """Run Schemathesis with all of its checks; return the number of requests."""
    (folder / "schemathesis.toml").write_text(SETTINGS)
    ran = subprocess.run(
        [
            Path(sys.executable).with_name("st"),
            *("run", "http://{}:{}/openapi.json".format(*address)),
            *("--header", f"Authorization: Bearer {TOKENS[token]}"),
            *("--no-color", "--output-truncate", "false", *words),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr
    return int(COUNTED.search(ran.stdout)[1])


SHORT = ("--phases", "examples,coverage,fuzzing", "--max-examples", "3", "--generation-deterministic", "--no-shrink")
LONG = ("--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "100", "--generation-database", "none")


@pytest.mark.parametrize(("listener", "token", "fewest"), [("address", "engine", 50), ("admin", "operator", 400)])
def test_the_server_conforms_to_the_openapi_document(server, tmp_path, listener, token, fewest):
    """Each operation at the bounds of each parameter and member, and with a few random requests of a fixed seed."""
    assert promises(getattr(server, listener), token, *SHORT, folder=tmp_path) > fewest


@pytest.mark.long
@pytest.mark.parametrize(("listener", "token"), [("address", "engine"), ("admin", "operator")])
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
def test_conformance_to_the_openapi_document_in_a_long_run(server, tmp_path, listener, token, seed):
    """The same with a hundred or more requests to each operation, and with ids of earlier responses."""
    made = promises(getattr(server, listener), token, *LONG, "--seed", str(seed), folder=tmp_path)
    print(f"{listener}, seed {seed}: {made} requests")  # noqa: T201 (the figure that `make test-long` is to show)
