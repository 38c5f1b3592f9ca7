"""The prose check finds each forbidden phrase on its line, and nothing in correct sentences."""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import pytest

from support import prose

BAD = [
    "The reply goes to whoever asked.",
    "What arrives is delivered later.",
    "Who has called is recorded.",
    "Those that failed are retried.",
    "It is deleted. What is left stays.",
    "The log has what is done with.",
    "It parks what nobody handles.",
    "It runs what waits.",
    "It needs such a one.",
    "It runs 3 at the most.",
    "It runs 3 at the least.",
    "It waits for ever.",
    "It counts nought.",
    "It keeps so many and no more.",
    "One that is tried again has no time.",
    "Each that fails is retried.",
    "First it is said which one.",
    "The data is nobody's.",
    "It reads JSON as the RFC has it.",
    "It tries again and again.",
    "It polls now and then.",
    "Start it anew.",
    "Mend the cause.",
    "It was mended.",
    "It runs, be it late.",
    "A server goes by its settings.",
    "The plugin is told.",
    "The engine was\ntold.",
    "It says of a delivery that it failed.",
    "An operator sees to it.",
    "So many run at the same time as threads, at most.",
    "The process is taken for dead.",
    "It gives no sign of life.",
    "An event that nobody wants is parked.",
    "It is wanted by nobody.",
    "The worker fell silent.",
    "A plugin that means harm is not stopped.",
    "The books are checked.",
    "All books balance.",
    "The database moved house.",
    "It is in the house.",
    "It stores events; it must not know plugins.",
    "It has come to the end of its work.",
    "It runs by its own word.",
    "It waits, for nobody answers.",
    "Stop it; else it runs.",
    "The engine sends a call-back.",
    "The handler is held.",
    "It shows held deliveries.",
    "The delivery is held back.",
    "The delivery is shelved.",
    "认领告警",
    "裁定投递",
    "由操作员处理",
    "已清除",
    "事件 Id",
    "处理器 已暂停",
    "投递, 尝试",
]
BAD_NAMES = """\
def test_it_runs(site):
    pass
def test_a_handler_nobody_knows():
    pass
def test_growth_is_told():
    pass
class TestRunner:
    async def test_a_start_ought_to_end(self):
        pass
"""
GOOD = [
    "What is a handler?",
    "What happens then depends on its state.",
    "The log shows what happened and who did it.",
    "It runs at most 3 times and retries repeatedly.",
    "An amendment recommends a new one.",
    "It has to be it, not another event.",
    "The user is asked by hand.",
    "You can see to which handlers an event goes.",
    "It posts to /flow/f-1/call-back/complete, as add-a-kind-of-call-back says.",
    "The lock is held while the file is written.",
    "It books a flight.",
    "It answers as soon as Redis has it.",
    "It waits 5 s for it to end.",
    "None, or else a number; else None.",
    "The option --call-backs counts callbacks.",
    "确认告警，人工确认投递，事件 ID 是 `evt_1`。",
    "在 PostgreSQL 中，投递 3 次。",
]


def texts(path, text):
    return [(finding.line, finding.text) for finding in prose.find(path, text)]


@pytest.mark.parametrize("sentence", BAD)
@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("docs/page.md", "# Title\n\n{}\n"),
        ("flowhooks/module.py", '"""Title.\n\n{}\n"""\n'),
        ("flowhooks/module.py", 'print(\n\n    "{}"\n)\n'),
        ("flowhooks/module.py", "\n\n# {}\nvalue = 1\n"),
    ],
    ids=["page", "docstring", "string", "comment"],
)
def test_each_forbidden_phrase_is_found_on_its_line(sentence, path, form):
    if "\n" in sentence and "# {}" in form:
        sentence = sentence.replace("\n", "\n# ")
    if "\n" in sentence and "print" in form:
        sentence = sentence.replace("\n", ' "\n    "')
    found = prose.find(path, form.format(sentence))
    assert [finding.line for finding in found] == [3]
    assert found[0].write
    assert str(found[0]).startswith(f'{path}:3: "')


