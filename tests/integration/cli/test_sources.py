"""`flowhooks sources`: sections to add or replace, their descriptions, and whether a server accepts credentials."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import stat
import threading
import tomllib
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from standardwebhooks.webhooks import Webhook

from flowhooks import settings
from flowhooks.app import App
from flowhooks.cli.main import main
from flowhooks.web.callback.app import create_app
from flowhooks.web.server.server import Limits, Server

TOKEN = "token-of-the-crm-which-is-long"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()
SECRET = f"whsec_{base64.b64encode(b'e' * 32).decode()}"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Commands that run in an empty folder."""
    monkeypatch.chdir(tmp_path)


def run(*words, **environ):
    """Run a command."""
    return CliRunner(env=environ).invoke(main, list(map(str, words)))


def private(path, text):
    """A file that only its owner can read."""
    path.touch(0o600)
    path.write_text(f"{text}\n")
    return path


def mode(path):
    """The permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def known(path, **environ):
    """The names and credentials of the sources in a file."""
    loaded = settings.load(path, environ, {})
    return loaded.sources, settings.load_source_credentials(loaded, environ)


@pytest.mark.parametrize(("option", "what"), [("--signed", "keys"), ("--token", "tokens")])
def test_a_credential_in_a_file(tmp_path, option, what):
    """The credential is written for its owner only and not printed; the section names the file."""
    file = tmp_path / "erp"
    ran = run("sources", "new", "erp", option, "--file", file)
    assert ran.exit_code == 0, ran.output
    assert file.read_text().strip() not in ran.output
    assert mode(file) == 0o600
    (tmp_path / "f.toml").write_text(ran.stdout)
    _, found = known(tmp_path / "f.toml")
    assert len(getattr(found["erp"], what)) == 1
    again = run("sources", "new", "erp", option, "--file", file)
    assert again.exit_code == 2
    assert "exists already" in again.output
    assert run("sources", "new", "erp", "--signed", "--token").exit_code == 2


def test_a_credential_that_cannot_be_written_leaves_no_file(tmp_path, monkeypatch):
    """The command can be repeated once there is space on the disk."""

    def fsync(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    ran = run("sources", "new", "erp", "--file", tmp_path / "erp")
    assert (ran.exit_code, "No space left on device" in ran.output) == (2, True)
    assert not (tmp_path / "erp").exists()


def test_a_secret_that_is_shown_once(tmp_path):
    """The secret is printed on standard error; the section names a variable, but not a variable of a setting."""
    ran = run("sources", "new", "li.wei")
    secret = ran.stderr.splitlines()[-1]
    assert secret not in ran.stdout
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    (tmp_path / "f.toml").write_text(ran.stdout)
    sources, found = known(tmp_path / "f.toml", SOURCE_LI_WEI_SECRET=secret)
    assert sources["li.wei"].secrets[0].env == "SOURCE_LI_WEI_SECRET"
    assert len(found["li.wei"].keys) == 1


def test_a_token_that_is_shown_once(tmp_path):
    """The token is printed on standard error; the section has its hash."""
    ran = run("sources", "new", "crm", "--token")
    token = ran.stderr.splitlines()[-1]
    assert token not in ran.stdout
    assert tomllib.loads(ran.stdout)["sources"]["crm"]["token_sha256"] == [hashlib.sha256(token.encode()).hexdigest()]


def test_the_list_of_sources(tmp_path):
    """The list has each source's credentials, their end, networks and limits, without secrets."""
    ended = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    (tmp_path / "flowhooks.toml").write_text(
        f"[sources.erp]\nsecrets = [{{file = 'new'}}, {{env = 'OLD', not_after = {ended}}}]\nrate = 5\nburst = 9\n"
        f"[sources.crm]\ntoken_sha256 = ['{DIGEST}']\nallow = ['10.0.0.0/8']\nmax_body_bytes = 1000\n"
        "[sources.hr]\ntoken_file = 'hr'\n"
    )
    ran = run("sources", "list")
    assert ran.exit_code == 0, ran.output
    file = f"token in {tmp_path}/hr"
    for text in ("1 token", "10.0.0.0/8", "1,000 bytes", file, "5 per second", "anywhere", "(expired)"):
        assert text in " ".join(ran.output.split())
    listed = {source["name"]: source for source in json.loads(run("sources", "list", "--json").stdout)["sources"]}
    assert listed["erp"]["secrets"][0] == {
        "file": str(tmp_path / "new"),
        "env": None,
        "not_after": None,
        "ended": False,
    }
    assert listed["erp"]["secrets"][1]["ended"] is True
    assert (listed["crm"]["tokens"], listed["crm"]["allow"], listed["crm"]["max_body_bytes"]) == (
        1,
        ["10.0.0.0/8"],
        1000,
    )
    assert DIGEST not in ran.output + json.dumps(listed)
    (tmp_path / "flowhooks.toml").write_text("")
    assert "have no source" in run("sources", "list").output


