"""Secrets in a plugin's section: their places, errors for unreadable ones, and masks."""

from __future__ import annotations

import json
import os
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowhooks.errors import SettingsError
from flowhooks.settings import Settings, load
from flowhooks.settings.secrets import (
    MAX_SECRET_BYTES,
    SettingsRedactor,
    location_text,
    redactor,
    resolve_secrets,
    settings_redactor,
)

VALUE = "s3cr3t-värde"


@pytest.fixture(autouse=True)
def _private_files():
    """Files that a test writes are its user's alone."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def look_up(section, environ=None):
    """A section of the plugin `hooks`, with its secrets."""
    return resolve_secrets(section, plugin="hooks", environ=environ or {})


def refusal(section, environ=None):
    """The reason why the section's secrets cannot be read: one line without the value."""
    with pytest.raises(SettingsError) as raised:
        look_up(section, environ)
    message = str(raised.value)
    assert message.isprintable()
    assert VALUE not in message
    return message


@pytest.mark.parametrize(("mode", "accepted"), [(0o644, False), (0o602, False), (0o640, True), (0o400, True)])
def test_a_file_must_be_private(tmp_path, mode, accepted):
    """A file that every user of the machine can read or write is refused, as for other secrets, and still masked."""
    file = tmp_path / "token"
    file.write_text(VALUE, "utf-8")
    file.chmod(mode)
    section = {"token": {"file": str(file)}}
    if accepted:
        assert look_up(section)[1] == {VALUE}
    else:
        assert "can be read or written by every user of this machine; restrict it with chmod o=" in refusal(section)
    assert settings_redactor(Settings(plugins={"hooks": section}), {})(VALUE) == "…"


def test_secrets_from_the_environment_and_from_a_file(tmp_path):
    """Tables at any depth, also in lists, are replaced; other values and the input do not change."""
    file = tmp_path / "token"
    file.write_text(f"{VALUE}\n", "utf-8")
    section = {
        "token": {"file": str(file)},
        "endpoints": [{"url": "https://example.com", "secret": {"env": "HOOKS"}}, [{"env": "HOOKS"}]],
        "deep": {"er": {"env": "HOOKS"}},
        "number": 3,
    }
    before = json.dumps(section)
    found, secrets = look_up(section, {"HOOKS": "in the environment"})
    assert found == {
        "token": VALUE,
        "endpoints": [{"url": "https://example.com", "secret": "in the environment"}, ["in the environment"]],
        "deep": {"er": "in the environment"},
        "number": 3,
    }
    assert secrets == {VALUE, "in the environment"}
    assert json.dumps(section) == before
    found["endpoints"][0]["url"] = "changed"
    assert json.dumps(section) == before


@pytest.mark.parametrize(
    "table",
    [{"env": "X", "default": "y"}, {"environment": "X"}, {"env": 3}, {"file": ["a"]}, {}, {"env": {"name": "X"}}],
)
def test_other_tables_are_unchanged(table):
    """A plugin's own tables may have members of these names."""
    assert look_up({"a": table}, {"X": VALUE}) == ({"a": table}, set())


def test_the_section_itself_is_no_secret():
    """A section whose only setting is `env` is a section."""
    assert look_up({"env": "X"}, {"X": VALUE}) == ({"env": "X"}, set())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("one", "one"),
        ("one\n", "one"),
        ("one\r\n", "one"),
        ("one\n\n", "one\n"),
        (" one ", " one "),
        ("a\nb\n", "a\nb"),
    ],
)
def test_one_line_end_is_removed(content, expected, tmp_path):
    """One line end, which editors add to a file, is removed, and nothing else."""
    (tmp_path / "s").write_bytes(content.encode())
    assert look_up({"s": {"file": str(tmp_path / "s")}})[0] == {"s": expected}


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({}, "the environment variable HOOKS is not set; set it in the environment of flowhooks"),
        ({"HOOKS": ""}, "the environment variable HOOKS is empty; set it in the environment of flowhooks"),
        ({"HOOKS": "\udcff"}, "the environment variable HOOKS is not UTF-8; set it to text"),
    ],
)
def test_an_invalid_variable_is_reported(environ, why):
    """The error has the place, the variable and the remedy."""
    section = {"endpoints": [{"secret": {"env": "HOOKS"}}]}
    assert refusal(section, environ) == f"[plugins.hooks] endpoints[0].secret: {why}"


def test_an_invalid_file_is_reported(tmp_path):
    """A missing, empty, binary, large or irregular file is named with the remedy."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(VALUE.encode() + b"\xff")
    (tmp_path / "bom").write_text(f"\ufeff{VALUE}", "utf-8")
    (tmp_path / "large").write_text(VALUE * MAX_SECRET_BYTES)
    os.mkfifo(tmp_path / "pipe")
    for name, why in {
        "none": "cannot be read: No such file or directory; write the secret into it",
        "empty": "is empty; write the secret into it",
        "binary": "is not UTF-8 at byte 14; a secret must be text",
        "bom": "starts with a byte order mark; save it as UTF-8 without one",
        "large": "has more than 65536 bytes; give a file that holds only the secret",
        "pipe": "is not a regular file; give a file that holds only the secret",
        ".": "",
    }.items():
        said = refusal({"key": {"file": str(tmp_path / name)}})
        assert said.startswith(f"[plugins.hooks] key: the file {tmp_path / name} ")
        assert said.endswith(why)
    assert "Is a directory" in said or "not a regular file" in said
    assert "NUL" in refusal({"key": {"file": "a\0b"}})
    assert "not an empty string" in refusal({"key": {"env": ""}})


def test_a_file_of_the_maximum_size_is_accepted(tmp_path):
    """A file of exactly the maximum size is accepted."""
    (tmp_path / "s").write_text("x" * MAX_SECRET_BYTES)
    assert look_up({"s": {"file": str(tmp_path / "s")}})[1] == {"x" * MAX_SECRET_BYTES}


def test_the_home_folder(tmp_path, monkeypatch):
    """`~` is the home folder, as in other paths of the settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "s").write_text(VALUE)
    assert look_up({"s": {"file": "~/s"}})[0] == {"s": VALUE}


