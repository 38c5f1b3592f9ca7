"""Check the prose of the project: words, sentence lengths and Chinese text; `make lint` runs it.

It reads all pages, docstrings, comments, strings, names of tests, templates, JSON files such as schemas and dashboards,
the Makefile and the settings of tools. A finding is one line: the file, the line, the text that was found and the text
to write instead. `RULES` lists the words and `ALLOWED` the exceptions, each with its reason. `--summary` counts the
findings by file; paths restrict the check to those files.
"""

# ruff: noqa: RUF001 (Chinese has punctuation marks of its own)
from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
from os import walk
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT: Final = Path(__file__).resolve().parents[2]
MAX_WORDS: Final = 40
"""A longer sentence is a finding. Aim for 25 words."""


END: Final = "\0"
"""The separator of passages that are searched together."""
SENTENCE_START: Final = r"(?:(?:\A|(?<=\0))\s*|(?<=[.!?])\s+)"
NO_QUESTION: Final = r"(?![^.!?\0]*\?)"


class Rule:
    """A pattern that must not occur, and what to write instead."""

    def __init__(self, pattern: str, write: str, *, scope: str = "all") -> None:
        """Compile the pattern.

        Args:
            pattern: a regular expression in small letters, except of `"starts"` and `"exact"`; a space matches any
                white space, so also the end of a line.
            write: the replacement, or words to choose from.
            scope: the passages that are searched: `"all"`; `"starts"`: where a sentence begins, without headings and
                tables; `"pages"`: the paragraphs of pages; `"product"`: all but tests, whose data may have any text;
                `"exact"`: as `"product"`, with large and small letters; `"names"`: the names of tests, as words.
        """
        start = SENTENCE_START if scope == "starts" else ""
        self.pattern = re.compile(start + pattern.replace(" ", r"\s+"))
        self.needle = _needle(pattern)
        self.write = write
        self.scope = scope


def _needle(pattern: str) -> str:
    """Return the longest word that is in each match of a pattern; a file without the word is not searched."""
    always = GROUP.sub("\n", pattern)
    while GROUP.search(always):
        always = GROUP.sub("\n", always)
    return max(LETTERS.findall(OPTIONAL.sub("\n", always)), key=len, default="") if "|" not in always else ""


GROUP: Final = re.compile(r"\([^()]*\)[?*]?|\[[^\[\]]*\](?:[?*]|\{\S*?\})?")
OPTIONAL: Final = re.compile(r"\\x\d\d|\\u\w{4}|\\.|.[?*]")
LETTERS: Final = re.compile(r"[A-Za-z\u4e00-\u9fff-]+")
CJK: Final = r"[\u3400-\u4dbf\u4e00-\u9fff]"
CJK_END: Final = r"[\u3400-\u4dbf\u4e00-\u9fff，。；：！？、）】》”]"
CJK_START: Final = r"[\u3400-\u4dbf\u4e00-\u9fff（【《“]"

