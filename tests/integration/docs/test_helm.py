"""The Helm chart in `docs/deploy/helm`: its values are described, and what it renders is safe and runs flowhooks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import jsonschema
import pytest
import yaml

from flowhooks import __version__
from flowhooks.cli.process.restart_delay import START_TIMEOUT
from flowhooks.settings import check_binds, load
from support import containerfile
from support.code_blocks import blocks
from support.deployment import DEPLOY, SHUTDOWN_MARGIN, VARIABLES, check_command

CHART = DEPLOY / "helm/flowhooks"
EXAMPLES = {path.stem.removesuffix("-values"): path for path in sorted((CHART / "ci").iterdir())}
SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
TEMPLATES = {path.name: path.read_text("utf-8") for path in sorted((CHART / "templates").iterdir())}


def leaves(values, schema, prefix=""):
    """Each value with its dotted name: those whose schema lists no properties."""
    for name, value in values.items():
        described = schema["properties"][name]
        if "properties" in described:
            yield from leaves(value, described, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def names(schema, prefix=""):
    """The dotted names of all values that a schema allows."""
    for name, described in schema["properties"].items():
        yield from names(described, f"{prefix}{name}.") if "properties" in described else [prefix + name]


def texts(schema):
    """The last name of each value that may be any text, such as the name of a Secret."""
    for name, described in schema["properties"].items():
        if "properties" in described:
            yield from texts(described)
        elif described.get("type") == "string":
            yield name


def is_valid(values):
    """Whether the schema of the chart allows these values."""
    return jsonschema.Draft7Validator(SCHEMA).is_valid(values)


# Without Helm


def test_the_schema_describes_the_values():
    """The schema is JSON Schema, allows the defaults and examples, and has the same names as the defaults."""
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert is_valid(VALUES)
    for path in EXAMPLES.values():
        assert is_valid(yaml.safe_load(path.read_text("utf-8"))), path.name
    assert {name for name, _ in leaves(VALUES, SCHEMA)} == {*names(SCHEMA)} - {"global"}


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 3},
        {"server": {"replica": 3}},
        {"server": {"processes": 0}},
        {"server": {"processes": "2"}},
        {"image": {"digest": "sha256:latest"}},
        {"database": {"password": "secret"}},
        {"database": {"sslMode": "on"}},
        {"database": {"user": "flowhooks:secret"}},
        {"runnerKind": "celery"},
        {"shutdownTimeout": 0.5},
        {"networkPolicy": {"callbacks": {"cidrs": ["192.0.2.1"]}}},
        {"extraEnv": [{"name": "FLOWHOOKS_DATABASE", "value": "postgresql://other"}]},
    ],
    ids=json.dumps,
)
def test_the_schema_rejects_invalid_values(values):
    """Unknown names, values out of range and a password in clear text are refused."""
    assert not is_valid(values)


def test_every_value_is_in_the_readme_with_its_default():
    """The table of values has the names and defaults of `values.yaml`, in the same order."""
    rows = re.findall(
        r"^\| `([\w.]+)` \| (.+?) \| .+\.(?: .+\.)* \|$", (CHART / "README.md").read_text("utf-8"), re.MULTILINE
    )
    found = [*leaves(VALUES, SCHEMA)]
    assert [name for name, _ in rows] == [name for name, _ in found]
    for (name, shown), (_, value) in zip(rows, found, strict=True):
        if name.endswith(".resources"):
            assert value == {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
        else:
            default = value if isinstance(value, str) and value else json.dumps(value)
            assert shown == f"`{default}`", name


def test_the_readme_s_example_is_valid():
    """The values of the README are allowed, and set each value that is required."""
    (block,) = blocks(CHART / "README.md", "yaml")
    values = yaml.safe_load(block.text)
    assert is_valid(values)
    assert values["image"]["repository"]
    assert values["settings"]["existingSecret"]
    assert values["database"].keys() >= {"host", "existingSecret"}


def test_the_chart_names_existing_settings_version_and_user():
    """Variables of templates are settings, the version is that of flowhooks, the user is that of the image."""
    for name, text in TEMPLATES.items():
        assert set(re.findall(r"FLOWHOOKS_[A-Z_]+\b", text)) <= VARIABLES, name
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == __version__
    helpers = TEMPLATES["_helpers.tpl"]
    (user,) = re.findall(r"runAsUser: (\d+)", helpers)
    (group,) = re.findall(r"runAsGroup: (\d+)", helpers)
    assert containerfile.last("USER").text == f"{user}:{group}"
    assert containerfile.environment()["FLOWHOOKS_CONFIG"] in helpers
    used = set(re.findall(r"\.(?:root\.)?Values\.([A-Za-z]+)", "".join(TEMPLATES.values())))
    assert used | {"image", "database"} == {*VALUES}


def test_the_chart_creates_no_secret():
    """No template creates a Secret, and passwords and tokens are references."""
    for name, text in TEMPLATES.items():
        assert not re.search(r"^kind: Secret$", text, re.MULTILINE), name
    assert "secretKeyRef" in TEMPLATES["_helpers.tpl"]


def test_names_are_quoted():
    """Templates quote the names that a user chooses: unquoted, YAML reads `2024` as a number and `no` as a boolean."""
    for name, text in TEMPLATES.items():
        unquoted = re.findall(r": \{\{-? ([.$][\w.]*) \}\}", text)
        chosen = [used for used in unquoted if used == "." or used.rpartition(".")[2] in {*texts(SCHEMA)}]
        assert chosen == [], name
        assert not [used for used in unquoted if used.endswith("Release.Name")], name


def test_a_pod_has_time_to_stop():
    """The chart adds more to `shutdown.timeout` than a shutdown takes."""
    helpers = TEMPLATES["_helpers.tpl"]
    (margin,) = re.findall(r"add \.preStopSeconds \.root\.Values\.shutdownTimeout (\d+)", helpers)
    assert int(margin) > SHUTDOWN_MARGIN


def test_a_pod_has_time_to_start():
    """The work on the ledger may take long after the plugins are loaded."""
    assert VALUES["startTimeoutSeconds"] >= 10 * START_TIMEOUT
    assert SCHEMA["properties"]["startTimeoutSeconds"]["minimum"] > START_TIMEOUT


# With Helm


@pytest.fixture(scope="module")
def helm():
    """A function that runs Helm."""
    program = shutil.which("helm")
    if program is None:
        pytest.skip("helm is not installed")

    def run(*words):
        # A Helm that was built from source does not know a current version of Kubernetes.
        return subprocess.run(
            [program, *words, "--kube-version", "1.32.0"], capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture(scope="module", params=sorted(EXAMPLES))
def rendered(request, helm):
    """The objects of an example by kind and name, after `helm lint`."""
    path = str(EXAMPLES[request.param])
    lint = helm("lint", "--strict", "--values", path, str(CHART))
    assert lint.returncode == 0, lint.stdout + lint.stderr
    done = helm("template", "flowhooks", str(CHART), "--namespace", "flows", "--values", path)
    assert done.returncode == 0, done.stderr
    documents = [document for document in yaml.safe_load_all(done.stdout) if document]
    objects = {
        (document["kind"], document["metadata"]["name"].removeprefix("flowhooks").lstrip("-")): document
        for document in documents
    }
    assert len(objects) == len(documents)
    return objects


def containers(objects):
    """Each pod template's component, specification and container."""
    for (kind, name), found in objects.items():
        if kind in {"Deployment", "Job"}:
            pod = found["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            yield name, pod, container


def test_pods_run_flowhooks(rendered):
    """Commands and settings of pods are valid, and a server with the settings of the example would start."""
    for name, _, container in containers(rendered):
        check_command(container["args"])
        environ = {variable["name"]: variable.get("value") for variable in container["env"]}
        given = {key: value for key, value in environ.items() if key.startswith("FLOWHOOKS_")}
        assert set(given) <= VARIABLES, name
        assert environ["PGPASSWORD"] is None, "a reference, not a value"
        assert given["FLOWHOOKS_DATABASE"].startswith("postgresql://flowhooks@")
        settings = load(None, {key: value for key, value in given.items() if key != "FLOWHOOKS_CONFIG"}, {})
        assert settings.runner.kind == "embedded"
        assert settings.shutdown.timeout in {30, 60}


def test_settings_of_the_example_let_a_server_start(rendered, tmp_path):
    """The settings file in the ConfigMap is unchanged and valid with listeners that other machines reach."""
    settings = rendered.get(("ConfigMap", ""))
    if settings is None:
        (volume,) = [
            volume
            for volume in rendered["Deployment", "server"]["spec"]["template"]["spec"]["volumes"]
            if "secret" in volume
        ][:1]
        assert volume["secret"]["items"] == [{"key": "flowhooks.toml", "path": "flowhooks.toml"}]
        return
    file = tmp_path / "flowhooks.toml"
    file.write_text(settings["data"]["flowhooks.toml"])
    check_binds(load(file, {}, {"listen": "0.0.0.0:8080", "admin": "0.0.0.0:8081"}))


def test_pods_have_no_privileges(rendered):
    """Every pod fulfils the Pod Security Standard `restricted`, and has a read-only root file system."""
    for name, pod, container in containers(rendered):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert {"/tmp"} <= {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert container["resources"]["limits"]["memory"]


def test_pods_are_replaced_without_a_gap(rendered):
    """A pod stops after another is ready, serves for a moment, and has time to finish; probes ask existing ports."""
    for name in ("server", "worker"):
        deployment = rendered.get(("Deployment", name))
        if deployment is None:
            assert name == "worker"
            continue
        spec = deployment["spec"]
        assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        environ = {variable["name"]: variable.get("value") for variable in container["env"]}
        delay = int(container["lifecycle"]["preStop"]["exec"]["command"][1]) if name == "server" else 0
        timeout = float(environ["FLOWHOOKS_SHUTDOWN_TIMEOUT"])
        assert pod["terminationGracePeriodSeconds"] > delay + timeout + SHUTDOWN_MARGIN
        probe = container["startupProbe"]
        assert probe["periodSeconds"] * probe["failureThreshold"] == VALUES["startTimeoutSeconds"]
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "admin"}
        ports = {open_port["name"]: open_port["containerPort"] for open_port in container["ports"]}
        given = check_command(container["args"])
        assert ports["admin"] == int(given["admin"].rpartition(":")[2])
        if name == "server":
            assert ports["callbacks"] == int(given["listen"].rpartition(":")[2])
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        budget = rendered["PodDisruptionBudget", name]["spec"]
        assert budget["selector"]["matchLabels"] == spec["selector"]["matchLabels"]
        assert budget["maxUnavailable"] == 1


def test_each_listener_has_a_service_of_its_own(rendered):
    """The callback Service reaches no administration listener, and the other way round."""
    pods = rendered["Deployment", "server"]["spec"]["selector"]["matchLabels"]
    for name, port in (("", "callbacks"), ("admin", "admin")):
        service = rendered["Service", name]["spec"]
        assert [served["targetPort"] for served in service["ports"]] == [port]
        assert service["selector"] == pods
    assert rendered["Service", "admin"]["spec"]["type"] == "ClusterIP"


def test_network_policies_allow_only_listed_peers(rendered):
    """No rule lacks peers, which would allow all; each pod has a policy, and reaches the database."""
    policies = {name: found["spec"] for (kind, name), found in rendered.items() if kind == "NetworkPolicy"}
    assert set(policies) == {name for name, _, _ in containers(rendered)}
    for name, policy in policies.items():
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy["ingress"]:
            assert rule["from"], name
            assert len(rule["ports"]) == 1
        assert all(rule["to"] for rule in policy["egress"])
        assert policy["egress"][0]["ports"] == [{"port": 5432, "protocol": "TCP"}]
    assert policies["db-upgrade"]["ingress"] == []
    callbacks = [rule["from"] for rule in policies["server"]["ingress"] if rule["ports"][0]["port"] == "callbacks"]
    namespace = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "engines"}}}
    assert [namespace in peers for peers in callbacks] == [True]