def test_a_pull_only_source_is_listed_and_has_no_credential_to_rotate_or_test(tmp_path):
    """A source that flowhooks only asks is listed as such, beside the note that callers need no credential."""
    (tmp_path / "flowhooks.toml").write_text('[sources.oa.engine]\nclient = "fake"\nurl = "http://oa"\n')
    listed = run("sources", "list")
    assert listed.exit_code == 0, listed.output
    assert "pull-only" in listed.output
    assert "have no source with a credential" in " ".join(listed.output.split())
    (source,) = json.loads(run("sources", "list", "--json").stdout)["sources"]
    assert (source["pull_only"], source["engine"]) == (True, {"client": "fake", "url": "http://oa"})
    for command in ("rotate", "test"):
        ran = run("sources", command, "oa")
        assert (ran.exit_code, "oa is pull-only" in ran.output) == (2, True), ran.output


def test_a_secret_is_rotated(tmp_path):
    """A new secret is added before the old ones, other settings are not printed, and the steps follow in order."""
    old = private(tmp_path / "erp", SECRET)
    config = tmp_path / "flowhooks.toml"
    config.write_text(
        f"[sources.erp]\nsecrets = [{{file = '{old}'}}, {{env = 'OLD', not_after = 2020-01-01T00:00:00Z}}]\n"
        f"token_sha256 = ['{DIGEST}']\nrate = 2.5\nconclusion = {{pass = 'approved'}}\n"
    )
    before = settings.load(config, {}, {}).sources["erp"]
    ran = run("sources", "rotate", "erp", "--keep", "2")
    assert ran.exit_code == 0, ran.output
    config.write_text(ran.stdout)
    sources, found = known(config, OLD=SECRET[:-1].replace("Z", "Y") + "=")
    after = sources["erp"]
    first, second, third = after.secrets
    assert first.not_after is None
    assert first.file.startswith(f"{tmp_path}/erp-2")
    assert (second.file, third) == (str(old), before.secrets[1])
    assert timedelta(days=1.9) < second.not_after - datetime.now(UTC) < timedelta(days=2.1)
    assert tomllib.loads(ran.stdout)["sources"]["erp"].keys() == {"token_sha256", "secrets"}
    assert after.token_sha256 == before.token_sha256
    (new,) = tmp_path.glob("erp-2*")
    assert mode(new) == 0o600
    assert found["erp"].keys[0].key == base64.b64decode(new.read_text().strip().removeprefix("whsec_"))
    assert new.read_text().strip() not in ran.output
    steps = [
        ran.stderr.index(word)
        for word in ("1. Replace", "2. Send the server SIGHUP", "3. Give the engine", "4. Remove")
    ]
    assert steps == sorted(steps)


def test_credentials_that_cannot_be_rotated(tmp_path):
    """A refusal comes before any file is written."""
    config = tmp_path / "flowhooks.toml"
    config.write_text(
        f"[sources.erp]\nsecrets = [{', '.join(f'{{file = {file_name!r}}}' for file_name in 'abcdefgh')}]\n"
    )
    ran = run("sources", "rotate", "erp")
    assert (ran.exit_code, "erp has 8 secrets, which is the maximum" in ran.output) == (2, True)
    ran = run("sources", "rotate", "erp", "--keep", "nan")
    assert (ran.exit_code, "--keep" in ran.output) == (2, True)
    assert list(tmp_path.iterdir()) == [config]


def test_a_token_is_rotated(tmp_path):
    """The old token stays valid by its hash, so its file can be deleted; without a file, one is named."""
    old = private(tmp_path / "crm", TOKEN)
    config = tmp_path / "flowhooks.toml"
    config.write_text(f"[sources.crm]\ntoken_file = '{old}'\n")
    ran = run("sources", "rotate", "crm", "--file", tmp_path / "crm-2")
    assert ran.exit_code == 0, ran.output
    assert DIGEST in ran.stdout
    config.write_text(ran.stdout)
    old.unlink()
    _, found = known(config)
    new = hashlib.sha256((tmp_path / "crm-2").read_text().strip().encode()).hexdigest()
    assert set(found["crm"].tokens) == {DIGEST, new}
    config.write_text(f"[sources.crm]\ntoken_sha256 = ['{DIGEST}']\n")
    ran = run("sources", "rotate", "crm")
    assert (ran.exit_code, "give a file with --file" in ran.output) == (2, True)
    ran = run("sources", "rotate", "nobody")
    assert (ran.exit_code, "no source nobody" in ran.output) == (2, True)