PHRASES: Final = (
    # Relative clauses without a noun.
    Rule(r"\bwhoever\b", "the caller, the operator, the client"),
    Rule(
        rf"(?:What(?! (?:happen|follow|remain|change|to |else|if ))|Who) {NO_QUESTION}",
        "a noun: the events that …, the operator who …",
        scope="starts",
    ),
    Rule(
        r"(?:Those|Each|Every one|One|Ones|Others|Such|Nobody|Somebody) (?:that|who|which|whose)\b",
        "the noun: deliveries that …, each handler that …",
        scope="starts",
    ),
    Rule(r"\bit is (?:said|told)\b", "the noun: the message says, the log has"),
    Rule(r"\b(?:nobody|somebody)'s\b", "the noun: of no handler, of an operator"),
    Rule(r"(?<!soon\s)\bas (?:the )?\w+ has it\b", "according to, as … defines"),
    Rule(r"\bwhat is done with\b", "finished records, completed events"),
    Rule(r"\bwhat nobody\b", "a noun: events that match no handler"),
    Rule(r"\bwhat waits\b", "waiting deliveries"),
    Rule(r"\bsuch a one\b", "the noun"),
    # Idioms.
    Rule(r"\bat the most\b", "at most"),
    Rule(r"\bat the least\b", "at least"),
    Rule(r"\bfor ever\b", "forever"),
    Rule(r"\bnought\b", "zero, nothing"),
    Rule(r"\bso (?:many|much) and no more\b", "a limited number, at most N"),
    Rule(r"\bagain and again\b", "repeatedly"),
    Rule(r"\bnow and then\b", "periodically"),
    Rule(r"\banew\b", "again; start anew: restart"),
    Rule(r"\bmend(?:s|ed|ing)?\b", "fix, repair"),
    Rule(r"(?<!\bto\s)\bbe it\b", "even if, whether"),
    Rule(r"\b(?:go|goes|went|going) by\b(?! hand)", "use, follow; of time: pass"),
    Rule(r"\b(?:is|are|was|were|be|been|being) told\b", "is notified, receives, is given"),
    Rule(r"\b(?:say|says|said|saying) of\b", "report, describe"),
    Rule(r"\bsees? to\b(?! (?:which|what|whom)\b)", "handle, take care of"),
    Rule(r"\bso many\b[^.\0]{0,60}\bat (?:the )?most\b", "at most N"),
    Rule(r"\btaken for dead\b", "expired"),
    Rule(r"\bsigns? of life\b", "heartbeat"),
    Rule(r"\bnobody (?:wants?|need wants?)\b", "matches no handler"),
    Rule(r"\b(?:is|are) wanted by nobody\b", "matches no handler"),
    Rule(r"\b(?:fell|falls?|fallen) silent\b", "stop responding, expire"),
    Rule(r"\bmeans? harm\b", "malicious"),
    Rule(r"\bthe books\b|\bbooks balanced?\b", "the counts balance; every accepted callback is accounted for"),
    Rule(r"\bmov(?:e|es|ed|ing) house\b|\bin the house\b", "copy the database; on this machine"),
    Rule(r"\bmust not know\b", "a rule in [tool.importlinter], or nothing"),
    Rule(r"\bcome to the end of\b", "end, finish"),
    Rule(r"\bby (?:its|their|his) own word\b", "its own setting"),
    # Old connectives.
    Rule(
        r"[,;:] for (?:it|they|there|he|she|we|you|nobody|none|nothing)\b(?! to\b)(?= [a-z])",
        "because, or a new sentence",
    ),
    Rule(r"[,;:] else (?:it|they|there|the|a|an|its|no|nothing|nobody|one|this|that|what)\b", "otherwise"),
)
TERMS: Final = (
    # One term for one thing, as in the glossary.
    Rule(r"(?<![/\w-])call-backs?\b(?![/-]|\.\w)", "callback"),
    Rule(r"\bhandlers? (?:is|are|was|were|be|been) held\b|\bheld (?:handlers?|deliver(?:y|ies))\b", "circuit open"),
    Rule(r"\bheld back\b", "blocked"),
    Rule(r"\bshel(?:f|ve|ved|ving)\b", "suspended (the handler is not installed)"),
    Rule("认领", "确认"),
    Rule("裁定", "人工确认"),
    Rule("操作员", "运维人员"),
    Rule("清除", "清理"),
    Rule(rf"{CJK}\x20?Id\b", "ID", scope="exact"),
)
CHINESE: Final = (
    Rule(rf"{CJK_END}[\x20\t]+{CJK_START}", "no space between two Chinese characters", scope="product"),
    Rule(rf"{CJK_END}\n[>\s]*{CJK_START}", "one line for a Chinese paragraph", scope="pages"),
    Rule(rf"{CJK}[,;:!?.]\x20?{CJK}", "a full-width punctuation mark", scope="product"),
)
TEST_NAMES: Final = (
    Rule(r"\btest (?:it|its|that|these)\b", "the noun: the handler, the event", scope="names"),
    Rule(
        r"\b(?:who|whom|what|they|those|them|nobody|somebody|everybody)\b",
        "the noun: events that …, the operator, no process",
        scope="names",
    ),
    Rule(r"\b(?:told|news|heard)\b", "reported, notified, logged; a notification", scope="names"),
    Rule(
        r"\b(?:ought|nought|hardly ever|for ever|written down)\b", "must, zero, rarely, forever, stored", scope="names"
    ),
)
RULES: Final = (*PHRASES, *TERMS, *CHINESE, *TEST_NAMES)


