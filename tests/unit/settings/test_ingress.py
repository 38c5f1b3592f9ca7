"""The section [sources.NAME.ingress]: how requests to a fixed URL become callbacks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowhooks import settings
from flowhooks.settings import IngressSettings, ValueTable, diff
from flowhooks.settings.ingress import MAX_ANSWER_CHARS

SOURCE = '[sources.oa]\nsecrets = [{env = "OA_SECRET"}]\n[sources.oa.ingress]\n'
MAPPING = f'{SOURCE}format = "json"\nflow_instance_id = "/id"\n'
TOKEN = f'token_sha256 = ["{"a" * 64}"]'
A_TABLE = 'a table {pointer = "/status", values = {…}}'


def test_every_setting_is_read(write_settings):
    """Each setting of a mapping is read."""
    text = f"""{SOURCE}
        format = "form"
        flow_instance_id = ["/dag", "/run"]
        process_definition_key = "/key"
        process_definition_id = "/definition/id"
        process_definition_version = "/definition/version"
        business_key = "/business~1key"
        call_back_process_class = "/class"
        kind = {{pointer = "/status", values = {{2 = "complete", "3" = "complete", "4" = "cancel"}}, other = "ignore"}}
        conclusion = {{pointer = "/status", values = {{2 = "approved", true = "审批通过"}}}}
        answer = '{{"code": 0}}'
    """
    ingress = settings.load(write_settings(text), {}, {}).sources["oa"].ingress
    assert ingress == IngressSettings(
        format="form",
        flow_instance_id=("/dag", "/run"),
        process_definition_key="/key",
        process_definition_id="/definition/id",
        process_definition_version="/definition/version",
        business_key="/business~1key",
        call_back_process_class="/class",
        kind=ValueTable(pointer="/status", values={"2": "complete", "3": "complete", "4": "cancel"}, other="ignore"),
        conclusion=ValueTable(pointer="/status", values={"2": "approved", "true": "审批通过"}),
        answer='{"code": 0}',
    )
    assert ingress.location == "flowhooks.toml:3: "
    assert ingress.members == {
        "processDefinitionKey": "/key",
        "processDefinitionId": "/definition/id",
        "processDefinitionVersion": "/definition/version",
        "businessKey": "/business~1key",
        "callBackProcessClass": "/class",
    }


def test_the_defaults(write_settings):
    """A format and the id are enough: every request is a completion without a conclusion."""
    ingress = settings.load(write_settings(MAPPING), {}, {}).sources["oa"].ingress
    assert ingress.flow_instance_id == ("/id",)
    assert (ingress.kind, ingress.conclusion, ingress.members, ingress.receiver) == (None, None, {}, "")
    assert (ingress.answer, ingress.answer_media_type) == ('{"success": true}', "application/json; charset=utf-8")


def test_a_receiver_needs_no_credential(write_settings):
    """A receiver authenticates the requests itself; the answer is still set here."""
    text = '[sources.oa.ingress]\nreceiver = "dingtalk"\nanswer = "success"'
    source = settings.load(write_settings(text), {}, {}).sources["oa"]
    assert source.ingress == IngressSettings(receiver="dingtalk", answer="success")
    assert source.has_credential


def test_the_conclusion_may_be_a_pointer(write_settings):
    """A bare pointer takes each value as the conclusion."""
    text = f'{MAPPING}conclusion = "/result"'
    assert settings.load(write_settings(text), {}, {}).sources["oa"].ingress.conclusion == ValueTable(pointer="/result")


@pytest.mark.parametrize("values", [1, 100])
def test_the_number_of_values(write_settings, values):
    """A table may have 1 to 100 values."""
    table = ", ".join(f'"{value}" = "complete"' for value in range(values))
    text = f'{MAPPING}kind = {{pointer = "/status", values = {{{table}}}}}'
    assert len(settings.load(write_settings(text), {}, {}).sources["oa"].ingress.kind.values) == values


def test_the_number_of_pointers(write_settings):
    """At most 8 values are joined to an id."""
    pointers = [f"/{number}" for number in range(8)]
    text = f'{SOURCE}format = "json"\nflow_instance_id = {pointers}'
    assert settings.load(write_settings(text), {}, {}).sources["oa"].ingress.flow_instance_id == tuple(pointers)


@pytest.mark.parametrize(
    ("answer", "media_type"),
    [
        ('{"code": 0}', "application/json"),
        ("0", "application/json"),
        ("success", "text/plain"),
        ("", "text/plain"),
        ("<xml/>", "text/plain"),
        ("NaN", "text/plain"),
        ("[" * MAX_ANSWER_CHARS, "text/plain"),
        ("9" * MAX_ANSWER_CHARS, "application/json"),
    ],
)
def test_the_media_type_of_the_answer(answer, media_type):
    """An answer that is JSON is sent as JSON; any other as text, however it is made."""
    assert IngressSettings(answer=answer).answer_media_type == f"{media_type}; charset=utf-8"


POINTER = 'must be a JSON Pointer such as "/timestamp", not'
KIND = "must be a name of 1 to 100 letters, digits, '.', '_' or '-', not"
CONCLUSION = "must be a conclusion of 1 to 128 characters other than NUL, not"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('kind = "complete"', f".kind must be {A_TABLE}, not 'complete'"),
        ('kind = "/status"', f".kind must be {A_TABLE}, not '/status'"),
        ("kind = 5", f".kind must be {A_TABLE}, not 5"),
        ("kind = []", f".kind must be {A_TABLE}, not a list"),
        ("kind = {}", f".kind has no pointer: must be {A_TABLE}"),
        ('kind = {pointer = "/a"}', f".kind has no values: must be {A_TABLE}"),
        ('kind = {values = {1 = "complete"}}', f".kind has no pointer: must be {A_TABLE}"),
        ('kind = {pointer = "status", values = {1 = "complete"}}', f".kind at 'pointer' {POINTER} 'status'"),
        ('kind = {pointer = "", values = {1 = "complete"}}', f".kind at 'pointer' {POINTER} ''"),
        ('kind = {pointer = "/a~2", values = {1 = "complete"}}', f".kind at 'pointer' {POINTER} '/a~2'"),
        ('kind = {pointer = ["/a"], values = {1 = "complete"}}', f".kind at 'pointer' {POINTER} a list"),
        ('kind = {pointer = "/a", values = {}}', ".kind at 'values' must have 1 to 100 values, not 0"),
        (
            f'kind = {{pointer = "/a", values = {{{", ".join(f"v{n} = {chr(34)}x{chr(34)}" for n in range(101))}}}}}',
            ".kind at 'values' must have 1 to 100 values, not 101",
        ),
        (
            'kind = {pointer = "/a", values = ["complete"]}',
            ".kind at 'values' must be a section in which each value is",
        ),
        ('kind = {pointer = "/a", values = {2 = ""}}', f".kind at 'values' at '2' {KIND} ''"),
        ('kind = {pointer = "/a", values = {2 = "com plete"}}', f".kind at 'values' at '2' {KIND} 'com plete'"),
        ('kind = {pointer = "/a", values = {2 = 3}}', f".kind at 'values' at '2' {KIND} 3"),
        ('kind = {pointer = "/a", values = {1.5 = "cancel"}}', f".kind at 'values' at '1' {KIND} a section"),
        ('kind = {pointer = "/a", values = {2 = "cancel"}, other = ""}', f".kind at 'other' {KIND} ''"),
        ('kind = {pointer = "/a", values = {2 = "cancel"}, other = false}', f".kind at 'other' {KIND} false"),
        (
            'kind = {pointer = "/a", values = {2 = "cancel"}, others = "ignore"}',
            ".kind has 'others', but only pointer, values and other are possible; did you mean other?",
        ),
        ('conclusion = ""', f".conclusion {POINTER} ''"),
        ("conclusion = true", f'.conclusion must be a JSON Pointer such as "/status", or {A_TABLE}, not true'),
        ('conclusion = {pointer = "/a"}', '.conclusion has no values: must be a JSON Pointer such as "/status", or a'),
        (
            r'conclusion = {pointer = "/a", values = {2 = "a\u0000b"}}',
            rf".conclusion at 'values' at '2' {CONCLUSION} 'a\x00b'",
        ),
        ('conclusion = {pointer = "/a", values = {2 = ""}}', f".conclusion at 'values' at '2' {CONCLUSION} ''"),
        (
            f'conclusion = {{pointer = "/a", values = {{2 = "{"x" * 129}"}}}}',
            f".conclusion at 'values' at '2' {CONCLUSION}",
        ),
        ('conclusion = {pointer = "/a", values = {2 = "x"}, other = ""}', f".conclusion at 'other' {CONCLUSION} ''"),
        ("answer = 5", ".answer must be a text of at most 4096 characters, not 5"),
        ("answer = {code = 0}", ".answer must be a text of at most 4096 characters, not a section"),
        (f'answer = "{"x" * 4097}"', ".answer must be a text of at most 4096 characters, not of 4097"),
        ('business_key = "businessKey"', f".business_key {POINTER} 'businessKey'"),
        ('business_key = ""', f".business_key {POINTER} ''"),
        ('process_definition_key = ["/a"]', f".process_definition_key {POINTER} a list"),
        ("process_definition_id = 5", f".process_definition_id {POINTER} 5"),
        ('process_definition_version = "3"', f".process_definition_version {POINTER} '3'"),
        ('call_back_process_class = "a.B"', f".call_back_process_class {POINTER} 'a.B'"),
        ('buisness_key = "/a"', ".buisness_key is not a setting; did you mean business_key?"),
        ('location = "x"', ".location is not a setting"),
    ],
)
def test_rejected_settings(load_errors, content, says):
    """Each mistake is one line, which names the file and the line."""
    (line,) = load_errors(MAPPING + content)
    assert line.startswith(f"flowhooks.toml:6: sources.oa.ingress{says}")


@pytest.mark.parametrize(
    ("content", "number", "says"),
    [
        ('flow_instance_id = "/id"', 3, ' has no format, which is "json", "form" or "cloudevent"'),
        ('format = "json"', 3, " has no flow_instance_id, the JSON Pointer to the process instance id"),
        (
            'flow_instance_id = "/id"\nformat = "xml"',
            5,
            '.format must be "json", "form" or "cloudevent", not \'xml\'',
        ),
        (
            'flow_instance_id = "/id"\nformat = "cloudevents"',
            5,
            '.format must be "json", "form" or "cloudevent", not \'cloudevents\'; did you mean cloudevent?',
        ),
        ('format = "json"\nflow_instance_id = "id"', 5, f".flow_instance_id {POINTER} 'id'"),
        ('format = "json"\nflow_instance_id = ""', 5, f".flow_instance_id {POINTER} ''"),
        (
            'format = "json"\nflow_instance_id = 5',
            5,
            '.flow_instance_id must be a JSON Pointer such as "/id", or a list of pointers, not 5',
        ),
        (
            'format = "json"\nflow_instance_id = {a = "/id"}',
            5,
            '.flow_instance_id must be a JSON Pointer such as "/id", or a list of pointers, not a section',
        ),
        ('format = "json"\nflow_instance_id = []', 5, ".flow_instance_id must be a list, each a JSON Pointer such as"),
        ('format = "json"\nflow_instance_id = ["/a", ""]', 5, f".flow_instance_id item 2 {POINTER} ''"),
        (
            f'format = "json"\nflow_instance_id = {[f"/{n}" for n in range(9)]}',
            5,
            '.flow_instance_id must be a list, each a JSON Pointer such as "/timestamp": at most 8',
        ),
        ('receiver = ""', 4, f".receiver {KIND} ''"),
        ("receiver = true", 4, f".receiver {KIND} true"),
    ],
)
def test_required_settings_of_a_mapping(load_errors, content, number, says):
    """The format and the id are required; a wrong one is named with its line."""
    (line,) = load_errors(SOURCE + content)
    assert line.startswith(f"flowhooks.toml:{number}: sources.oa.ingress{says}")


@pytest.mark.parametrize(
    "content",
    [
        'format = "json"',
        'flow_instance_id = "/id"',
        'process_definition_key = "/a"',
        'process_definition_id = "/a"',
        'process_definition_version = "/a"',
        'business_key = "/a"',
        'call_back_process_class = "/a"',
        'kind = {pointer = "/a", values = {1 = "complete"}}',
        'conclusion = "/a"',
    ],
)
def test_a_mapping_beside_a_receiver(load_errors, content):
    """The receiver reads the requests, so a mapping beside it would never be used."""
    key = content.split(" ")[0]
    (line,) = load_errors(f'{SOURCE}receiver = "dingtalk"\n{content}')
    assert line == (
        f"flowhooks.toml:5: sources.oa.ingress has both receiver and {key}, but the receiver reads the requests: "
        "remove one of the two"
    )


def test_all_mistakes_are_named_at_once(load_errors):
    """A wrong value does not hide a missing setting."""
    assert load_errors(f'{SOURCE}answer = 5\nkind = "x"\nformat = "jsn"') == [
        "flowhooks.toml:4: sources.oa.ingress.answer must be a text of at most 4096 characters, not 5",
        f"flowhooks.toml:5: sources.oa.ingress.kind must be {A_TABLE}, not 'x'",
        (
            'flowhooks.toml:6: sources.oa.ingress.format must be "json", "form" or "cloudevent", not \'jsn\'; did you '
            "mean json?"
        ),
        "flowhooks.toml:3: sources.oa.ingress has no flow_instance_id, the JSON Pointer to the process instance id",
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f'[sources."oa"]\n{TOKEN}\n["sources".\'oa\'."ingress"]\nflow_instance_id = "/id"\nformat = 5', 5),
        (f'[sources.oa]\n{TOKEN}\ningress = {{flow_instance_id = "/id", format = 5}}', 3),
        (f'[sources.oa]\n{TOKEN}\ningress.flow_instance_id = "/id"\ningress.format = 5', 4),
        (f'sources.oa.{TOKEN}\nsources.oa.ingress.flow_instance_id = "/id"\nsources.oa.ingress.format = 5', 3),
        (f'[sources.oa]\r\n{TOKEN}\r\n\r\n[sources.oa.ingress]\r\nflow_instance_id = "/id"\r\nformat = 5\r\n', 6),
        (
            f'# format\n[sources.oa]\n{TOKEN}\n[sources.oa.ingress] # x\n#format=1\nflow_instance_id = "/id"\nformat=5',
            7,
        ),
        (f'\ufeff[sources.oa]\n{TOKEN}\n[sources.oa.ingress]\nflow_instance_id = "/id"\nformat = 5', 5),
        (
            f'[sources.oa]\n{TOKEN}\n[sources.oa.ingress]\nanswer="""\nformat=1"""\nflow_instance_id="/id"\nformat=5',
            7,
        ),
    ],
)
def test_the_line_is_found_however_the_file_is_written(load_errors, text, place):
    """The line of a mistake is found behind quoted names, inline tables, dotted keys, CRLF, comments and a BOM."""
    (line,) = load_errors(text)
    assert line.startswith(f"flowhooks.toml:{place}: sources.oa.ingress.format must be")


@pytest.mark.parametrize("credential", [TOKEN, 'token_file = "token"', 'secrets = [{env = "A"}]'])
def test_an_engine_is_no_credential(load_errors, write_settings, credential):
    """A source that flowhooks only asks has no credential, so requests to its URL need one."""
    ingress = '[sources.oa.ingress]\nformat = "json"\nflow_instance_id = "/id"\n'
    engine = '[sources.oa.engine]\nclient = "fake"\nurl = "http://oa"\n'
    (line,) = load_errors(engine + ingress)
    assert line == (
        "flowhooks.toml:4: sources.oa has a section ingress, but no token_sha256, token_file, secrets or receiver, so "
        "nobody can send requests to it"
    )
    assert settings.load(write_settings(f"[sources.oa]\n{credential}\n{engine}{ingress}"), {}, {}).sources["oa"].ingress


def test_without_engine_and_credential(load_errors):
    """A source with nothing but a mapping is refused as any source without a credential."""
    (line,) = load_errors('[sources.oa.ingress]\nformat = "json"\nflow_instance_id = "/id"')
    assert line.startswith("flowhooks.toml:1: sources.oa has no token_sha256, token_file or secrets")


@pytest.mark.parametrize(("value", "shown"), [("5", "5"), ("[]", "a list"), ('"json"', "'json'")])
def test_ingress_must_be_a_section(load_errors, value, shown):
    """A single value instead of the section is refused with its line."""
    assert load_errors(f"[sources.oa]\n{TOKEN}\ningress = {value}") == [
        f"flowhooks.toml:3: sources.oa.ingress must be a section, [sources.oa.ingress], not {shown}"
    ]


def test_a_reload_applies_a_changed_mapping(write_settings):
    """A reload applies a changed mapping without a restart."""
    before = settings.load(write_settings(MAPPING), {}, {})
    after = settings.load(write_settings(f'{MAPPING}answer = "ok"'), {}, {})
    difference = diff(before, after)
    assert (difference.changed, difference.needs_restart) == (("sources.oa",), ())
    assert difference.settings.sources["oa"].ingress.answer == "ok"


def test_another_line_is_no_change(write_settings):
    """A comment above the section moves it to another line, which changes no setting."""
    before = settings.load(write_settings(MAPPING), {}, {})
    after = settings.load(write_settings(f"# the first line\n{MAPPING}"), {}, {})
    assert after.sources["oa"].ingress.location == "flowhooks.toml:4: "
    assert after.sources["oa"].ingress == replace(after.sources["oa"].ingress, location="flowhooks.toml:3: ")
    assert diff(before, after).changed == ()


@pytest.mark.parametrize(("wait", "pointers"), [(0, []), (60, ["/timestamp", "/a~1b/0"]), (0.5, ["/a"])])
def test_wait_and_ignored_members_of_a_source(write_settings, wait, pointers):
    """A source may have its own time to wait, and its own members that are ignored in a comparison."""
    text = f"[sources.oa]\n{TOKEN}\nanswer_wait = {wait}\nignore_pointers = {pointers}"
    source = settings.load(write_settings(text), {}, {}).sources["oa"]
    assert (source.answer_wait, source.ignore_pointers) == (wait, tuple(pointers))


def test_wrong_ignored_members(load_errors):
    """Each ignored member is a JSON Pointer."""
    (line,) = load_errors(f'[sources.oa]\n{TOKEN}\nignore_pointers = ["/a", ""]')
    assert line.startswith(f"flowhooks.toml:3: sources.oa.ignore_pointers item 2 {POINTER} ''")


@pytest.mark.parametrize("wait", ["-1", "60.1", '"1"', "true"])
def test_wrong_waits(load_errors, wait):
    """A source waits 0 to 60 seconds."""
    (line,) = load_errors(f"[sources.oa]\n{TOKEN}\nanswer_wait = {wait}")
    assert line.startswith("flowhooks.toml:3: sources.oa.answer_wait must be a number of seconds, 0 to 60, not")


def test_a_source_without_its_own_wait(write_settings):
    """By default, a source has the general settings."""
    source = settings.load(write_settings(f"[sources.oa]\n{TOKEN}"), {}, {}).sources["oa"]
    assert (source.answer_wait, source.ignore_pointers) == (None, None)