def test_every_secret_that_is_missing_is_named():
    """One start reports all missing secrets."""
    said = refusal({"a": {"env": "A"}, "b c": {"d": {"env": "B"}}})
    assert said.split("; ")[::2] == [
        "[plugins.hooks] a: the environment variable A is not set",
        "[plugins.hooks] 'b c'.d: the environment variable B is not set",
    ]


def test_places():
    """A place is written as in the settings file."""
    assert location_text("p", ()) == "[plugins.p]"
    assert location_text("p", ("a", 0, 1, "b-c", "d e")) == "[plugins.p] a[0][1].b-c.'d e'"


def test_a_variable_of_a_secret_is_no_unknown_setting(tmp_path):
    """A secret's variable may begin with FLOWHOOKS_, unlike other unknown variables."""
    file = tmp_path / "flowhooks.toml"
    file.write_text('[plugins.hooks]\nendpoints = [{secret = {env = "FLOWHOOKS_HOOKS"}}]\n')
    assert load(file, {"FLOWHOOKS_HOOKS": VALUE}, {}).plugins == {
        "hooks": {"endpoints": [{"secret": {"env": "FLOWHOOKS_HOOKS"}}]}
    }
    with pytest.raises(SettingsError, match="FLOWHOOKS_HOOK is not a setting"):
        load(file, {"FLOWHOOKS_HOOK": VALUE}, {})


def test_masks():
    """A secret is masked anywhere, longer ones first; one of three characters is not."""
    conceal = redactor(["hunter2", "hunter2-long", "abc"])
    assert conceal("x hunter2-long hunter2hunter2 abc") == "x … …… abc"
    assert redactor([])("anything") == "anything"
    assert redactor(["abc", "    "])("abc     ") == "abc     "


@pytest.mark.parametrize(
    "write",
    [
        str,
        repr,
        json.dumps,
        lambda secret: json.dumps(secret, ensure_ascii=False),
        ascii,
        quote,
        lambda secret: quote(secret, safe=""),
        lambda secret: " ".join(secret.split()),
        lambda secret: "\n".join(f"  | {line}" for line in secret.splitlines()),
    ],
)
def test_masks_of_an_escaped_secret(write):
    """A secret is found if it is escaped, in a URL, on one line or indented."""
    secret = "begin \"key/ä' of sixteen\n\tand a second line, longer\\"
    assert not {"begin", "sixteen", "second"} & set(redactor([secret])(f"got {write(secret)}!").split())


@pytest.mark.parametrize("secret", ["ab'cdef", 'ab"cdef', "ab\\cdef", "äb'cdef"])
@pytest.mark.parametrize(
    "write",
    [
        lambda secret: repr(f'"{secret}"'),
        lambda secret: ascii(f'"{secret}"'),
        lambda secret: repr(f'"{secret}"'.encode()),
        lambda secret: repr(json.dumps({"password": secret, "it's": 1})),
        lambda secret: repr(json.dumps({"password": secret}, ensure_ascii=False).encode()),
        lambda secret: json.dumps(json.dumps({"password": secret})),
    ],
)
def test_masks_of_a_secret_in_an_escaped_text(secret, write):
    """A secret is found in the `repr` of a text with other quotes, and in JSON within such a text."""
    assert "cdef" not in redactor([secret])(write(secret))


@given(st.text(min_size=4).filter(lambda text: len(text.strip()) >= 4), st.text(), st.text())
def test_no_secret_is_left(secret, before, after):
    """Any secret is masked between any text."""
    assert secret not in redactor([secret])(before + secret + after)


def test_readable_secrets_are_masked_beside_unreadable_secrets(tmp_path):
    """A mask for whole sections masks the readable secrets even if others are unreadable."""
    (tmp_path / "token").write_text("from-a-file\n")
    sections = {
        "a": {"token": {"env": "NOT_SET"}, "deep": [{"url": {"env": "URL"}}], "file": {"file": "/no/such"}},
        "b": {"token": {"file": str(tmp_path / "token")}, "plain": "in-the-settings"},
    }
    conceal = settings_redactor(
        Settings(plugins=sections), {"URL": "https://me:secret@example.com", "OTHER": "other-value"}
    )
    said = "https://me:secret@example.com from-a-file in-the-settings other-value NOT_SET"
    assert conceal(said) == "… … in-the-settings other-value NOT_SET"


def test_secrets_of_earlier_settings_are_masked(tmp_path):
    """The secrets of all settings are masked, also those of a reload between the first and the last one."""
    token = tmp_path / "token"
    settings = Settings(plugins={"p": {"token": {"file": str(token)}}})
    secrets = ["first-secret", "second-secret", "third-secret"]
    redact = SettingsRedactor({})
    for secret in secrets:
        token.write_text(secret)
        redact.add(settings)
    assert redact(" ".join(secrets)) == "… … …"
