"""The documentation as a site: it builds without warnings, its links work, and nothing is loaded from outside."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import subprocess
import sys
from html import unescape
from urllib.parse import unquote, urlsplit

import pytest

from support.code_blocks import DOCS, ROOT, name_of

PAGES = sorted(DOCS.rglob("*.md"))


HIDDEN = re.compile(r"<!--.*?-->|(<(script|style)\b[^>]*>).*?</\2>", re.DOTALL)
"""Comments, and the content of scripts and styles, in which tags are text."""
TAG = re.compile(
    r"""<([a-z][a-z\d]*)((?:\s+[^\s"'<>/=]+(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>]+))?)*)\s*/?>""", re.IGNORECASE
)
ATTRIBUTE = re.compile(r"""([^\s"'<>/=]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'<>]+))""")


class Read:
    """The links of a page of the site, the files that it loads, and the anchors in it.

    The navigation is on each page, and the parser of the standard library takes more than twice as long.
    """

    def __init__(self, text):
        self.links, self.loaded, self.anchors, self.language = [], [], set(), ""
        for tag, attributes in TAG.findall(HIDDEN.sub(r"\1", text)):
            if attributes:
                self._add(tag.lower(), attributes)

    def _add(self, tag, attributes):
        """Record the links of a tag."""
        given = {name.lower(): unescape(a or b or c) for name, a, b, c in ATTRIBUTE.findall(attributes)}
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "html":
            self.language = given["lang"]
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in {"stylesheet", "icon", "preload", "preconnect"}:
            self.loaded.append(given["href"])
        elif tag in {"script", "img", "iframe", "source", "video", "audio"} and "src" in given:
            self.loaded.append(given["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make docs` builds it, beside compiled code of an earlier build."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "site"
    compiled = DOCS / "_build/__pycache__"
    compiled.mkdir(exist_ok=True)
    (compiled / "earlier_build.pyc").touch()
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when the file is closed
        if not folder.exists():
            made = folder.with_suffix(".new")
            done = subprocess.run(
                [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(made)],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            made.rename(folder)
    return folder


@pytest.fixture(scope="module")
def search(site):
    """The index of the site's search."""
    (file,) = site.glob("search/*.js")
    text = file.read_text("utf-8")
    return json.loads(text[text.index("{") : text.rindex("}") + 1])


@pytest.fixture(scope="module")
def read(site):
    """Every page of the site by its path."""
    return {str(file.relative_to(site)): Read(file.read_text("utf-8")) for file in site.rglob("*.html")}


def test_every_page_is_on_the_site(read):
    """The site has each page of `docs/`, both READMEs and the schema files."""
    made = {name_of(page).removeprefix("docs/").removesuffix(".md") + ".html" for page in PAGES}
    made = {re.sub(r"README\.html$", "index.html", name) for name in made}
    schemas = {f"project/{name_of(file)}.html" for file in (ROOT / "schemas").rglob("*.json")}
    assert made | schemas | {"project/index.html", "project/README.zh-CN.html"} <= set(read)


def test_links_have_existing_targets(site, read):
    """Each link within the site has an existing file and anchor."""
    assert read
    links = {}  # pages of a folder share the links of the navigation
    for name, page in read.items():
        for link in page.links if name != "404.html" else ():
            links.setdefault((name if link.startswith("#") else name.rpartition("/")[0] + "/", link), name)
    root = site.resolve()
    for (_, link), name in links.items():
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (site / name).parent / unquote(parts.path) if parts.path else site / name
        target = target / "index.html" if target.is_dir() else target
        assert target.is_file(), f"{name}: {link}"
        if parts.fragment and target.suffix == ".html":
            there = read[str(target.resolve().relative_to(root))]
            assert unquote(parts.fragment) in there.anchors, f"{name}: {link}"


def test_no_file_is_loaded_from_another_host(site, read):
    """Files that the pages load are part of the site: no fonts, scripts or pictures from other hosts."""
    loaded = {(name, url) for name, page in read.items() for url in page.loaded}
    assert loaded
    for name, url in loaded:
        assert not urlsplit(url).netloc, f"{name}: {url}"
        assert ((site / name).parent / urlsplit(url).path.lstrip("/" if name == "404.html" else "")).exists(), (
            name,
            url,
        )
    for file in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*['\"]?(?:https?:)?//", file.read_text("utf-8")), file


def test_words_are_found_in_both_languages(search):
    """The search has the pages of both languages, in a file that a browser loads without a server."""
    texts = {document["location"]: document["text"] for document in search["docs"]}
    assert any("idempotency" in text for text in texts.values())
    assert any("唯一标识" in text for place, text in texts.items() if place.startswith("reference/http.zh-CN"))


def test_a_chinese_word_is_searched_for_by_its_characters(search):
    """The theme's search marks each character with a star; a star alone would find every page."""
    separator = search["config"]["separator"]
    assert [part for part in re.split(separator, "用SQLite处理") if part] == ["用", "SQLite", "处", "理"]
    assert [part for part in re.split(separator, "处* 理*") if part] == ["处*", "理*"]


def test_chinese_pages_declare_their_language(read):
    """The language of each page is declared for screen readers."""
    languages = {name: page.language for name, page in read.items()}
    assert {name for name, language in languages.items() if language == "zh-CN"} == {
        name for name in read if ".zh-CN." in name
    }
    assert languages["index.html"] == "en"


def test_chinese_pages_have_chinese_controls(site):
    """The theme's own texts are Chinese on a Chinese page, and English on others."""
    chinese, english = ((site / name).read_text("utf-8") for name in ("README.zh-CN.html", "index.html"))
    for text, other in (("目录", "Table of contents"), ('"搜索"', '"Search"'), ("下一页", "Next")):
        assert text in chinese
        assert other not in chinese
        assert text not in english
        assert other in english


def test_no_compiled_code_is_on_the_site(site):
    """The site's hook and its compiled files are not published."""
    assert list((DOCS / "_build/__pycache__").iterdir())
    assert not [file for file in site.rglob("*") if file.name == "__pycache__" or file.suffix in {".py", ".pyc"}]


def test_underscores_in_links_can_be_seen():
    """The line under a link is below the underscores of a name, on the site and in the console."""
    sheets = (DOCS / "_build/site.css", ROOT / "flowhooks/web/admin/console/static/console.css")
    for sheet in sheets:
        offsets = re.findall(
            r"^[^{]*\ba\b[^{]*\{[^}]*text-underline-offset: *0?(\.\d+)em", sheet.read_text("utf-8"), re.MULTILINE
        )
        assert offsets, sheet
        assert all(float(offset) >= 0.3 for offset in offsets), sheet


def hook():
    """The MkDocs hook that builds the site."""
    spec = importlib.util.spec_from_file_location("site_hook", DOCS / "_build/site_hook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "before", "after"),
    [
        (
            "docs/explanation/states.md",
            "[a](../../flowhooks/model/delivery.py)",
            "[a](../project/flowhooks/model/delivery.py.md)",
        ),
        ("docs/README.md", "[a](how-to/operate.md#back-up)", "[a](how-to/operate.md#back-up)"),
        ("README.md", "[a](docs/README.md)", "[a](../README.md)"),
        ("README.md", "[a](README.zh-CN.md#x)", "[a](README.zh-CN.md#x)"),
        ("README.md", "[a](LICENSE)", "[a](LICENSE.md)"),
        ("README.md", "`[a](LICENSE)` [b](https://x.example/LICENSE)", "`[a](LICENSE)` [b](https://x.example/LICENSE)"),
        ("README.md", "```text\n[a](LICENSE)\n```\n[a](LICENSE)", "```text\n[a](LICENSE)\n```\n[a](LICENSE.md)"),
        ("README.md", "[a](no-such-file.md)", "[a](no-such-file.md)"),
        ("plugins/README.md", "[a](../docs/glossary.md)", "[a](../../glossary.md)"),
    ],
)
def test_code_host_links_are_rewritten_to_the_site(page, before, after):
    """A link for a code host leads to the same page on the site; code and external links are unchanged."""
    assert hook().turned(before, page) == after


def test_a_file_is_shown_whole():
    """A file with fences is shown between longer fences."""
    shown = hook().shown("notes.txt", "before\n```python\nx\n```\nafter\n")
    assert shown == "# `notes.txt`\n\n````text\nbefore\n```python\nx\n```\nafter\n````\n"
