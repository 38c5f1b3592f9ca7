"""The files in `docs/deploy`: every command, option, path and limit in them exists."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flowhooks.cli.process.supervisor import START_TIMEOUT
from flowhooks.settings import Settings, load
from flowhooks.settings.addresses import host_and_port
from support import containerfile
from support.code_blocks import ROOT
from support.deployment import DEPLOY, MAX_SHUTDOWN_SECONDS, VARIABLES, check_command

UNITS = ["flowhooks.service", "flowhooks-worker.service"]
COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text("utf-8"))


def unit(name):
    """The settings of a unit by section and key."""
    found, section = {}, ""
    for line in (DEPLOY / name).read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault((section, key), []).append(value)
    return found


def seconds(text):
    """A time such as `60s`."""
    return float(text.removesuffix("s"))


@pytest.mark.parametrize("name", UNITS)
def test_commands_of_a_unit_exist(name):
    """The unit's command has these options, and may access its files where they are."""
    found = unit(name)
    (start,) = found["Service", "ExecStart"]
    program, *words = shlex.split(start)
    assert Path(program).parts[-2:] == ("bin", "flowhooks")
    assert check_command(words)["config"] == Path("/etc/flowhooks.toml")
    assert found["Service", "ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    (state,) = found["Service", "StateDirectory"]
    assert found["Service", "WorkingDirectory"] == [f"/var/lib/{state}"]
    assert found["Service", "User"] == ["flowhooks"]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_has_timeouts_and_restarts_by_exit_code(name):
    """The unit has time to start and stop, and restarts after a fault but not after a wrong setting."""
    found = {key: values[-1] for (_, key), values in unit(name).items()}
    assert float(found["TimeoutStopSec"]) > MAX_SHUTDOWN_SECONDS
    assert float(found["TimeoutStartSec"]) > START_TIMEOUT
    assert (found["Type"], found["KillMode"]) == ("notify", "mixed")
    assert (found["Restart"], found["RestartPreventExitStatus"]) == ("on-failure", "2")


@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_a_unit(name, tmp_path):
    """`systemd-analyze verify` reports nothing, and `security` reports a low exposure."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (Debian: apt-get install systemd)")
    here = tmp_path / name
    program = Path(sys.executable).with_name("flowhooks")
    here.write_text((DEPLOY / name).read_text().replace("/opt/flowhooks/bin/flowhooks", str(program)))
    done = subprocess.run([analyze, "verify", "--man=no", here], capture_output=True, text=True, check=False)
    about_it = [line for line in done.stderr.splitlines() if name in line]
    assert (done.returncode, about_it) == (0, []), done.stderr
    # 20 means an exposure of 2.0 out of 10. Older versions lack --offline and exit with another code.
    command = [analyze, "security", "--offline=yes", "--threshold=20", "--no-pager", here]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a file")
    assert done.returncode == 0, done.stdout + done.stderr
    reasons = here.read_text().partition("# Directives that are left out:")[2]
    for line in done.stdout.splitlines():
        if line.startswith("\N{BALLOT X}"):
            directives = [part.partition("=")[0] for part in line.split()[1].split("/")]
            assert f"{directives[0]}=" in reasons, line


def test_the_image_is_slim_not_root_and_passes_signals():
    """The image has two stages on a slim Python, is not root, and passes signals without a shell."""
    steps = containerfile.steps()
    bases = [step.text.partition(" ")[0] for step in steps if step.word == "FROM"]
    assert len(bases) == 2
    assert len(set(bases)) == 1, "what is installed in the one is run in the other"
    arguments = dict(step.text.split("=", 1) for step in steps if step.word == "ARG")
    assert (list(arguments), bases[0]) == (["BASE"], "${BASE}")
    base = re.fullmatch(r"python:(\d+)\.(\d+)-slim@sha256:[0-9a-f]{64}", arguments["BASE"])
    assert base is not None
    assert tuple(map(int, base.groups())) >= (3, 11)
    user = containerfile.last("USER").text
    assert all(part.isdecimal() and int(part) >= 1000 for part in user.split(":"))
    assert containerfile.last("ENTRYPOINT").words == ["flowhooks"]
    assert containerfile.last("STOPSIGNAL").text == "SIGTERM"
    check_command(containerfile.last("CMD").words)
    after = [step.word for step in steps if step.stage == 1]
    assert after.index("USER") > max(index for index, word in enumerate(after) if word in {"RUN", "COPY"})
    assert "ADD" not in after


def test_packages_of_the_image_are_locked():
    """Each package has a hash in a lock file that is sent to the build; what is built there is fetched from nowhere."""
    installs = [
        step.text
        for step in containerfile.steps()
        if step.word == "RUN" and re.search(r"\bpip (install|wheel)", step.text)
    ]
    fetching = [text for text in installs if "--no-index" not in text]
    assert len(fetching) == 2
    sent = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    for text in fetching:
        assert "--require-hashes --only-binary :all:" in text
        (file,) = re.findall(r"--(?:requirement|constraint) (\S+)", text)
        assert file in sent
    assert "--no-build-isolation" in next(text for text in installs if "pip wheel" in text)
    locked = (ROOT / "tests/data/requirements/run.txt").read_text()
    for package in ("argon2-cffi", "psycopg-binary", "falcon"):
        assert f"\n{package}==" in locked


def test_the_image_sets_settings_but_no_credentials():
    """The image sets settings but no credentials: its ledger is on the volume, its port is exposed."""
    given = containerfile.environment()
    settings = {name: value for name, value in given.items() if name.startswith("FLOWHOOKS_")}
    assert set(settings) <= VARIABLES
    read = load(None, {name: value for name, value in settings.items() if name != "FLOWHOOKS_CONFIG"}, {})
    volume = containerfile.last("VOLUME").text
    assert Path(read.database).parent == Path(volume) == Path(containerfile.last("WORKDIR").text)
    assert host_and_port(read.listen)[1] == int(containerfile.last("EXPOSE").text)
    assert not read.insecure
    words = containerfile.FILE.read_text().upper()
    assert not [word for word in ("PASSWORD", "SECRET=", "TOKEN=") if word in words]


def test_the_image_has_a_health_check():
    """The health check runs without a shell on `/readyz`, and times out before the container's own timeout."""
    command, times = containerfile.health()
    assert command[:2] == ["python", "-c"]
    compile(command[2], "health", "exec")
    port = int(Settings().admin.rpartition(":")[2])
    assert f"'127.0.0.1', {port}, timeout=4" in command[2]
    assert "/readyz" in command[2]
    assert seconds(times["timeout"]) > 4


def test_compose_services_have_existing_commands_and_settings():
    """Commands, settings and dependencies of services exist; no service has more rights than it needs."""
    services = COMPOSE["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services)
        if service["image"] != "flowhooks":
            continue
        check_command(service["command"])
        assert {variable for variable in service["environment"] if variable.startswith("FLOWHOOKS_")} <= VARIABLES
        assert service["environment"]["FLOWHOOKS_DATABASE"].startswith("postgresql://")
        assert seconds(service["stop_grace_period"]) > MAX_SHUTDOWN_SECONDS
        assert service["volumes"] == ["./settings:/etc/flowhooks:ro"]
        assert service["cap_drop"] == ["ALL"]
        assert service["init"] is True, name
    assert services["server"]["depends_on"]["upgrade"] == {"condition": "service_completed_successfully"}
    words = services["server"]["command"]
    assert int(words[words.index("--processes") + 1]) > 1


def test_compose_databases_are_healthy_only_by_tcp():
    """PostgreSQL is checked by TCP, because on its first start a temporary server listens only on the Unix socket."""
    databases = [service for service in COMPOSE["services"].values() if service["image"].startswith("postgres:")]
    assert databases
    for service in databases:
        command = service["healthcheck"]["test"]
        assert command[:2] == ["CMD", "pg_isready"]
        assert "--host=127.0.0.1" in command


def test_compose_secrets_are_in_files():
    """No variable has a password: each names a file of a secret that the service and the whole composition have."""
    files = {name: secret["file"] for name, secret in COMPOSE["secrets"].items()}
    assert all(file.startswith("./secrets/") for file in files.values())
    used = set()
    for name, service in COMPOSE["services"].items():
        for variable, value in service["environment"].items():
            if "PASS" in variable:
                folder, _, secret = value.rpartition("/")
                assert folder == "/run/secrets", (name, variable)
                assert secret in service["secrets"], name
                used.add(secret)
    assert used == set(files)


def test_the_worker_listens_where_the_image_checks():
    """The worker listens where the image checks, because workers do not listen by default."""
    words = COMPOSE["services"]["worker"]["command"]
    assert words[words.index("--admin") + 1] == Settings().admin
