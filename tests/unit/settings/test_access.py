"""The section [login]: what it may contain, and what is refused."""

from __future__ import annotations

import pytest

from flowhooks import settings
from flowhooks.errors import SettingsError


def test_login_through_a_proxy(write_settings):
    """The section names the proxy, its headers, and the role of each group in their order."""
    loaded = settings.load(
        write_settings("""
        [login]
        proxy = "::ffff:10.0.0.5"
        user_header = "Remote-User"
        groups_header = "Remote-Groups"
        groups_separator = "|"
        [login.groups]
        ops = "operate"
        "cn=dev,dc=example" = "view"
        """),
        {},
        {},
    )
    assert loaded.login == settings.LoginSettings(
        proxy="10.0.0.5",
        user_header="Remote-User",
        groups_header="Remote-Groups",
        groups_separator="|",
        groups={"ops": "operate", "cn=dev,dc=example": "view"},
    )
    assert list(loaded.login.groups) == ["ops", "cn=dev,dc=example"]
    assert loaded.requires_login
    assert loaded.credentials("operators") == {"login.proxy"}


def test_groups_from_the_environment(write_settings):
    """The environment has the groups as pairs."""
    environ = {"FLOWHOOKS_LOGIN_PROXY": "10.0.0.5", "FLOWHOOKS_LOGIN_GROUPS": "ops=operate, dev team=view"}
    loaded = settings.load(write_settings(""), environ, {})
    assert loaded.login.groups == {"ops": "operate", "dev team": "view"}


def test_without_the_section():
    """By default no proxy logs anybody in, and no log-in is required."""
    assert not settings.Settings().requires_login
    assert settings.Settings().login.proxy == ""


def test_a_login_proxy_protects_a_public_listener():
    """A listener that other machines reach is not open if a proxy logs operators in."""
    login = settings.LoginSettings(proxy="10.0.0.5", groups={"ops": "operate"})
    given = settings.Settings(admin="0.0.0.0:8081", login=login)
    assert given.public_without_credential() == []
    with pytest.raises(SettingsError, match="no operator"):
        settings.check_removed(given, settings.Settings())


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ('proxy = "10.0.0.0/8"', "login.proxy must be one IP address"),
        ('proxy = "proxy.example"', "login.proxy must be one IP address"),
        ('proxy = "10.0.0.5"', "login.groups has no group, so nobody could log in"),
        ('groups = {ops = "operate"}', "login.groups has no effect without login.proxy"),
        ('proxy = "10.0.0.5"\ngroups = {ops = "admin"}', "there is no such role"),
        ('proxy = "10.0.0.5"\ngroups = {ops = 1}', "must be a role's name"),
        ('proxy = "10.0.0.5"\ngroups = {"" = "view"}', "must not have the group"),
        ('proxy = "10.0.0.5"\ngroups = {" ops" = "view"}', "must not have the group"),
        ('proxy = "10.0.0.5"\ngroups = {"o\\nps" = "view"}', "must not have the group"),
        ('proxy = "10.0.0.5"\ngroups = "ops"', "must be a section of roles by group"),
        ('user_header = "X_User"', "must be the name of a header"),
        ('user_header = "Authorization"', "must not be Authorization"),
        ('groups_header = "X-Forwarded-For"', "must not be X-Forwarded-For"),
        ('groups_separator = " "', "login.groups_separator must be"),
        ('user_header = "x-forwarded-groups"', "give each its own header"),
    ],
)
def test_rejected_login_settings(load_errors, section, says):
    """Everything that would let nobody or the wrong ones in is an error of the settings."""
    lines = load_errors(f"[login]\n{section}")
    assert any(says in line for line in lines), lines


def test_a_broken_list_in_the_environment(load_errors):
    """Pairs without an equals sign are refused."""
    environ = {"FLOWHOOKS_LOGIN_PROXY": "10.0.0.5", "FLOWHOOKS_LOGIN_GROUPS": "ops"}
    assert any("FLOWHOOKS_LOGIN_GROUPS must be a section" in line for line in load_errors("", environ))


def test_roles_and_masking(write_settings):
    """A role has rights, plugins and masks; operators and groups name it."""
    loaded = settings.load(
        write_settings("""
        [roles.payments]
        may = "operate"
        plugins = ["payments", "contracts"]
        [roles.clerks]
        may = "view"
        masked = true
        [masking]
        fields = ["/salary", "/bank/account"]
        [login]
        proxy = "10.0.0.5"
        groups = {clerks = "clerks", ops = "operate"}
        [operators.robot]
        role = "payments"
        token_sha256 = ["ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12ab12"]
        """),
        {},
        {},
    )
    assert loaded.roles == {
        "payments": settings.RoleSettings(may="operate", plugins=("payments", "contracts")),
        "clerks": settings.RoleSettings(may="view", masked=True),
    }
    assert loaded.masking.fields == ("/salary", "/bank/account")
    assert loaded.operators["robot"].role == "payments"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[roles.r]\nplugins = ["p"]', "has no may"),
        ('[roles.r]\nmay = "all"', 'roles.r.may must be "view" or "operate"'),
        ('[roles.r]\nmay = "view"\nplugins = []', "the list is empty"),
        ('[roles.r]\nmay = "view"\nplugins = "p"', "roles.r.plugins must be a list"),
        ('[roles.r]\nmay = "view"\nplugins = ["p:h"]', "roles.r.plugins item 1"),
        ('[roles.r]\nmay = "view"\nmasked = "yes"', "roles.r.masked must be true or false"),
        ('[roles.r]\nmay = "view"\nmasked = true', "masking.fields names no member"),
        ('[roles.r]\nmay = "view"\nplugin = ["p"]', "did you mean plugins"),
        ('[roles.operate]\nmay = "view"', "exists already"),
        ('[roles."a b"]\nmay = "view"', "must have a name"),
        ('[masking]\nfields = ["salary"]', "must be a JSON Pointer"),
        ('[masking]\nfields = [""]', "must be a JSON Pointer"),
        (f'[operators.li]\nrole = "payment"\ntoken_sha256 = ["{"ab" * 32}"]', "there is no such role"),
        ('[login]\nproxy = "10.0.0.5"\ngroups = {ops = "payment"}', "there is no such role"),
    ],
)
def test_rejected_roles(load_errors, text, says):
    """A role that would see more than meant, or that does not exist, is an error of the settings."""
    lines = load_errors(text)
    assert any(says in line for line in lines), lines