def test_the_readme_s_example_can_be_installed(helm, tmp_path):
    """The values of the README render the chart."""
    (block,) = blocks(CHART / "README.md", "yaml")
    file = tmp_path / "flowhooks-values.yaml"
    file.write_text(block.text)
    done = helm("template", "flowhooks", str(CHART), "--values", str(file))
    assert done.returncode == 0, done.stderr


NUMERIC = {
    "settings": {"existingSecret": "1", "key": "2"},
    "secretFiles": {"existingSecret": "3"},
    "database": {"existingSecret": "4", "passwordKey": "1", "caSecret": "1e3"},
    "networkPolicy": {"callbacks": {"namespaces": ["no", "123"]}, "dnsNamespace": "53"},
    "serviceMonitor": {"tokenSecret": {"name": "5", "key": "null"}},
}
"""Names that YAML would read as another type. Kubernetes allows them."""
NAMED = {"labels", "selector", "matchLabels", "secretKeyRef", "credentials", "secret"}


def named(node, inside=False):
    """Each value below labels and references to Secrets, except for the mode of files."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key != "defaultMode":
                yield from named(value, inside or key in NAMED)
    elif isinstance(node, list):
        for value in node:
            yield from named(value, inside)
    elif inside:
        yield node


def test_names_stay_texts(helm, tmp_path):
    """Labels and references to Secrets are texts, even if the names look like numbers or booleans."""
    assert is_valid(NUMERIC)
    file = tmp_path / "flowhooks-values.json"
    file.write_text(json.dumps(NUMERIC))
    done = helm("template", "2024", str(CHART), "--values", str(EXAMPLES["worker"]), "--values", str(file))
    assert done.returncode == 0, done.stderr
    found = [value for document in yaml.safe_load_all(done.stdout) for value in named(document)]
    assert [value for value in found if not isinstance(value, str)] == []
    assert set(found) >= {"2024", "no", "123", "53", "null", "1e3", *"12345"}


@pytest.mark.parametrize(
    ("values", "kind", "left"),
    [
        ("databaseUpgrade.onInstall=false,databaseUpgrade.onUpgrade=false", "Job", []),
        ("networkPolicy.enabled=false", "NetworkPolicy", []),
        ("podDisruptionBudget.enabled=false", "PodDisruptionBudget", []),
        ("serviceMonitor.enabled=false", "ServiceMonitor", []),
        ("server.runHandlers=true,worker.enabled=false", "Deployment", ["flowhooks-server"]),
    ],
)
def test_optional_objects_can_be_left_out(helm, values, kind, left):
    """Without an optional part the chart has no object of it, and is valid."""
    done = helm("template", "flowhooks", str(CHART), "--values", str(EXAMPLES["worker"]), "--set", values)
    assert done.returncode == 0, done.stderr
    found = [document for document in yaml.safe_load_all(done.stdout) if document]
    assert [document["metadata"]["name"] for document in found if document["kind"] == kind] == left


@pytest.mark.parametrize(
    ("callbacks", "admin", "ports"),
    [("null", "null", []), ("null", "{operations}", ["admin"]), ("{engines}", "null", ["callbacks"])],
)
def test_a_listener_without_peers_has_no_network_rule(helm, callbacks, admin, ports):
    """A policy has a rule only for a listener with peers: a rule without peers would admit everybody."""
    peers = f"networkPolicy.callbacks.namespaces={callbacks},networkPolicy.admin.namespaces={admin}"
    policies = ("--show-only", "templates/network-policies.yaml", "--set", peers)
    done = helm("template", "flowhooks", str(CHART), "--values", str(EXAMPLES["server"]), *policies)
    assert done.returncode == 0, done.stderr
    policy = next(yaml.safe_load_all(done.stdout))
    assert policy["metadata"]["name"] == "flowhooks-server"
    assert [rule["ports"][0]["port"] for rule in policy["spec"]["ingress"]] == ports


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ("image.repository=", "image.repository: name your image"),
        ("database.host=", "database.host: name the host"),
        ("database.existingSecret=", "database.existingSecret: name the Secret"),
        ("settings.text=", "settings: set either text or existingSecret"),
        ("settings.existingSecret=other", "settings: set either text or existingSecret"),
        ("server.runHandlers=false", "no process would run handlers"),
        ("networkPolicy.database.namespaces=null", "networkPolicy.database: list the namespaces or cidrs"),
        ("serviceMonitor.enabled=true", "serviceMonitor.tokenSecret.name"),
        ("server.replica=3", "replica"),
    ],
)
def test_wrong_values_are_refused_with_a_reason(helm, values, reason):
    """Missing, contradictory and unknown values end with a message that names them."""
    done = helm("template", "flowhooks", str(CHART), "--values", str(EXAMPLES["server"]), "--set", values)
    assert done.returncode != 0
    assert reason in done.stderr
