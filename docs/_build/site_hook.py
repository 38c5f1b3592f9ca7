"""A hook of MkDocs that adds files of the project to the site if pages link to them.

The pages in `docs/` link to files outside of it. This puts each such file on the site, under `project/` and its own
path, and turns the links there; Markdown as a page, everything else as a page that shows it.
"""

# ruff: noqa: INP001 (a hook of MkDocs, in no package)
from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = "docs/"
PROJECT: Final = "project/"
"""Folder on the site for files from outside of `docs/`."""
LINK: Final = re.compile(r"(\]\()([^()\s#]+)((?:#[^()\s]*)?\))")
CODE: Final = re.compile(r"(^ *(```+).*?^ *\2 *$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
CHINESE: Final = {
    r'"Search"': '"搜索"',
    r'"Type to start searching"': '"输入文字以搜索"',
    r"\bTable of contents\b": "目录",
    r"\bSkip to content\b": "跳至内容",
    r"\bBack to top\b": "回到顶部",
    r'"Previous: ': '"上一页：',
    r'"Next: ': '"下一页：',
    r"(?<=\n) +Previous\n": "上一页\n",
    r"(?<=\n) +Next\n": "下一页\n",
}
"""Patterns of the theme's texts, and their Chinese replacements."""
LANGUAGES: Final = {".py": "python", ".json": "json", ".toml": "toml", ".sh": "sh", ".yml": "yaml"}


def on_config(config: MkDocsConfig) -> None:
    """Replace a name with a `*` in the navigation by all pages that match it, in order."""
    config.nav = _spread(config.nav, Path(config.docs_dir))


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the files to which pages link, including pages that were added in this way."""
    named = [entry.removeprefix(PROJECT) for entry in _leaves(config.nav) if entry.startswith(PROJECT)]
    waiting = [*named, *(DOCS + file.src_uri for file in files.documentation_pages())]
    known = set(waiting)
    while waiting:
        path = waiting.pop()
        if ours(path) and not path.endswith(".md"):
            continue  # a picture, say, which MkDocs has already
        text = (ROOT / path).read_text("utf-8")
        if not ours(path):
            files.append(
                File.generated(config, place(path), content=text if path.endswith(".md") else shown(path, text))
            )
        for target in targets(path, text) if path.endswith(".md") else ():
            if target not in known and (ROOT / target).is_file():
                known.add(target)
                waiting.append(target)


def on_page_markdown(markdown: str, page: Page, **_given: Any) -> str:
    """Change the links of a page to the addresses of their targets on the site."""
    here = origin(page.file.src_uri)
    return turned(markdown, here) if here.endswith(".md") else markdown


def on_post_page(output: str, page: Page, **_given: Any) -> str:
    """Name the language of a Chinese page, for screen readers and fonts, and translate the theme's texts on it."""
    if ".zh-CN." in page.file.src_uri:
        output = output.replace('<html lang="en"', '<html lang="zh-CN"', 1)
        for pattern, text in CHINESE.items():
            output = re.sub(pattern, text, output)
    return output


def ours(path: str) -> bool:
    """Return whether MkDocs adds a file without this hook: files in `docs/`, except the code in `docs/_build/`."""
    return path.startswith(DOCS) and not path.endswith(".py")


def place(path: str) -> str:
    """Return the path of a file of the project among the sources of MkDocs.

    Args:
        path: from the project's top level.
    """
    if ours(path):
        return path.removeprefix(DOCS)
    return PROJECT + path + ("" if path.endswith(".md") else ".md")


def origin(source: str) -> str:
    """Return the file of the project from which a source of MkDocs is made; the reverse of `place`."""
    if not source.startswith(PROJECT):
        return DOCS + source
    path = source.removeprefix(PROJECT)
    return path if (ROOT / path).exists() else path.removesuffix(".md")


def targets(path: str, text: str) -> Iterator[str]:
    """Return the files of the project to which a page links, whether they exist or not."""
    for piece, prose in _pieces(text):
        for match in LINK.finditer(piece) if prose else ():
            if target := _meant(path, match[2]):
                yield target


def turned(text: str, path: str) -> str:
    """Return a page's text with its links as they are on the site."""

    def turn(match: re.Match[str]) -> str:
        target = _meant(path, match[2])
        if not target or not (ROOT / target).is_file() or (ours(path) and ours(target)):
            return match[0]
        return match[1] + posixpath.relpath(place(target), posixpath.dirname(place(path))) + match[3]

    return "".join(LINK.sub(turn, piece) if prose else piece for piece, prose in _pieces(text))


def shown(path: str, text: str) -> str:
    """A page that shows a file."""
    fence = "`" * (max(map(len, re.findall("`{3,}", text)), default=2) + 1)
    return f"# `{path}`\n\n{fence}{LANGUAGES.get(Path(path).suffix, 'text')}\n{text.rstrip()}\n{fence}\n"


def _meant(path: str, target: str) -> str | None:
    """Return the path of a link's target from the project's top level; None if it is outside of the project."""
    if "://" in target or target.startswith(("/", "mailto:")):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Split a page into pieces of prose and code; yield each piece, and whether it is prose."""
    rest = 0
    for match in CODE.finditer(text):
        yield text[rest : match.start()], True
        yield match[0], False
        rest = match.end()
    yield text[rest:], True


def _leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for value in nav.values():
            yield from _leaves(value)
    else:
        for value in nav or ():
            yield from _leaves(value)


def _spread(nav: Any, folder: Path) -> Any:
    def spread(one: Any) -> Any:
        return _spread(one, folder)

    if isinstance(nav, dict):
        return {name: spread(value) for name, value in nav.items()}
    if not isinstance(nav, list):
        return nav
    out: list[Any] = []
    for one in nav:
        if isinstance(one, str) and "*" in one:
            out += sorted(path.relative_to(folder).as_posix() for path in folder.glob(one))
        else:
            out.append(spread(one))
    return out