@pytest.mark.parametrize("sentence", GOOD)
def test_correct_sentences_are_not_findings(sentence):
    assert not prose.find("docs/page.md", f"{sentence}\n")
    assert not prose.find("flowhooks/module.py", f'"""{sentence}"""\n')


def test_each_rule_has_an_example():
    text = "\n\n".join(BAD) + "\n\n第一行\n第二行\n"
    found = {finding.write for finding in prose.find("docs/page.md", text)}
    found |= {finding.write for finding in prose.find("tests/unit/test_module.py", BAD_NAMES)}
    assert found == {rule.write for rule in prose.RULES}


def test_names_of_tests_are_checked_in_modules_of_tests():
    findings = prose.find("tests/unit/test_module.py", BAD_NAMES)
    assert {finding.line for finding in findings} == {1, 3, 5, 8}
    assert not prose.find("tests/support/module.py", BAD_NAMES)
    assert not prose.find("tests/unit/test_module.py", "def test_a_handler_runs_after_it_was_resumed():\n    pass\n")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("docs/page.md", "# What is promised\n"),
        ("docs/page.md", "| What is promised | call |\n"),
        ("docs/page.md", "Run `mend it` at once.\n"),
        ("docs/page.md", "An example:\n\n    mend it anew\n"),
        ("docs/page.md", "```sh\nmend it\n```\n\n```text\nwhoever\n```\n"),
        ("docs/page.md", "[A page](whoever/mend.md)\n"),
        ("docs/page.md", "<!-- generated: whoever -->\n"),
        ("flowhooks/module.py", '"""Call `mend`."""\n'),
        ("flowhooks/module.py", 'def whoever(mend):\n    return "call-back"[anew]\n'.replace("-", "")),
        ("flowhooks/module.py", 'x = f"It is {whoever}."\n'),
        ("flowhooks/web/page.html", '<p class="mend">{{ whoever }}{% if anew %}</p>\n'),
        ("tests/unit/test_x.py", 'name = "张三 李四"\n'),
        ("tests/data.json", '{"name": "whoever", "be it": {"mend it": 1}}\n'),
        ("schemas/x.json", '{"description": "Call `mend it`."}\n'),
    ],
)
def test_headings_tables_code_and_addresses_are_left_out(path, text):
    assert not prose.find(path, text)


def test_text_after_code_is_checked_on_its_own_line():
    text = "```\nmend\n```\n\nA `` `code` `` and\nmend it.\n\n- An item\n- mend it\n\n> mend\n\n| a | mend |\n"
    assert texts("docs/page.md", text) == [(6, "mend"), (9, "mend"), (11, "mend"), (13, "mend")]


def test_the_second_paragraph_of_an_item_is_checked():
    assert texts("docs/page.md", "- An item.\n\n    Mend it.\n") == [(3, "Mend")]
    assert texts("docs/page.md", "1. An item.\n\n   Mend it.\n\nMend it.\n") == [(3, "Mend"), (5, "Mend")]


def test_hash_marks_in_strings_are_no_comments():
    text = 'a = "#1"  # mend\nb = \'"\' + "# anew"\nc = """\n# whoever\n"""\n'
    assert texts("flowhooks/module.py", text) == [(1, "mend"), (2, "anew"), (4, "whoever")]


def test_a_phrase_in_two_adjacent_strings_is_found():
    text = 'print(\n    "It runs at the "\n    f"most {count} times."\n)\n'
    assert texts("flowhooks/module.py", text) == [(2, "at the most")]


def test_makefile_settings_and_templates_are_checked():
    for path in ("Makefile", "pyproject.toml", "flowhooks/web/page.html"):
        assert texts(path, "first line\n<p> # Mend it </p>\n") == [(2, "Mend")]


