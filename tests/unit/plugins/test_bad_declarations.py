"""An invalid declaration is refused at load, in one line with plugin, file and line."""

from __future__ import annotations

import re

import pytest

from flowhooks import __version__
from flowhooks.plugins.version_check import unmet_requirement

HEAD = "from flowhooks import handler, hookimpl\n"
TAIL = "\ndef h(event): pass\n@hookimpl\ndef handlers(): return [h]\n"
AT = r"handler 'h' \(\S*bad_plugin\.py:2\): "
LONG = "x" * 513
NO_SCHEMA = {"type": "text"}

DECLARED = {
    "no selector": ("@handler()", AT + "it listens to nothing: give callback_class=, process_key= or every=True$"),
    "a class that is no string": (
        "@handler(callback_class=3)",
        AT + r"callback_class= must be a string or a list of strings, not 3$",
    ),
    "an empty key": ("@handler(process_key='')", AT + "selectors must be strings that are not empty, not ''$"),
    "versions of a wrong type": (
        "@handler(process_key='k', versions=3)",
        AT + r'versions= must be a string such as ">=3,<5", not 3$',
    ),
    "versions that contradict one another": (
        "@handler(process_key='k', versions='>5,<3')",
        AT + "versions= '>5,<3' contradicts itself: no version satisfies all of it$",
    ),
    "versions of which every one is left out": (
        "@handler(process_key='k', versions='>=3,!=3,<4')",
        AT + "versions= '>=3,!=3,<4' contradicts itself: ",
    ),
    "a version beyond int32": (
        "@handler(process_key='k', versions='<=2147483648')",
        AT + "versions= has 2147483648, but a processDefinitionVersion is an int32, at most 2147483647$",
    ),
    "a source that can have no such name": (
        "@handler(process_key='k', source='hr engine')",
        AT + "source= 'hr engine' is not the name of a source: ",
    ),
    "a kind that nothing opens": (
        "@handler(process_key='k', kind='revoke')",
        AT + "kind='revoke' is not a kind of callback: no schema file defines it; the kinds are cancel, complete, "
        "error, terminate$",
    ),
    "a conclusion that is no string": (
        "@handler(process_key='k', conclusion=3)",
        AT + r"conclusion= must be a string or a list of strings, not 3$",
    ),
    "an empty conclusion": (
        "@handler(process_key='k', conclusion=['approved', ''])",
        AT + "conclusion= is a string of 1 to 128 characters, or several, not ''$",
    ),
    "a conclusion that no callback can have": (
        f"@handler(process_key='k', conclusion='{LONG}')",
        AT + "conclusion= is a string of 1 to 128 characters, or several, not 'x+…?",
    ),
    "conditions that are no dict": (
        "@handler(process_key='k', when='/amount')",
        AT + r"when= is a dict of JSON Pointers, such as \{.*\}, not '/amount'$",
    ),
    "a condition without a pointer": (
        "@handler(process_key='k', when={'amount': 1})",
        AT + 'when= at \'amount\': a JSON Pointer starts with "/", and writes "~" as "~0"$',
    ),
    "a condition that never holds": (
        "@handler(process_key='k', when={'/amount': []})",
        AT + "when= at '/amount': an empty list of constants never matches$",
    ),
    "a key that is no Unicode text": (
        r"@handler(process_key='\ud800')",
        AT + r"its selectors have '\\ud800', half of a surrogate pair, which no callback can have$",
    ),
    "a conclusion that is no Unicode text": (
        r"@handler(every=True, conclusion='\ud800')",
        AT + r"its selectors have '\\ud800', half of a surrogate pair",
    ),
    "a condition that is no Unicode text": (
        r"@handler(every=True, when={'/a': {'const': '\ud800'}})",
        AT + r"its selectors have '\\ud800', half of a surrogate pair",
    ),
    "a pointer that is no Unicode text": (
        r"@handler(every=True, when={'/\ud800': 1})",
        AT + r"its selectors have '\\ud800', half of a surrogate pair",
    ),
    "a copy with a name that no handler can have": (
        "from dataclasses import replace\nreplace(handler(every=True)(len), name='a:b')",
        r"name= must have 1 to 100 letters, digits, '\.', '_' or '-', not 'a:b' \(\S*bad_plugin\.py:3\)$",
    ),
    "a condition that is no schema": (
        "@handler(process_key='k', when={'/amount': {'minimum': '1000'}})",
        AT + "when= at '/amount': it is not a JSON Schema: '1000' is not of type 'number'$",
    ),
    "a condition with a misspelt keyword": (
        "@handler(process_key='k', when={'/amount': {'minimun': 1000}})",
        AT + r"when= at '/amount': the keyword 'minimun' is not supported in a condition; did you mean minimum\?$",
    ),
    "a condition with a reference": (
        "@handler(process_key='k', when={'/amount': {'$ref': '#'}})",
        AT + r"when= at '/amount': the keyword '\$ref' is not supported in a condition$",
    ),
    "a condition that can take hours": (
        "@handler(process_key='k', when={'/code': {'pattern': '(a+)+'}})",
        AT + r"when= at '/code': the regular expression '\(a\+\)\+' at /pattern could take hours: ",
    ),
    "a class that no callback can have": (
        f"@handler(callback_class='{LONG}')",
        AT + "no callback can have the callback_class= x+…, which must not be longer than 512 characters$",
    ),
    "a key that no callback can have": (
        f"@handler(process_key=['k', '{LONG}'])",
        AT + "no callback can have the process_key= x+…, which must not be longer than 512 characters$",
    ),
    "an argument that is misspelt": (
        "@handler(process_keys='k')",
        (
            r"TypeError: handler\(\) got an unexpected keyword argument 'process_keys'; did you mean process_key=\? "
            r"\(\S*bad_plugin\.py:2\)$"
        ),
    ),
    "an argument that is nothing like any other": (
        "@handler(zzz='k')",
        r"unexpected keyword argument 'zzz'; it takes callback_class, process_key, .* \(\S*bad_plugin\.py:2\)$",
    ),
    "no parentheses": (
        "@handler\ndef h(event): pass",
        (
            r"takes 0 positional arguments but 1 was given; write @handler\(process_key=\.\.\.\), with parentheses and "
            r"the names of the arguments \(\S*bad_plugin\.py:2\)$"
        ),
    ),
    "a key without its name": (
        "@handler('k')",
        r"takes 0 positional arguments but 1 was given; write @handler\(process_key=\.\.\.\), with ",
    ),
    "arguments in the wrong order": (
        "@handler(process_key='k')\ndef h(delivery, event): pass",
        AT + r"it is called as \(event, delivery\), but its parameters are \(delivery, event\): event is first$",
    ),
    "only the delivery": (
        "@handler(process_key='k')\ndef h(delivery): pass",
        AT + r"it is called as \(event, delivery\), but its parameters are \(delivery\): event is first$",
    ),
    "a probe's arguments in the wrong order": (
        "@handler(process_key='k', probe=lambda delivery, event: True)",
        AT + r"probe= is called as \(event, delivery\), but its parameters are \(delivery, event\): event is ",
    ),
    "async def": (
        "@handler(process_key='k')\nasync def h(event): pass",
        AT + "`async def` and generators are not supported; ",
    ),
}


