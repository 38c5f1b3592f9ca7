"""The section [sources.NAME.engine]: its values, its secrets, and checks that concern several sources."""

from __future__ import annotations

import base64
import re

import pytest

from flowhooks import settings
from flowhooks.settings import EngineSettings, Secret
from flowhooks.settings.secrets import read_engine_secrets, settings_redactor

ENGINE = 'client = "fake"\nurl = "http://oa.internal:8080/rest/"'


def test_every_setting_is_read(write_settings):
    """Each setting is read; times may have a unit; a pull-only source needs no credential."""
    loaded = settings.load(
        write_settings(f"""
            [sources.oa]
            silent_after = "1d"
            former_names = ["default"]
            [sources.oa.engine]
            {ENGINE}
            username = "rest"
            password = {{env = "FLOWHOOKS_OA"}}
            reconcile_every = "5m"
            grace = 30
            variables = ["amount"]
            tenants = ["north"]
        """),
        {"FLOWHOOKS_OA": "s3cret"},
        {},
    )
    oa = loaded.sources["oa"]

    assert (oa.silent_after, oa.former_names, oa.has_credential) == (86_400.0, ("default",), False)
    assert oa.engine == EngineSettings(
        client="fake",
        url="http://oa.internal:8080/rest",
        username="rest",
        password=Secret(env="FLOWHOOKS_OA"),
        reconcile_every=300.0,
        grace=30.0,
        variables=("amount",),
        tenants=("north",),
    )
    assert loaded.calling_sources == {}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[sources.oa]\nengine = 1", "sources.oa.engine must be a section, [sources.oa.engine], not 1"),
        ('[sources.oa.engine]\nurl = "http://x"', "sources.oa.engine has no client, the name of an engine client"),
        ('[sources.oa.engine]\nclient = "fake"', "sources.oa.engine has no url, the engine's base URL"),
        (
            f'[sources.oa.engine]\n{ENGINE}\nusername = "u"\ntoken = {{env = "T"}}',
            "sources.oa.engine has a token, and a username or a password: give one of the two",
        ),
        (
            f'[sources.oa.engine]\n{ENGINE}\npassword = "s3cret"',
            (
                'sources.oa.engine.password must be a table such as {file = "PATH"} or {env = "NAME"}, not the secret '
                "itself"
            ),
        ),
        (
            f'[sources.oa.engine]\n{ENGINE}\ngrace = "2 minutes"',
            (
                "sources.oa.engine.grace must be a number of seconds, 0 to 86400, or a text such as "
                '"30s", "5m", "2h" or "1d", not \'2 minutes\''
            ),
        ),
        (f"[sources.oa.engine]\n{ENGINE}\ngrase = 3", "sources.oa.engine.grase is not a setting; did you mean grace?"),
    ],
)
def test_rejected_settings(load_errors, content, says):
    """Each mistake is one line, which never repeats a secret."""
    (error,) = load_errors(content)
    assert re.fullmatch(rf"flowhooks\.toml:\d+: {re.escape(says)}", error), error


@pytest.mark.parametrize(
    ("credential", "says"),
    [
        ('password = {env = "P"}', "has a password, but no username, so no credential would be sent: add username"),
        (
            'username = "a:b"\npassword = {env = "P"}',
            ".username has a colon, which HTTP Basic authentication does not allow",
        ),
    ],
)
def test_a_credential_that_no_engine_accepts(load_errors, credential, says):
    """A user for HTTP Basic authentication has a name without a colon."""
    (line,) = load_errors(f"[sources.oa.engine]\n{ENGINE}\n{credential}")
    assert line.removeprefix("sources.oa.engine").strip() == says


@pytest.mark.parametrize("url", ["http://oa/rest?", "http://oa/rest#", "http://oa/rest?a=1", "http://u@oa/rest"])
def test_a_url_to_which_no_path_can_be_appended(load_errors, url):
    """An empty query is refused, too: the paths of the engine would become part of it."""
    (line,) = load_errors(f'[sources.oa.engine]\nclient = "fake"\nurl = "{url}"')
    assert line.endswith(", without a user, a password, a query and a fragment")


@pytest.mark.parametrize("name", ["businessKey", "conclusion", "endTime"])
def test_a_variable_may_not_replace_a_standard_member(load_errors, name):
    """A variable with the name of a member that every taken-in event has is refused."""
    (line,) = load_errors(f'[sources.oa.engine]\n{ENGINE}\nvariables = ["amount", "{name}"]')
    assert line.startswith(f"sources.oa.engine.variables has {name}, which is a member of every event")


@pytest.mark.parametrize(
    ("first", "second", "is_refused"),
    [
        ("", "", True),
        ('tenants = ["a"]', "", True),
        ('tenants = ["a", "b"]', 'tenants = ["b", "c"]', True),
        ('tenants = ["a"]', 'tenants = ["b"]', False),
    ],
)
def test_two_sources_may_not_read_the_same_instances(write_settings, load_errors, first, second, is_refused):
    """Two sources on one URL with overlapping tenants are refused; with separate tenants they are not."""
    content = f'[sources.oa.engine]\n{ENGINE}\n{first}\n[sources.crm.engine]\nclient = "other"\nurl = "http://OA.internal:8080/rest"\n{second}'
    if not is_refused:
        assert set(settings.load(write_settings(content), {}, {}).sources) == {"oa", "crm"}
        return
    (line,) = load_errors(content)
    assert line.startswith("sources.oa.engine and sources.crm.engine have the same url and read the same tenants")


def test_other_urls_do_not_overlap(write_settings):
    """The same path on another port is another engine."""
    content = f'[sources.a.engine]\n{ENGINE}\n[sources.b.engine]\nclient = "fake"\nurl = "http://oa.internal/rest"'
    assert len(settings.load(write_settings(content), {}, {}).sources) == 2


@pytest.mark.parametrize(
    ("oa", "crm", "says"),
    [
        ('["crm"]', "[]", "sources.oa.former_names has crm, which is the name of another source: remove it"),
        ('["oa"]', "[]", "sources.oa.former_names has oa, which is this source's own name: remove it"),
        ('["x"]', '["x"]', "sources.oa.former_names and sources.crm.former_names both have x: remove one"),
    ],
)
def test_former_names_belong_to_one_source(load_errors, oa, crm, says):
    """A former name that is another source's name, now or formerly, is refused."""
    engines = {name: f'[sources.{name}.engine]\nclient = "fake"\nurl = "http://{name}"' for name in ("oa", "crm")}
    assert load_errors(
        f"[sources.oa]\nformer_names = {oa}\n{engines['oa']}\n[sources.crm]\nformer_names = {crm}\n{engines['crm']}"
    ) == [says]


def test_secrets_are_read_and_masked():
    """The password, the token and what HTTP Basic authentication sends are masked in every text."""
    engine = EngineSettings(client="fake", url="http://x", username="rest", password=Secret(env="PASSWORD"))
    other = EngineSettings(client="fake", url="http://y", token=Secret(env="TOKEN"))
    environ = {"PASSWORD": "s3cret-pass", "TOKEN": "s3cret-token"}
    sources = {"a": settings.Source(engine=engine), "b": settings.Source(engine=other)}
    redact = settings_redactor(settings.Settings(sources=sources), environ)
    basic = base64.b64encode(b"rest:s3cret-pass").decode()

    assert read_engine_secrets(engine, environ) == {"password": "s3cret-pass", "basic": basic}
    assert redact(f"s3cret-pass s3cret-token Basic {basic}") == "… … Basic …"
    with pytest.raises(ValueError, match="password: the environment variable PASSWORD is not set"):
        read_engine_secrets(engine, {})