def test_the_texts_of_a_json_file_are_checked_on_their_lines():
    text = '{\n "title": "What is left",\n "enum": ["a", "mend \\"it\\"\\nanew"],\n "x": "\\u8ba4\\u9886"\n}\n'
    assert texts("schemas/x.json", text) == [(2, "What"), (3, "anew"), (3, "mend"), (4, "认领")]


def words(count):
    return " ".join(["Word", *["word"] * (count - 1)])


def test_long_sentences_are_found_in_pages_and_docstrings():
    text = f"A short one. {words(41)}.\n{words(40)}.\n"
    for path, form, line in [("docs/page.md", "{}", 1), ("flowhooks/module.py", '"""Title.\n\n{}"""\n', 3)]:
        (finding,) = prose.find(path, form.format(text))
        assert (finding.line, finding.text) == (line, "Word word word word …")
        assert "41" in finding.write
    assert texts("schemas/x.json", f'{{"title":\n "{words(41)}"}}') == [(2, "Word word word word …")]
    assert not prose.find("flowhooks/module.py", f'print("{words(50)}")\n# {words(50)}\n')
    assert not prose.find("docs/examples/x.json", f'{{"value": "=if {words(41)}"}}')


@pytest.mark.parametrize(
    "text",
    [
        f"| {words(30)} | {words(30)} |",
        f"# {words(50)}",
        f"```text\n{words(50)}\n```",
        f"- {words(30)}\n- {words(30)}",
        f"1. {words(30)}\n2. {words(30)}",
        f"{words(30)}\n\n{words(30)}",
        " · ".join(f"[{words(9)}](page.md)" for _ in range(6)),
        f"{words(38)} `a piece of code`.",
        f"{words(38)} 1 2.5 3,000 4.",
    ],
    ids=["table", "title", "code", "items", "numbers", "paragraphs", "links", "inline", "figures"],
)
def test_tables_code_and_lists_are_no_long_sentences(text):
    assert not prose.find("docs/page.md", f"{text}\n")


def test_items_in_docstrings_are_separate_sentences():
    text = f'''
def call():
    r"""Call.

    Args:
        first: {words(30)}
            {words(8)}
        second: {words(30)}

    Raises:
        ValueError: {words(30)}

    \\b
    {words(50)}

    ```text
    {words(50)}
    ```
    """
'''
    assert not prose.find("flowhooks/module.py", text)


def test_a_chinese_paragraph_is_one_line():
    assert texts("docs/page.zh-CN.md", "第一行，\n第二行。\n\n另一段 `代码`\n`代码`\n") == [(1, "， 第")]
    assert not prose.find("flowhooks/texts.py", 'text = (\n    "第一行，"\n    "第二行。"\n)\n')


def test_an_exception_allows_one_text_in_one_file(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Mend it.\n\nMend that.\n", "utf-8")
    allowed = prose.Allowed("page.md", "Mend it", "a quotation")
    assert [finding.line for finding in prose.check([page], tmp_path, [allowed])] == [3]


def test_an_unused_exception_is_a_finding(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Fix it.\n", "utf-8")
    allowed = prose.Allowed("page.md", "Mend it", "a quotation")
    assert [finding.text for finding in prose.check([page], tmp_path, [allowed])] == ["Mend it"]


def test_findings_are_printed_or_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    (tmp_path / "a.md").write_text("Mend it.\n", "utf-8")
    (tmp_path / "b.py").write_text('"""Mend it anew."""\n', "utf-8")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "c.md").write_text("Mend it.\n", "utf-8")
    assert prose.main([]) == 1
    assert capsys.readouterr().out.splitlines()[0] == 'a.md:1: "Mend": write "fix, repair"'
    assert prose.main(["--summary"]) == 0
    assert capsys.readouterr().out.split() == ["2", "b.py", "1", "a.md", "3", "in", "all"]
    assert prose.main([str(tmp_path / "b.py")]) == 1
    (tmp_path / "a.md").write_text("Fix it.\n", "utf-8")
    assert prose.main([str(tmp_path / "a.md")]) == 0