def is_refused_alone(site, good, info_of, expected, **installed):
    """Check that the plugin `bad` is quarantined with one line, and the other one runs."""
    file = site.install("bad", **installed)
    site.install("good", good)
    plugins = site.load()
    bad = info_of(plugins, "bad")
    assert bad.state == "quarantined"
    assert bad.error.startswith("plugin 'bad' (entry point bad_plugin of flowhooks-bad): ")
    assert bad.error.isprintable()
    assert re.search(expected, bad.error)
    assert (bad.handlers, list(plugins.handlers)) == ((), ["good:grant"])
    return file


@pytest.mark.parametrize(("declared", "expected"), DECLARED.values(), ids=DECLARED)
def test_a_handler_that_could_never_run(declared, expected, site, good, info_of):
    """The plugin is refused at the next start, because it would wait forever for events."""
    source = HEAD + declared + (TAIL if declared.endswith(")") else "")
    is_refused_alone(site, good, info_of, expected, source=source)


def test_two_handlers_with_the_same_id(site, good, info_of):
    """Two handlers with one id are refused, because their deliveries could not be distinguished."""
    source = HEAD + "@handler(every=True)" + TAIL.replace("[h]", "[h, handler(every=True, name='h')(print)]")
    expected = (
        r"two handlers have the name 'h': \S*bad_plugin\.py:3 and <built-in function print>; give one of them name=$"
    )
    is_refused_alone(site, good, info_of, expected.replace("py:3", r"py:\d"), source=source)