@dataclass(frozen=True, slots=True)
class Allowed:
    """An exception: a text that may stay in one file, and why."""

    path: str
    text: str
    reason: str


ALLOWED: Final = (
    Allowed("tests/support/structure.py", "must not know", "the phrase that this figure counts"),
    Allowed("flowhooks/schema/files.py", "directly in the folder call-back", "the name of the folder"),
    Allowed("tests/unit/schema/test_files.py", "directly in the folder call-back", "the name of the folder"),
)
UNCHECKED: Final = frozenset({"tests/support/prose.py", "tests/unit/support/test_prose.py"})
"""The rules themselves, and their tests."""

SKIPPED_FOLDERS: Final = frozenset({"build", "demo", "dist", "mutants", "site", "__pycache__"})
"""Folders that commands of the Makefile make; folders whose names begin with a dot are skipped, too."""
PLAIN_SUFFIXES: Final = frozenset({".toml", ".yml", ".yaml", ".service", ".conf", ".sql"})
PLAIN_NAMES: Final = frozenset({"Makefile", "Containerfile", "Dockerfile"})


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph, an item of a list, a comment or a string.

    Attributes:
        line: the number of its first line.
        text: with the line ends of the file.
        title: whether it is a heading or the row of a table.
        sentences: whether the lengths of its sentences are checked.
        markdown: whether it is in a page.
    """

    line: int
    text: str
    title: bool = False
    sentences: bool = False
    markdown: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A text that must be rewritten."""

    path: str
    line: int
    text: str
    write: str

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: "{self.text}": write "{self.write}"'


def find(path: str, text: str) -> list[Finding]:
    """All findings in one file.

    Args:
        path: from the project's top level; its name decides how the text is read.
        text: the content of the file.
    """
    found = []
    all_passages = list(passages(path, text))
    searched = {
        "all": all_passages,
        "starts": [passage for passage in all_passages if not passage.title],
        "pages": [passage for passage in all_passages if passage.markdown],
        "product": [] if "/tests/" in f"/{path}" else all_passages,
        "names": list(names_of_tests(path, text)),
    }
    searched["exact"] = searched["product"]
    texts = {scope: END.join(passage.text for passage in chosen) for scope, chosen in searched.items()}
    lowered = {scope: text if scope in {"starts", "exact"} else _lower(text) for scope, text in texts.items()}
    for rule in RULES:
        joined = texts[rule.scope]
        if rule.needle not in lowered[rule.scope]:
            continue
        for match in rule.pattern.finditer(lowered[rule.scope]):
            matched = joined[match.start() : match.end()]
            start = match.start() + len(matched) - len(matched.lstrip())
            passage = searched[rule.scope][joined.count(END, 0, start)]
            line = passage.line + joined.count("\n", joined.rfind(END, 0, start) + 1, start)
            found.append(Finding(path, line, " ".join(matched.split()), rule.write))
    found += [
        Finding(path, line, f"{opening} …", f"sentences of at most {MAX_WORDS} words (this one has {words})")
        for passage in all_passages
        if passage.sentences
        for line, words, opening in long_sentences(passage)
    ]
    return sorted(set(found))