@contextmanager
def served(config, **environ):
    """A server with the settings in this file; its address and its app."""
    loaded = settings.load(config, environ, {"database": "sqlite:///t.db", "plugins_dirs": []})
    app = App(loaded, environ=environ)
    app.start()
    server = Server(create_app(app), listen="127.0.0.1:0", threads=2, limits=Limits(), name="listen")
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield f"http://{server.address}", app
    finally:
        server.close()
        thread.join()
        app.close()


def test_a_server_accepts_or_rejects_each_credential(tmp_path):
    """Each credential is tested without storing an event, and reported as accepted or not."""
    good, bad = private(tmp_path / "good", SECRET), private(tmp_path / "bad", SECRET.replace("Z", "Y"))
    token = private(tmp_path / "crm", TOKEN)
    config = tmp_path / "flowhooks.toml"
    config.write_text(
        f"[sources.erp]\nsecrets = [{{file = '{good}'}}]\n[sources.crm]\ntoken_file = '{token}'\n"
        f"[sources.far]\ntoken_sha256 = ['{hashlib.sha256(b'far').hexdigest()}']\nallow = ['10.0.0.0/8']\n"
    )
    with served(config) as (url, app):
        for name, how in (("erp", "signed with the secret in the file"), ("crm", "with the token in the file")):
            ran = run("sources", "test", name, "--to", url, FLOWHOOKS_TOKEN="far")  # of another source
            assert ran.exit_code == 0, ran.output
            assert "rejected: 401, as expected (without a credential)" in ran.output
            assert f"accepted as source {name} ({how}" in ran.output
            assert ran.output.count("accepted") == 1
        other = private(tmp_path / "other", "far")
        for name, why in (("erp", "erp has no token"), ("crm", "holds no token of crm")):
            ran = run("sources", "test", name, "--to", url, "--token-file", other)
            assert (ran.exit_code, why in ran.output) == (2, True), ran.output
        ran = run("sources", "test", "far", "--to", url, FLOWHOOKS_TOKEN="far")
        assert (ran.exit_code, "rejected: 403, the address is not allowed" in ran.output) == (1, True)
        ran = run("sources", "test", "far", "--to", url, FLOWHOOKS_TOKEN="other")
        assert (ran.exit_code, "holds no token of far" in ran.output) == (2, True)
        assert run("sources", "test", "far", "--to", url).exit_code == 2
        config.write_text(f"[sources.erp]\nsecrets = [{{file = '{good}'}}, {{file = '{bad}'}}]\n")
        ran = run("sources", "test", "erp", "--to", url)
        assert (ran.exit_code, ran.output.count("accepted as source erp")) == (1, 1)
        assert f"rejected: 401, the credential is not known (signed with the secret in the file {bad})" in ran.output
        sent = run("send", "s-1", "--to", url, "--async", "--secret-file", good)
        assert sent.exit_code == 0, sent.output
        assert run("send", "s-2", "--to", url, "--async", FLOWHOOKS_SECRET=SECRET).exit_code == 0
        ran = run("send", "s-1", "--to", url, "--async", "--secret-file", good, FLOWHOOKS_TOKEN="of-another")
        assert ran.exit_code == 0, ran.output
        assert run("send", "s-3", "--to", url, "--async", "--secret-file", bad).exit_code == 1
        with app.ledger.connection() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM events").scalar_one() == 2
        config.write_text(f"[sources.erp]\nsecrets = [{{file = '{good}'}}]\n")
        assert run("sources", "test", "erp", "--to", "http://127.0.0.1:9").exit_code == 1


