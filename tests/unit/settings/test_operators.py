"""Operators in the settings: their credentials, refused values, and no repeated secret."""

from __future__ import annotations

import hashlib

import pytest

from flowhooks import settings
from flowhooks.errors import SettingsError

TOKEN = "Zx9-kQ_a_token_that_nobody_may_ever_see_"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()
PASSWORD = "$argon2id$v=19$m=65536,t=3,p=4$lhvv5z4A70sVthXMZl60ew$d5vAFqxHwgX2fzPCNqS7QCZM7SLV6dGd6Wt48K+YzKM"


def load_errors(path):
    """All problems of a file, one per line, without a secret."""
    with pytest.raises(SettingsError) as caught:
        settings.check_operators(settings.load(path, {}, {}))
    text = str(caught.value)
    for secret in (TOKEN, DIGEST, "hunter2", "d5vAFq"):
        assert secret not in text
    return text


def test_operators_are_read(write_settings, tmp_path):
    """An operator has a password, token hashes or a token file; the repr has none of them."""
    file = tmp_path / "token"
    file.write_text("another-token-of-twenty-characters\n")
    file.chmod(0o640)
    loaded = settings.load(
        write_settings(f"""
        [operators.li]
        role = "operate"
        password = "{PASSWORD}"
        [operators.prometheus]
        role = "view"
        token_sha256 = ["{DIGEST.upper()}"]
        token_file = "{file}"
        """),
        {},
        {},
    )
    assert loaded.operators["li"] == settings.OperatorSettings(role="operate", password=PASSWORD)
    tokens = settings.operator_tokens(loaded)
    assert tokens == {DIGEST: "prometheus", hashlib.sha256(file.read_bytes().strip()).hexdigest(): "prometheus"}
    settings.check_operators(loaded)
    assert PASSWORD not in repr(loaded)
    assert DIGEST not in repr(loaded)
    file.write_text("a-third-token-which-takes-its-place")
    assert settings.operator_tokens(loaded) != tokens


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ('role = "operate"', "has no password, token_sha256 or token_file"),
        (f'password = "{PASSWORD}"', "has no role"),
        (f'role = "admin"\npassword = "{PASSWORD}"', "there is no such role"),
        ('role = "view"\npassword = "hunter2"', "not the password itself"),
        ('role = "view"\npassword = ["hunter2"]', "not the password itself"),
        (f'role = "view"\npassword = "{PASSWORD}x="', "not the password itself"),
        (f'role = "view"\npassword = "{PASSWORD[:-1]}N"', "not the password itself"),
        (f'role = "view"\npassword = "{PASSWORD.replace("m=65536", "m=9999999")}"', "m is at most 262144"),
        (f'role = "view"\npassword = "{PASSWORD.replace("t=3", "t=99")}"', "t at most 20"),
        (f'role = "view"\npassword = "{PASSWORD.replace("argon2id", "argon2i")}"', "not the password itself"),
        (f'role = "view"\ntoken_sha256 = ["{TOKEN}"]', "not the token itself"),
        ('role = "view"\ntoken_sha256 = []', "the list is empty"),
        (f'role = "view"\ntoken = "{TOKEN}"', "operators.li.token is not a setting"),
        (f'role = "view"\npasword = "hunter2"\npassword = "{PASSWORD}"', "did you mean password"),
        ('role = "view"\ntoken_file = ""', "a file's path"),
        ('role = "view"\ntoken_file = "/nowhere/token"', "cannot be read"),
    ],
)
def test_invalid_operators(write_settings, section, says):
    """Each error names the operator and the fault."""
    found = load_errors(write_settings(f"[operators.li]\n{section}"))
    assert says in found
    assert "operators.li" in found


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (TOKEN, 0o644, "chmod o="),
        (TOKEN, 0o602, "chmod o="),
        ("too-short", 0o600, "not hold a bearer token"),
        (f"{TOKEN} {TOKEN}", 0o600, "not hold a bearer token"),
        (f"{TOKEN}\n{TOKEN}\n", 0o600, "not hold a bearer token"),
        (f"{TOKEN}令牌", 0o600, "not hold a bearer token"),
        ("a" * 1025, 0o600, "not hold a bearer token"),
        ("", 0o600, "is empty"),
        (TOKEN.encode() + b"\xff", 0o600, "not UTF-8"),
        (None, 0o700, "cannot be read"),
    ],
)
def test_unusable_token_files_are_rejected(write_settings, tmp_path, content, mode, says):
    """A file that all users can read or that has no token is refused; its content is not repeated."""
    file = tmp_path / "token"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    file.chmod(mode)
    found = load_errors(write_settings(f'[operators.li]\nrole = "view"\ntoken_file = "{file}"'))
    assert says in found
    assert "operators.li.token_file" in found


def test_a_token_belongs_to_one_operator(write_settings, tmp_path):
    """Two operators with one token are refused, in any place, and so is an engine's token for an operator."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    section = f'[operators.li]\nrole = "view"\ntoken_sha256 = ["{DIGEST}"]\n'
    assert "operators li and wang" in load_errors(write_settings(section + section.replace("li", "wang")))
    assert "sources erp and operators li" in load_errors(
        write_settings(f'[sources.erp]\ntoken_sha256 = ["{DIGEST}"]\n{section}')
    )
    assert "have the same token" in load_errors(
        write_settings(f'{section}[operators.wang]\nrole = "view"\ntoken_file = "{file}"\n')
    )


def test_operators_are_only_in_the_file():
    """Operators have no variable, and a similar variable is refused with the remedy."""
    with pytest.raises(SettingsError, match=r"write \[operators.NAME\] in the settings file"):
        settings.load(None, {"FLOWHOOKS_OPERATORS_LI_ROLE": "view"}, {})


def test_a_password_needs_a_package(monkeypatch, write_settings):
    """Without the package for passwords the settings are refused with its name."""
    monkeypatch.setattr("flowhooks.settings.tokens.find_spec", lambda name: None)
    assert "pip install 'flowhooks[operators]'" in load_errors(
        write_settings(f'[operators.li]\nrole = "view"\npassword = "{PASSWORD}"')
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://Ops.example.com", "https://ops.example.com"),
        ("HTTPS://ops.example.com:443/", "https://ops.example.com"),
        ("http://10.0.0.7:8081", "http://10.0.0.7:8081"),
        ("http://[2001:db8::1]:80", "http://[2001:db8::1]"),
        ("", ""),
    ],
)
def test_the_address_of_the_console(given, kept):
    """The address has the form in which browsers send `Origin`."""
    assert settings.load(None, {}, {"public_url": given}).public_url == kept


@pytest.mark.parametrize(
    "given",
    [
        *("ops.example.com", "ftp://ops.example.com", "https://", "https://ops.example.com/console", "https://a b"),
        *("https://li:hunter2@ops.example.com", "https://ops.example.com?x", "https://ops.example.com:99999"),
        *("https://ops.example.com\r\nX: y", "https://例子.example", "https://[::1", "https://2130706433"),
    ],
)
def test_invalid_console_addresses(given):
    """Anything other than a plain address of a host is refused."""
    with pytest.raises(SettingsError, match="public_url"):
        settings.load(None, {}, {"public_url": given})