def _lower(text: str) -> str:
    """The text with small ASCII letters; as long as before."""
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def passages(path: str, text: str) -> Iterator[Passage]:
    """The passages of one file."""
    name = path.rpartition("/")[2]
    if name.endswith(".md"):
        return markdown_passages(text)
    if name.endswith(".py"):
        return python_passages(text)
    if name.endswith(".html"):
        return template_passages(text)
    if name.endswith(".json"):
        return json_passages(text)
    if name in PLAIN_NAMES or any(name.endswith(suffix) for suffix in PLAIN_SUFFIXES):
        return plain_passages(text)
    return iter(())


# Pages.
FENCE: Final = re.compile(r"\s*(?:>\s*)*(`{3,}|~{3,})")
INLINE_CODE: Final = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
LINK_TARGET: Final = re.compile(r"\]\([^()\s]*(?:\s+\"[^\"]*\")?\)|\]\[[^\]]*\]")
HTML_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
LIST_ITEM: Final = re.compile(r"\s*(?:>\s*)*(?:[-*+]|\d+[.)])\s+")
LINK: Final = re.compile(r"\[([^\[\]]*)\]")
MOSTLY_LINKS: Final = 0.6


def markdown_passages(text: str) -> Iterator[Passage]:
    """The paragraphs, list items, headings and rows of a page; without code and addresses."""
    lines: list[str] = []
    first = 1
    for number, line in _without_code_blocks(HTML_COMMENT.sub(lambda match: "\n" * match[0].count("\n"), text)):
        title = line.startswith("#") or line.lstrip(" >").startswith("|")
        if title or not line.strip(" >") or LIST_ITEM.match(line):
            if lines:
                yield _paragraph(first, lines)
            lines = []
        if title:
            yield Passage(number, _without_code(line), title=True, markdown=True)
        elif line.strip(" >"):
            first = first if lines else number
            lines.append(line)