@pytest.mark.parametrize(
    "token", ["a-token-of-two words", "a-token-of-€-and-ß-and-more", "token-of-the-crm\r\nX: which"]
)
def test_an_invalid_token_is_not_sent(tmp_path, token):
    """An invalid token is reported as at a start, and repeated nowhere, not even in a traceback."""
    config, file = tmp_path / "flowhooks.toml", private(tmp_path / "crm", "")
    file.write_bytes(token.encode())
    config.write_text(f"[sources.crm]\ntoken_file = '{private(tmp_path / 'good', TOKEN)}'\n")
    with served(config) as (url, _):
        config.write_text(f"[sources.crm]\ntoken_file = '{file}'\n")
        ran = run("sources", "test", "crm", "--to", url)
    assert (ran.exit_code, "sources.crm.token_file: the file does not hold a bearer token" in ran.output) == (2, True)
    assert not [word for word in ("of-two", "of-€", "of-the-crm") if word in ran.output]
    assert isinstance(ran.exception, SystemExit)


def test_an_expired_credential_is_not_tested(tmp_path):
    """An expired credential is not tested, because its rejection would look like that of an unknown one."""
    good, old = private(tmp_path / "good", SECRET), tmp_path / "old-and-deleted"
    config = tmp_path / "flowhooks.toml"
    config.write_text(f"[sources.erp]\nsecrets = [{{file = '{good}'}}]\n")
    with served(config) as (url, _):
        ended = f"{{file = '{old}', not_after = 2020-01-01T00:00:00Z}}"
        config.write_text(f"[sources.erp]\nsecrets = [{{file = '{good}'}}, {ended}]\n")
        ran = run("sources", "test", "erp", "--to", url)
        assert (ran.exit_code, ran.output.count("accepted as source erp")) == (0, 1)
        assert f"not tried: the secret in the file {old} has expired" in ran.output
        config.write_text(f"[sources.erp]\nsecrets = [{ended}]\n")
        ran = run("sources", "test", "erp", "--to", url)
        assert ran.exit_code == 2
        assert "all secrets of erp have expired: `flowhooks sources rotate erp`" in ran.output


def test_a_server_without_sources_accepts_any_credential(tmp_path):
    """A server without sources accepts any credential, which is reported."""
    config = tmp_path / "flowhooks.toml"
    config.write_text("")
    with served(config) as (url, _):
        config.write_text(f"[sources.erp]\nsecrets = [{{file = '{private(tmp_path / 'good', SECRET)}'}}]\n")
        ran = run("sources", "test", "erp", "--to", url)
    assert (ran.exit_code, "accepted: callbacks need no credential" in ran.output) == (1, True)


def test_send_needs_a_valid_secret(tmp_path):
    """Invalid secrets in the file or the variable are not repeated."""
    file = private(tmp_path / "f", "my-password")
    for ran in (
        run("send", "1", "--secret-file", file),
        run("send", "1", FLOWHOOKS_SECRET="my-password"),
        run("send", "1", "--secret-file", tmp_path / "none"),
    ):
        assert ran.exit_code == 2
        assert "my-password" not in ran.output
    Webhook(SECRET)


def test_check_reports_expired_credentials(tmp_path):
    """If the only credentials have expired, `check` fails; soon expiring ones are a note, unreadable ones a failure."""
    secret = private(tmp_path / "s", SECRET)
    config = tmp_path / "flowhooks.toml"

    def found(text):
        config.write_text(f"safe_mode = true\ndatabase = '{tmp_path}/t.db'\n{text}")
        listed = json.loads(run("check", "--json", E=SECRET.replace("Z", "Y")).stdout)["findings"]
        return [(finding["mark"], finding["what"]) for finding in listed if finding["about"] == "sources"]

    now = datetime.now(UTC)
    past, soon, later = ((now + timedelta(days=days)).isoformat() for days in (-1, 3, 300))
    section = f"[sources.erp]\nsecrets = [{{file = '{secret}', not_after = "
    assert found(f"{section}{past}}}]\n")[0] == ("problem", "every secret of erp has expired")
    assert found(f"{section}{soon}}}]\n")[0][0] == "note"
    assert found(f"{section}{soon}}}]\n")[0][1].startswith("the last secret of erp expires at")
    assert found(f"{section}{later}}}]\n") == [("ok", "1 source can send callbacks: erp")]
    assert found(f"{section}{past}}}, {{env = 'E'}}]\n")[0] == ("note", "a secret of erp has expired")
    assert found(f"listen = '0.0.0.0:1'\n{section}{later}}}]\n")[0][0] == "note"
    assert found(f"listen = '0.0.0.0:1'\nhttp.trusted_proxy = '10.0.0.1'\n{section}{later}}}]\n")[0][0] == "ok"
    secret.chmod(0o644)
    ((mark, what),) = found(f"{section}{later}}}]\n")
    assert (mark, "chmod o=" in what) == ("problem", True)
