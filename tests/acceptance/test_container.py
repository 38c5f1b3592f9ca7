"""The steps of the Containerfile without a container: its commands build, install, start, probe and stop."""

from __future__ import annotations

import fnmatch
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from support import containerfile
from support.ports import free_port
from support.waiting import until

CHECKOUT = Path(__file__).parents[2]
SOURCE = '[sources.erp]\ntoken_sha256 = ["3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0"]\n'
READ_ONLY = """
set -e
mount --make-rprivate /
mount --bind "$TMPDIR" "$TMPDIR"
mount --bind "$PWD" "$PWD"
mount -o remount,bind,ro "$PWD"
mount -o remount,bind,ro /
cd "$PWD"
exec "$@"
"""
"""Run a command in a mount namespace in which only the temporary folder can be written, as with `--read-only`."""


def sent(folder):
    """The checkout with the files that the ignore file includes in the build."""
    lines = [line for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*", "nothing is sent but what is named"
    left_out = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    for name in (line[1:] for line in lines if line.startswith("!")):
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, folder / name, ignore=shutil.ignore_patterns(*left_out))
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, folder / name)
    assert not [file for file in folder.rglob("*") if any(fnmatch.fnmatch(file.name, pattern) for pattern in left_out)]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """A folder in which the build's commands ran, with test paths in place of the image's paths."""
    folder = tmp_path_factory.mktemp("image")
    (folder / "src").mkdir()
    sent(folder / "src")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWHOOKS_", "PYTHON", "PIP_"))}
    # Nothing is fetched: what builds and what is required comes from the environment of these tests.
    without = {"PIP_CONFIG_FILE": os.devnull}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for step in (step for step in containerfile.steps() if step.word == "RUN" and step.stage == 0):
        if "--require-hashes" in step.text:
            continue
        command = step.text.replace("/opt/flowhooks", f"{folder}/flowhooks").replace("/wheels", f"{folder}/wheels")
        ran = subprocess.run(
            ["sh", "-euc", command],
            cwd=folder / "src",
            env=kept | without | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}"
    (packages,) = (folder / "flowhooks").glob("lib/python*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


class Container:
    """The image's own command and environment, except for paths and ports."""

    def __init__(self, image, site):
        given = containerfile.environment()
        self.admin = free_port()
        self.environ = {
            **site._environ({"admin": f"127.0.0.1:{self.admin}", "safe_mode": "true"}),
            "PATH": given["PATH"].replace("/opt/flowhooks", f"{image}/flowhooks").replace("$PATH", os.environ["PATH"]),
            "FLOWHOOKS_CONFIG": str(site.folder / Path(given["FLOWHOOKS_CONFIG"]).name),
            "FLOWHOOKS_DATABASE": str(site.folder / Path(given["FLOWHOOKS_DATABASE"]).name),
            "FLOWHOOKS_LISTEN": given["FLOWHOOKS_LISTEN"].replace("8080", str(free_port())),
        }
        assert set(given) <= set(self.environ)
        self.folder = site.folder

    def command(self):
        """The command that the container starts."""
        return [*containerfile.last("ENTRYPOINT").words, *containerfile.last("CMD").words]

    def healthy(self):
        """The exit code of the health check."""
        command = [word.replace("8081", str(self.admin)) for word in containerfile.health()[0]]
        # Proxies of the environment are not used.
        environ = self.environ | {"http_proxy": "http://127.0.0.1:1"}
        return subprocess.run(command, env=environ, stderr=subprocess.DEVNULL, check=False, timeout=30).returncode


def test_the_container_is_built_started_probed_and_stopped(image, site):
    """The container is healthy only while it serves, has the wheel installed, and exits with 0 on SIGTERM."""
    container = Container(image, site)
    (site.folder / "flowhooks.toml").write_text(SOURCE)
    where = subprocess.run(
        ["python", "-P", "-c", "import flowhooks; print(flowhooks.__file__)"],
        env=container.environ, cwd=site.folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).is_relative_to(image)
    assert container.healthy() == 1
    server = site.launch(container.command(), container.environ)
    server.until_logged("server_started")
    until(lambda: container.healthy() == 0)  # the check allows for few seconds only
    server.signal(signal.SIGHUP)
    server.until_logged("settings_reloaded")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert container.healthy() == 1
    assert (site.folder / "flowhooks.db").exists()


@pytest.mark.parametrize(("settings", "why"), [("", "no credential is configured"), (None, "cannot be read")])
def test_the_container_does_not_start_without_credentials(image, site, settings, why):
    """Without credentials the container does not start, because its callback listener is public."""
    container = Container(image, site)
    if settings is not None:
        (site.folder / "flowhooks.toml").write_text(settings)
    ran = subprocess.run(
        container.command(), cwd=site.folder, env=container.environ, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert why in ran.stderr


def test_the_container_runs_on_a_read_only_root(image, site, postgresql_url, tmp_path_factory):
    """With two processes on PostgreSQL it writes to the temporary folder only."""
    container, temporary = Container(image, site), tmp_path_factory.mktemp("tmp")
    container.environ |= {"FLOWHOOKS_DATABASE": postgresql_url, "FLOWHOOKS_PROCESSES": "2", "TMPDIR": str(temporary)}
    (site.folder / "flowhooks.toml").write_text(SOURCE)
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    wrapper = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh"]

    def run(*words):
        return subprocess.run(
            [*wrapper, *words], cwd=site.folder, env=container.environ, capture_output=True, text=True, check=False
        )

    if (mounted := run("true")).returncode:
        pytest.skip(f"no mount namespace can be made: {mounted.stderr}")
    assert run("touch", "here").returncode == 1
    assert run("touch", f"{temporary}/here").returncode == 0
    server = site.launch([*wrapper, *container.command()], container.environ)
    server.until_logged("server_started", times=2)
    until(lambda: container.healthy() == 0)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not server.logged("process_ended")