@pytest.mark.parametrize(
    ("versions", "satisfiable"),
    [
        ("", True),
        (" ", True),
        (">5,<3", False),
        (">=3,!=3,<4", False),
        (">=3,!=3,<5", True),
        (">=3,!=3,!=4,!=3,<5", False),
        ("==3,!=3", False),
        ("==3,==4", False),
        ("==3,<=3,>=3", True),
        (">3,<4", False),
        (">3,<5", True),
        (">=4,<=4", True),
        ("<=2147483647", True),
        (">2147483647", False),
        (">=2147483647,!=2147483647", False),
        ("<1", True),
        ("==2147483648", False),
    ],
)
def test_satisfiable_versions(versions, satisfiable, site, info_of):
    """Only unsatisfiable versions are refused; negative versions are versions, too."""
    site.install("bad", HEAD + f"@handler(process_key='k', versions='{versions}')" + TAIL)
    assert info_of(site.load(), "bad").state == ("loaded" if satisfiable else "quarantined")


@pytest.mark.parametrize(
    "path",
    ["call-back/revoke.schema.json", "settings.schema.json", "data/class/C.schema.json", "data/key/K.schema.json"],
)
@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (NO_SCHEMA, "not a JSON Schema of 2020-12, at /type: 'text' is not valid"),
        ("{", r"not JSON: Expecting .* line 1 column 2"),
        ({"$ref": "nowhere.schema.json"}, r"\$ref nowhere\.schema\.json at / does not resolve to a schema"),
    ],
)
def test_an_invalid_schema(path, schema, why, request):
    """The error names the file and its fault."""
    source = HEAD + "@handler(every=True)" + TAIL
    expected = rf"schema file (\S*/bad_schemas/)?{re.escape(path)}: {why}"
    fixtures = (request.getfixturevalue(name) for name in ("site", "good", "info_of"))
    is_refused_alone(*fixtures, expected, source=source, schemas={path: schema})


def test_a_kind_provided_by_another_plugin(site, info_of):
    """A kind is checked after the last plugin has provided its schemas."""
    site.install("first", HEAD + "@handler(process_key='k', kind='revoke')" + TAIL)
    site.install("second", HEAD + "@handler(every=True)" + TAIL, schemas={"call-back/revoke.schema.json": {}})
    plugins = site.load()
    assert list(plugins.handlers) == ["first:h", "second:h"]
    assert plugins.schemas.kinds == ("cancel", "complete", "error", "revoke", "terminate")


def test_values_rejected_by_the_schema_of_the_kind(site, info_of):
    """Only the schema of the handler's own kind counts, and only its rule for that member."""
    schemas = {
        "call-back/revoke.schema.json": {
            "properties": {
                "callBackProcessClass": {"pattern": "^com\\."},
                "processDefinitionKey": {"pattern": "^[a-z]+$"},
                "processDefinitionId": {"pattern": "^[a-z]+:"},
            },
            "required": ["reason"],
        }
    }
    site.install("schemas", HEAD + "@handler(every=True)" + TAIL, schemas=schemas)
    for name, declared in {
        "one": "callback_class='com.x', kind='revoke'",
        "two": "callback_class='org.x', kind='revoke'",
        "three": "callback_class='org.x'",
        "four": "process_key='abc', kind='revoke'",
        "five": "process_key='ABC', kind='revoke'",
    }.items():
        site.install(name, HEAD + f"@handler({declared})" + TAIL)
    plugins = site.load()
    states = {info.name: info.state for info in plugins.infos}
    assert {name for name, state in states.items() if state == "quarantined"} == {"two", "five"}
    assert info_of(plugins, "two").error.endswith(
        "no callback can have the callback_class= org.x, which must match the regular expression ^com\\."
    )


