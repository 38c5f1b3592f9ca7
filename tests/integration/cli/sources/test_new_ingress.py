"""`flowhooks sources new --ingress`, and the other commands with a source with a fixed URL."""

from __future__ import annotations

import json
import tomllib

import pytest

from flowhooks import settings

REQUESTS = {
    "json": {"id": "7", "processDefinitionKey": "leave", "businessKey": "B-1", "status": "approved"},
    "form": {"id": "7", "processDefinitionKey": "leave", "businessKey": "B-1", "status": "2"},
    "cloudevent": {
        "specversion": "1.0",
        "id": "e1",
        "source": "/leave",
        "type": "ProcessInstanceEvent",
        "kogitoprocinstanceid": "7",
        "kogitoprocid": "leave",
        "data": {"businessKey": "B-1", "state": 2, "result": "approved"},
    },
}
"""A request of each format that the printed mapping is about."""


@pytest.mark.parametrize("form", sorted(REQUESTS))
def test_a_section_to_paste(run, tmp_path, form):
    """Appended to the settings it is valid, has a token by default, and maps a typical request."""
    from flowhooks.intake.mapping import map_request

    ran = run("sources", "new", "oa.eu", "--ingress", form)
    assert ran.exit_code == 0, ran.output
    file = tmp_path / "flowhooks.toml"
    file.write_text(ran.stdout)
    source = settings.load(file, {}, {}).sources["oa.eu"]
    assert len(source.token_sha256) == 1
    assert source.ingress.format == form
    mapped = map_request(source.ingress, REQUESTS[form])
    assert (mapped.kind, mapped.flow_instance_id, mapped.data["conclusion"]) == ("complete", "7", "approved")
    assert (mapped.data["processDefinitionKey"], mapped.data["businessKey"]) == ("leave", "B-1")
    assert "POST /in/oa.eu" in ran.stderr
    assert "flowhooks sources test oa.eu --data FILE" in ran.stderr


def test_the_credential_of_a_fixed_url(run, tmp_path):
    """A secret by Standard Webhooks is made on request only; without --ingress it stays the default."""
    ran = run("sources", "new", "oa", "--ingress", "form", "--signed", "--file", str(tmp_path / "oa"))
    assert "secrets" in tomllib.loads(ran.stdout)["sources"]["oa"]
    assert "token_sha256" in tomllib.loads(run("sources", "new", "oa", "--ingress", "form").stdout)["sources"]["oa"]
    assert "secrets" in tomllib.loads(run("sources", "new", "oa").stdout)["sources"]["oa"]
    ran = run("sources", "new", "oa", "--ingress", "xml")
    assert (ran.exit_code, "'json', 'form', 'cloudevent'" in ran.output) == (2, True)


def test_a_source_whose_plugin_authenticates(run, tmp_path):
    """It is listed with its plugin and has no credential to rotate or to test."""
    (tmp_path / "flowhooks.toml").write_text('[sources.dd.ingress]\nreceiver = "dingtalk"\n')
    assert "checked by the plugin dingtalk" in " ".join(run("sources", "list").stdout.split())
    (source,) = json.loads(run("sources", "list", "--json").stdout)["sources"]
    assert source["fixed_url"] == {"path": "/in/dd", "format": None, "receiver": "dingtalk"}
    for command in ("rotate", "test"):
        ran = run("sources", command, "dd")
        assert ran.exit_code == 2, ran.output
        assert "the plugin dingtalk checks the credentials of dd" in " ".join(ran.output.split())
    ran = run("sources", "rotate", "dd", "--file", str(tmp_path / "new"))
    assert (ran.exit_code, (tmp_path / "new").exists()) == (2, False)


def test_the_fixed_url_is_listed(run, tmp_path):
    """The list has the path and the format of the requests; a source without a fixed URL has none."""
    (tmp_path / "flowhooks.toml").write_text(
        '[sources.erp]\nsecrets = [{file = "a"}]\n[sources.oa]\nsecrets = [{file = "b"}]\n'
        '[sources.oa.ingress]\nformat = "form"\nflow_instance_id = "/id"\n'
    )
    assert "/in/oa (form)" in run("sources", "list").stdout
    erp, oa = json.loads(run("sources", "list", "--json").stdout)["sources"]
    assert erp["fixed_url"] is None
    assert oa["fixed_url"] == {"path": "/in/oa", "format": "form", "receiver": None}
