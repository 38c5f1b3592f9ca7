"""The credentials of sources: their places and expiry times, never repeated in an error."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta, timezone

import pytest

from flowhooks import settings
from flowhooks.errors import SettingsError
from flowhooks.settings import Secret

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
TOKEN = "a-token-of-twenty-characters"
END = datetime(2026, 12, 31, tzinfo=UTC)


@pytest.fixture
def private(tmp_path):
    """A function that writes a file that only its owner can read."""

    def write(text, name="secret"):
        file = tmp_path / name
        file.touch(0o600)
        file.write_text(text)
        return file

    return write


@pytest.fixture
def load_errors(write_settings):
    """A function that returns the reason why a section [sources.erp] is refused."""

    def why(section):
        with pytest.raises(SettingsError) as caught:
            settings.load(write_settings(f"[sources.erp]\n{section}"), {}, {})
        return str(caught.value)

    return why


def test_all_credentials_and_limits_of_a_source(write_settings, private):
    """A source can have a token in a file, secrets in files and variables with expiry times, and limits."""
    token, secret = private(f"{TOKEN}\n", "token"), private(f"{SECRET}\r\n")
    path = write_settings(f"""
        [http]
        trusted_proxy = "::ffff:10.0.0.1"
        [sources.erp]
        token_file = "{token}"
        secrets = [
          {{ file = "{secret}" }},
          {{ env = "FLOWHOOKS_ERP", not_after = 2026-12-31T00:00:00Z }},
          {{ env = "OLD", not_after = "2026-12-31T01:00:00+01:00" }},
        ]
        rate = 50
        burst = 200
        max_body_bytes = 65536
    """)
    other = f"whsec_{base64.b64encode(KEY[::-1] * 2).decode().rstrip('=')}"
    environ = {"FLOWHOOKS_ERP": other, "OLD": f"whsec_{'A' * 32}"}
    loaded = settings.load(path, environ, {})
    erp = loaded.sources["erp"]
    assert erp.secrets == (
        Secret(file=str(secret)),
        Secret(env="FLOWHOOKS_ERP", not_after=END),
        Secret(env="OLD", not_after=END.astimezone(timezone(timedelta(hours=1)))),
    )
    assert (erp.rate, erp.burst, erp.max_body_bytes, loaded.http.trusted_proxy) == (50.0, 200, 65536, "10.0.0.1")
    known = settings.load_source_credentials(loaded, environ)["erp"]
    assert known.tokens == (hashlib.sha256(TOKEN.encode()).hexdigest(),)
    assert [signing_key.key for signing_key in known.keys] == [KEY, KEY[::-1] * 2, bytes(24)]
    assert [signing_key.not_after for signing_key in known.keys] == [None, *[int(END.timestamp()) * 1_000_000] * 2]
    for text in (repr(loaded), repr(known)):
        assert not [
            credential
            for credential in (TOKEN, SECRET, other, KEY.hex(), repr(KEY), known.tokens[0])
            if credential in text
        ]


@pytest.mark.parametrize(
    ("section", "says"),
    [
        (f"secrets = ['{SECRET}']", "sources.erp.secrets item 1 must be a table such as"),
        (f"secrets = '{SECRET}'", "must be a list, each a table such as"),
        (f"secrets = [{{file = '{SECRET}'}}]", "item 1 must have the path of a file in file"),
        (f"secrets = [{{env = '{SECRET}'}}]", "item 1 must have the name of an environment variable in env"),
        (f"secrets = [{{env = 'X', '{SECRET}' = 1}}]", "with no other members"),
        (f"secrets = [{{file = 'x', not_after = '{SECRET}'}}]", "must have a time with a time zone in not_after"),
        (f"secret = '{SECRET}'", "sources.erp.secret is not a setting; did you mean secrets?"),
        (f"token_file = ['{TOKEN}']", "sources.erp.token_file must be a file's path, not a list"),
        ("secrets = []", "the list is empty"),
        ("secrets = [{}]", "with no other members"),
        ("secrets = [{file = 'a', env = 'B'}]", "with no other members"),
        ("secrets = [{not_after = 2026-12-31T00:00:00Z}]", "with no other members"),
        ("secrets = [{file = 'a', not_after = 2026-12-31T00:00:00}]", "a time with a time zone"),
        ("secrets = [{file = 'a', not_after = 2026-12-31}]", "a time with a time zone"),
        ("secrets = [{file = 'a', not_after = 1}]", "a time with a time zone"),
        ("secrets = [{file = 'a', not_after = 9999-12-31T23:59:59-05:00}]", "a time from year 1 to year 9999 UTC"),
        ("secrets = [{file = 'a', not_after = 0001-01-01T00:00:00+01:00}]", "a time from year 1 to year 9999 UTC"),
        ("secrets = [{file = 1}]", "the path of a file"),
        ("secrets = [{env = 'A B'}]", "the name of an environment variable"),
        (f"secrets = [{', '.join(['{env = 0}'] * 9)}]", "at most 8"),
        ("token_file = 'x'\nrate = -1", "rate must be a number of callbacks per second, 0 to 1000000, not -1"),
        ("token_file = 'x'\nrate = nan", "rate must be a number of callbacks per second"),
        ("token_file = 'x'\nburst = 1.5", "burst must be a whole number"),
        ("token_file = 'x'\nmax_body_bytes = 0", "max_body_bytes must be a whole number, 1 to"),
        ("token_file = 'x'\nmax_body_bytes = 2000000", "but must be at most http.max_body_bytes, 1048576"),
    ],
)
def test_rejected_settings(load_errors, section, says):
    """The error names the allowed values, and repeats no possible credential."""
    why = load_errors(section)
    assert says in why
    assert SECRET not in why
    assert TOKEN not in why


@pytest.mark.parametrize("proxy", ["*", "10.0.0.0/8", "localhost", "10.0.0.1:80", "10.0.0.1, 10.0.0.2", "::g"])
def test_one_proxy_by_its_address(write_settings, proxy):
    """A trusted proxy is one address."""
    with pytest.raises(SettingsError, match="trusted_proxy must be one IP address"):
        settings.load(write_settings(f"[http]\ntrusted_proxy = '{proxy}'"), {}, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("password", "does not hold a Standard Webhooks secret"),
        (SECRET.removeprefix("whsec_"), "does not hold a Standard Webhooks secret"),
        (f"whsec_{base64.b64encode(KEY[:23]).decode()}", "does not hold a Standard Webhooks secret"),
        (f"whsec_{base64.b64encode(KEY * 3).decode()}", "does not hold a Standard Webhooks secret"),
        (f"{SECRET} ", "does not hold a Standard Webhooks secret"),
        (f"{SECRET}\n{SECRET}", "does not hold a Standard Webhooks secret"),
        (f"whsec_{SECRET[6:].replace('A', '*')}", "does not hold a Standard Webhooks secret"),
        ("whsec_" + "é" * 40, "does not hold a Standard Webhooks secret"),
    ],
)
def test_invalid_secrets_are_rejected_in_any_place(write_settings, private, text, says):
    """An invalid secret is refused in any place, and not repeated."""
    file = private(text)
    for place in (f"file = '{file}'", "env = 'ERP'"):
        loaded = settings.load(write_settings(f"[sources.erp]\nsecrets = [{{{place}}}]"), {}, {})
        with pytest.raises(SettingsError) as caught:
            settings.check_sources(loaded, {"ERP": text})
        assert says in str(caught.value)
        assert "sources.erp.secrets: the " in str(caught.value)
        assert not text or text not in str(caught.value)


def test_a_file_that_cannot_be_used(write_settings, private, tmp_path):
    """Each problem is a line: a missing file, one that all users can read, no token, no variable."""
    for_all = private(SECRET, "for-all")
    for_all.chmod(0o604)
    short = private("short", "short")
    path = write_settings(
        f"[sources.erp]\nsecrets = [{{file = '{tmp_path / 'none'}'}}, {{file = '{for_all}'}}, {{env = 'NONE'}}]\n"
        f"[sources.crm]\ntoken_file = '{short}'"
    )
    with pytest.raises(SettingsError) as caught:
        settings.check_sources(settings.load(path, {}, {}), {})
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["sources.erp.secrets"] * 3 + ["sources.crm.token_file"]
    for line, says in zip(
        lines, ("No such file", "chmod o=", "NONE is not set", "not hold a bearer token"), strict=True
    ):
        assert says in line


def test_a_credential_belongs_to_one_source(write_settings, private):
    """Two sources with the same secret or token are refused, in the settings or in files."""
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    file, secret = private(TOKEN, "token"), private(SECRET)
    both = (
        (f"token_file = '{file}'", f"[sources.crm]\ntoken_sha256 = ['{digest}']", "sources.erp and sources.crm"),
        (f"token_file = '{file}'", f"[sources.crm]\ntoken_file = '{file}'", "sources.erp and sources.crm"),
        (f"secrets = [{{file = '{secret}'}}]", "[sources.crm]\nsecrets = [{env = 'S'}]", "sources.erp and sources.crm"),
        (f"token_file = '{file}'", f"[operators.li]\nrole = 'view'\ntoken_sha256 = ['{digest}']", "operators.li and"),
    )
    for line, other, who in both:
        loaded = settings.load(write_settings(f"[sources.erp]\n{line}\n{other}"), {}, {})
        with pytest.raises(SettingsError, match=f"{who} .*have the same (token|secret)"):
            settings.check_sources(loaded, {"S": SECRET})
    loaded = settings.load(
        write_settings(f"[sources.erp]\ntoken_file = '{file}'\n[operators.li]\nrole = 'view'\ntoken_file = '{file}'"),
        {},
        {},
    )
    with pytest.raises(SettingsError, match="the same token"):
        settings.operator_tokens(loaded)


SCHEME = "[sources.erp.signature]\nscheme = '{}'\nheader = 'X-S'\n"
MAPPING = "[sources.erp.ingress]\nformat = 'json'\nflow_instance_id = '/id'\n"


@pytest.mark.parametrize("text", ["It's a Secret to Everybody", "0123456789abcdef", "x" * 1024, "密钥密钥密钥", SECRET])
@pytest.mark.parametrize("scheme", ["hmac-sha256", "hmac-sm3"])
def test_a_text_as_a_key(write_settings, private, text, scheme):
    """The secret of a source with a signature scheme is a text, and its bytes are the key; also one like `whsec_…`."""
    config = f"[sources.erp]\nsecrets = [{{file = '{private(text)}'}}, {{env = 'S'}}]\n{MAPPING}{SCHEME.format(scheme)}"
    known = settings.load_source_credentials(settings.load(write_settings(config), {}, {}), {"S": f"{text[:1023]}-"})[
        "erp"
    ]
    assert known.keys[0].key == text.encode()
    assert len(known.keys) == 2
    assert text not in repr(known)


@pytest.mark.parametrize(
    "text", ["", "fifteen-bytes-1", "x" * 1025, "two lines of a text\nas a key", "a text\x85with a break"]
)
def test_a_text_that_is_no_key(write_settings, private, text):
    """A text that is too short or too long, or has several lines, is refused and not repeated."""
    config = f"[sources.erp]\nsecrets = [{{file = '{private(text)}'}}]\n{MAPPING}{SCHEME.format('hmac-sha256')}"
    with pytest.raises(SettingsError) as caught:
        settings.check_sources(settings.load(write_settings(config), {}, {}), {})
    says = "does not hold a secret of 16 to 1024 bytes" if text else "is empty"
    assert str(caught.value).startswith("sources.erp.secrets: the file ")
    assert says in str(caught.value)
    assert not text or text not in str(caught.value)