def _without_code_blocks(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a page with their numbers, and an empty line in place of each line of code; at last an empty one."""
    fence = ""
    in_list = False
    blank = True
    for number, line in enumerate([*text.split("\n"), ""], 1):
        opening = FENCE.match(line)
        in_list = bool(LIST_ITEM.match(line)) or (in_list and (not line.strip() or line.startswith(" ")))
        indented = blank and not in_list and line.startswith("    ")
        yield number, "" if fence or opening or indented else line
        if fence and opening and opening[1].startswith(fence) and not line.strip(" >`~"):
            fence = ""
        elif opening and not fence:
            fence = opening[1]
        blank = indented or not line.strip()


def _paragraph(first: int, lines: list[str]) -> Passage:
    item = LIST_ITEM.match(lines[0])
    lines = [lines[0][item.end() :] if item else lines[0].lstrip(" >"), *(line.lstrip(" >") for line in lines[1:])]
    text = _without_code("\n".join(lines))
    linked = sum(len(match[1]) for match in LINK.finditer(text))
    return Passage(first, text, sentences=linked < MOSTLY_LINKS * len(text), markdown=True)


def _without_code(text: str) -> str:
    """The text with each piece of code as one word and without the addresses of links; line ends stay."""
    return LINK_TARGET.sub(lambda match: "]" + "\n" * match[0].count("\n"), _shorten_code(text))


# Python.
TOKEN: Final = re.compile(
    r"#(?P<comment>[^\n]*)"
    r"|(?P<prefix>\b[bfru]{1,2})?(?P<quotes>\"{3}|'{3}|\"|')(?P<text>(?:[^\"'\\]+|\\.|(?!(?P=quotes)).)*)(?P=quotes)",
    re.DOTALL | re.IGNORECASE,
)
FIELD: Final = re.compile(r"\{[^{}]*\}")
ESCAPE: Final = re.compile(r"\\[nrt]")
ITEM: Final = re.compile(r"\s*(?:[-*] |\w[\w*., `/]{0,40}: )")
COLUMNS: Final = re.compile(r"\S {2,}\S|^ *[├└│]", re.MULTILINE)
"""A table or a tree of plain characters."""
SECTION: Final = re.compile(r"\s*[A-Z]\w+:\s*\Z")


def python_passages(text: str) -> Iterator[Passage]:
    """The docstrings, comments and strings of a module; adjacent strings and adjacent lines of comments are one."""
    pieces: list[str] = []
    first = line = 1
    end = 0
    kind = ""
    for token in TOKEN.finditer(text):
        between = text[end : token.start()]
        breaks = between.count("\n")
        line += breaks
        token_kind = "string" if token["quotes"] else "comment"
        if kind != token_kind or between.strip() or (token_kind == "comment" and breaks != 1):
            yield from _joined(first, pieces, kind)
            pieces = []
        if token_kind == "comment":
            piece = _shorten_code(token["comment"].lstrip("#: "))
        elif _is_docstring(text, token):
            yield from docstring_passages(line, token["text"])
            piece = ""
        else:
            piece = FIELD.sub("{_}", token["text"]) if token["prefix"] in {"f", "rf", "fr"} else token["text"]
            piece = ESCAPE.sub("  ", piece)
        first = first if pieces else line
        pieces += ["\n" * breaks if pieces else "", piece]
        kind = token_kind
        line += token[0].count("\n")
        end = token.end()
    yield from _joined(first, pieces, kind)


def _joined(first: int, pieces: list[str], kind: str) -> Iterator[Passage]:
    """Yield the passage that pieces form; a string with a single word, such as a key or a name, is no passage."""
    text = "".join(pieces)
    if kind == "comment" or " " in text.strip() or not text.isascii():
        yield Passage(first, text)


def _is_docstring(text: str, token: re.Match[str]) -> bool:
    """Whether a string is a statement: of three quotation marks, with nothing else on its lines."""
    before = text[text.rfind("\n", 0, token.start()) + 1 : token.start()]
    return token["quotes"] == '"""' and not before.strip() and text[token.end() : token.end() + 1] in {"\n", ""}


def docstring_passages(first: int, text: str) -> Iterator[Passage]:
    """The paragraphs of a docstring, and the items of its sections and lists; without code.

    Args:
        first: the number of its first line.
        text: the text between the quotation marks, as it is in the file.
    """
    lines: list[str] = []
    start = first
    indent = 0
    fenced = verbatim = hanging = False
    for number, line in enumerate([*text.split("\n"), ""], first):
        blank = not line.strip()
        fence = "```" in line
        depth = len(line) - len(line.lstrip()) if number > first else 0
        begins = blank or fence or depth < indent or (hanging and depth <= indent) or ITEM.match(line)
        if lines and (begins or SECTION.match(line)):
            text = "\n".join(lines)
            yield Passage(start, _shorten_code(text), sentences=not COLUMNS.search(text))
            lines = []
        fenced ^= fence
        verbatim = not blank and (verbatim or line.strip() == "\\b")  # a paragraph that click prints as it is
        if blank or fence or fenced or verbatim:
            continue
        if not lines:
            start, indent, hanging = number, depth, False
        elif len(lines) == 1 and start > first:
            hanging = depth > indent
        lines.append(line)


def _shorten_code(text: str) -> str:
    """The text with each piece of code as one word; line ends stay."""
    return INLINE_CODE.sub(lambda match: "`_`" + "\n" * match[0].count("\n"), text) if "`" in text else text


TEST: Final = re.compile(r"^ *(?:async )?def (test_\w+)\(", re.MULTILINE)


def names_of_tests(path: str, text: str) -> Iterator[Passage]:
    """The names of the tests in a module of tests, each as words."""
    if path.rpartition("/")[2].startswith("test_"):
        for match in TEST.finditer(text):
            yield Passage(text.count("\n", 0, match.start()) + 1, match[1].replace("_", " "))


# Other files.
TAG: Final = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|<[^<>]*>", re.DOTALL)


def template_passages(text: str) -> Iterator[Passage]:
    """The text and the comments of a template, without tags and code."""
    text = TAG.sub(lambda match: "|" + "\n" * match[0].count("\n"), text)
    return plain_passages(text)


def plain_passages(text: str) -> Iterator[Passage]:
    """Each line of a file by itself."""
    for number, line in enumerate(text.split("\n"), 1):
        if " " in line or not line.isascii():
            yield Passage(number, line, title=True)


JSON_STRING: Final = re.compile(r"\"(?:[^\"\\]|\\.)*\"(?P<key>\s*:)?")


def json_passages(text: str) -> Iterator[Passage]:
    """The strings of a JSON file that are values and have more than one word, such as titles and descriptions."""
    for token in JSON_STRING.finditer(text):
        value = "" if token["key"] else json.loads(token[0])
        if " " in value.strip() or not value.isascii():
            line = text.count("\n", 0, token.start()) + 1
            is_expression = value.startswith("=")  # of FEEL, in the element template
            yield Passage(line, _shorten_code(value.replace("\n", " ")), sentences=not is_expression)


SENTENCE_END: Final = re.compile(r"(?<=[.!?])[\"')\]*_]*\s+(?=[\"'(\[*_`]*[A-Z0-9`_])|(?<=[。！？])")
WORD: Final = re.compile(r"\S*[^\W\d_]\S*")
"""A word with a letter in it: figures and pieces of code do not count."""


def long_sentences(passage: Passage) -> Iterator[tuple[int, int, str]]:
    """The sentences with too many words: line, number of words, the first words."""
    start = 0
    for end in [*(match.end() for match in SENTENCE_END.finditer(passage.text)), len(passage.text)]:
        sentence = passage.text[start:end]
        words = WORD.findall(sentence)
        if len(words) > MAX_WORDS:
            begins = start + len(sentence) - len(sentence.lstrip())
            yield passage.line + passage.text.count("\n", 0, begins), len(words), " ".join(words[:4])
        start = end


def files(root: Path | None = None) -> Iterator[Path]:
    """The files of the project that are checked."""
    for folder, folders, names in walk(root or ROOT):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith("."))
        for name in sorted(names):
            if Path(name).suffix in {".md", ".py", ".html", ".json", *PLAIN_SUFFIXES} or name in PLAIN_NAMES:
                yield Path(folder, name)