def test_a_key_that_only_a_definition_id_can_contain(site, info_of):
    """A key may be the first part of a processDefinitionId, which has its own schema."""
    schemas = {"call-back/revoke.schema.json": {"properties": {"processDefinitionKey": {"maxLength": 3}}}}
    site.install("p", HEAD + "@handler(process_key='long', kind='revoke')" + TAIL, schemas=schemas)
    assert info_of(site.load(), "p").state == "loaded"


def test_the_wrapper_of_a_plugin_rejected_after_loading_is_not_called(site, good, attempt):
    """A plugin that is refused after loading leaves no wrapper behind."""
    wrapper = "@hookimpl(wrapper=True)\ndef run_handler():\n    raise AssertionError\n    yield\n"
    told = "@hookimpl\ndef event_accepted(): raise AssertionError\n"
    site.install("bad", HEAD + "@handler(process_key='k', kind='none')" + TAIL + wrapper + told)
    site.install("good", good)
    plugins = site.load()
    assert attempt(plugins, "good:grant").value == "granted"
    assert not plugins.has_subscribers


def test_a_plugin_for_another_flowhooks_version(site, good, info_of):
    """A package that requires another version is not imported, and the reason has both versions."""
    expected = (
        f"it requires flowhooks<3,>=2, but this is flowhooks {re.escape(__version__)}: install a matching version of "
        "flowhooks-bad$"
    )
    is_refused_alone(
        site, good, info_of, expected, source="raise AssertionError('imported')", requires=["flowhooks>=2,<3"]
    )


@pytest.mark.parametrize(
    ("requires", "running", "wanted"),
    [
        ([], "0.1.0", None),
        (["flowhooks"], "0.1.0", None),
        (["flowhooks>=0.1"], "0.1.0", None),
        (["requests>=9", "flowhooks-contracts>=2", "flowhooks.extra>3", "flowhooksy>3"], "0.1.0", None),
        (["requests", "FlowHooks (>=1)"], "0.1.0", "flowhooks>=1"),
        (["flowhooks>=1.4,<2"], "1.5.2", None),
        (["flowhooks~=1.4"], "2.0", "flowhooks~=1.4"),
        (["flowhooks<1"], "1.0.0", "flowhooks<1"),
        (["flowhooks>=1"], "1.0.0rc1", None),
        (["flowhooks>=1"], "1.0.0.dev3+local", None),
        (["flowhooks<1"], "1.0.0rc1", "flowhooks<1"),
        (["flowhooks>=0.9"], "1.0.0rc1", None),
        (["flowhooks==0.1.*"], "0.1.0", None),
        (["flowhooks>=0.1.0a1"], "0.1.0", None),
        (["flowhooks[new]>=2"], "0.1.0", "flowhooks>=2"),
        (['flowhooks>=2; extra == "test"'], "0.1.0", None),
        (['flowhooks>=2; python_version < "3"'], "0.1.0", None),
        (['flowhooks>=0.1; python_version > "3"', "flowhooks<0.1"], "0.1.0", "flowhooks<0.1"),
        (["flowhooks >=!"], "0.1.0", "flowhooks >=!"),
    ],
)
def test_version_requirements_of_a_package(requires, running, wanted):
    """Pre-releases count as their final version; other packages, extras and platforms do not matter."""
    assert unmet_requirement(requires, running) == wanted


def test_unreadable_metadata_is_ignored(site, good, info_of):
    """Unreadable metadata are ignored, because requirements are the installer's task."""
    site.install("good", good)
    (site.path / "flowhooks_good-1.2.dist-info" / "METADATA").unlink()
    assert info_of(site.load(), "good").state == "loaded"
