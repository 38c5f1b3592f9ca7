"""The settings themselves: their reference, and the check of public listeners."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest

from flowhooks import settings
from flowhooks.errors import SettingsError

SOURCES = {"erp": settings.Source(token_sha256=("a3" * 32,))}
PULL_ONLY = {"oa": settings.Source(engine=settings.EngineSettings(client="fake", url="http://oa"))}


def test_reference():
    """Every setting has a unique name, a type, a default as TOML, a variable and one line of text."""
    described = list(settings.describe())

    assert len({setting.name for setting in described}) == len(described) == 127
    for described_setting in described:
        assert described_setting.type
        assert described_setting.doc.endswith(".")
        assert "\n" not in described_setting.doc
        if described_setting.default:
            tomllib.loads(f"x = {described_setting.default}")
        if described_setting.variable:
            assert described_setting.variable == "FLOWHOOKS_" + described_setting.name.upper().replace(".", "_")
    assert (
        settings.SettingReference(
            name="http.threads",
            type="a whole number, 1 to 1000",
            default="16",
            variable="FLOWHOOKS_HTTP_THREADS",
            doc="Threads that answer callbacks. A thread that waits for handlers or a receiver does not count.",
        )
        in described
    )
    assert [setting.name for setting in described if not setting.variable] == [
        *(f"alerts.routes.NAME.{member}" for member in ("notifiers", "handlers", "causes", "severity")),
        *(f"sources.NAME.{member}" for member in ("token_sha256", "token_file", "secrets")),
        *(f"sources.NAME.{member}" for member in ("allow", "rate", "burst", "conclusion", "max_body_bytes")),
        *(f"sources.NAME.{member}" for member in ("silent_after", "former_names", "answer_wait", "ignore_pointers")),
        *(f"sources.NAME.engine.{member}" for member in ("client", "url", "username", "password", "token", "timeout")),
        *(f"sources.NAME.engine.{member}" for member in ("page_size", "reconcile_every", "grace", "kinds", "children")),
        *(f"sources.NAME.engine.{member}" for member in ("conclusion_from", "conclusion_variable", "class_variable")),
        *(f"sources.NAME.engine.{member}" for member in ("variables", "tenants", "max_new")),
        *(f"sources.NAME.ingress.{member}" for member in ("format", "flow_instance_id", "process_definition_key")),
        *(f"sources.NAME.ingress.{member}" for member in ("process_definition_id", "process_definition_version")),
        *(
            f"sources.NAME.ingress.{member}"
            for member in ("business_key", "call_back_process_class", "kind", "conclusion")
        ),
        *(f"sources.NAME.ingress.{member}" for member in ("answer", "receiver")),
        *(f"sources.NAME.signature.{member}" for member in ("scheme", "header", "encoding", "prefix")),
        *(f"sources.NAME.signature.{member}" for member in ("timestamp_header", "id_header")),
        "operators.NAME.role",
        "operators.NAME.password",
        "operators.NAME.token_sha256",
        "operators.NAME.token_file",
        *(f"roles.NAME.{member}" for member in ("may", "plugins", "masked")),
        *(
            f'handlers."PLUGIN:NAME".{member}'
            for member in ("isolation", "timeout", "memory_mib", "circuit_breaker_failures")
        ),
        "plugins.NAME",
    ]


def test_variables_are_unambiguous():
    """No two settings share an environment variable."""
    variables = [setting.variable for setting in settings.describe() if setting.variable]

    assert len(set(variables)) == len(variables)


def test_every_field_is_documented():
    """Each field of each section has its line."""
    for field in dataclasses.fields(settings.Settings):
        assert field.metadata["doc"]


def test_settings_are_immutable():
    """Settings are immutable."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.Settings().answer_wait = 1  # type: ignore[misc] # what mypy refuses is what is tried


@pytest.mark.parametrize(
    ("listen", "admin", "sources", "public"),
    [
        ("127.0.0.1:1", "[::1]:2", {}, []),
        ("localhost:1", "127.0.0.2:2", {}, []),
        ("0.0.0.0:1", "127.0.0.1:2", {}, ["listen"]),
        ("0.0.0.0:1", "127.0.0.1:2", SOURCES, []),
        ("0.0.0.0:1", "127.0.0.1:2", PULL_ONLY, ["listen"]),
        ("0.0.0.0:1", "127.0.0.1:2", PULL_ONLY | SOURCES, []),
        ("0.0.0.0:1", "[::]:2", {}, ["listen", "admin"]),
        ("0.0.0.0:1", "[::]:2", SOURCES, ["admin"]),
        ("127.0.0.1:1", "10.0.0.1:2", SOURCES, ["admin"]),
        ("[::ffff:127.0.0.1]:1", "[::ffff:10.0.0.1]:2", SOURCES, ["admin"]),
        ("some-name:1", "localhost:2", {}, ["listen"]),
    ],
)
def test_public_binds(listen, admin, sources, public):
    """A public listener without a credential is refused with a remedy, unless `insecure` is set."""
    given = settings.Settings(listen=listen, admin=admin, sources=sources)

    assert given.public_without_credential() == public
    settings.check_binds(dataclasses.replace(given, insecure=True))
    if not public:
        settings.check_binds(given)
        return
    with pytest.raises(SettingsError) as caught:
        settings.check_binds(given)
    lines = str(caught.value).split("\n")
    assert [line.split(" ")[0] for line in lines] == public
    assert all("--insecure" in line and "127.0.0.1" in line for line in lines)
    assert all(("[operators.NAME]" in line) == line.startswith("admin") for line in lines)
    operated = dataclasses.replace(given, operators={"li": settings.OperatorSettings(role="view", token_file="t")})
    assert operated.public_without_credential() == [name for name in public if name != "admin"]
    assert all(("[sources.NAME]" in line) == line.startswith("listen") for line in lines)


def test_a_reload_that_leaves_only_pull_only_sources_is_rejected():
    """A reload that leaves only pull-only sources is refused like one that leaves none; the reverse is allowed."""
    before, after = settings.Settings(sources=PULL_ONLY | SOURCES), settings.Settings(sources=PULL_ONLY)

    with pytest.raises(SettingsError, match="no source any more, but erp may send callbacks"):
        settings.check_removed(before, after)
    settings.check_removed(after, settings.Settings())
    settings.check_removed(before, settings.Settings(sources=SOURCES))