def check(paths: Iterable[Path], root: Path | None = None, allowed: Sequence[Allowed] = ALLOWED) -> list[Finding]:
    """The findings in these files that no exception allows, and the exceptions that allow nothing in them."""
    found = []
    used = set()
    checked = set()
    for path in paths:
        name = path.relative_to(root or ROOT).as_posix()
        if name in UNCHECKED:
            continue
        checked.add(name)
        text = path.read_text("utf-8")
        lines = text.split("\n")
        for finding in find(name, text):
            line = lines[finding.line - 1]
            matching = [entry for entry in allowed if entry.path == name and entry.text in line]
            used.update(matching)
            if not matching:
                found.append(finding)
    found += [
        Finding("tests/support/prose.py", 1, entry.text, "no exception: nothing in the file needs it")
        for entry in allowed
        if entry.path in checked and entry not in used
    ]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings; return the exit code: 1 if there are any."""
    parser = argparse.ArgumentParser(description="Check the prose of the project.")
    parser.add_argument("--summary", action="store_true", help="count the findings by file, most first; exit code 0")
    parser.add_argument("paths", nargs="*", type=Path, help="files or folders; default: all files of the project")
    options = parser.parse_args(arguments)
    chosen: list[Path] = []
    for path in options.paths:
        chosen += files(path.resolve()) if path.is_dir() else [path.resolve()]
    found = check(chosen if options.paths else files())
    if options.summary:
        for name, count in Counter(finding.path for finding in found).most_common():
            print(f"{count:5} {name}")
        print(f"{len(found):5} in all")
        return 0
    for finding in found:
        print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
