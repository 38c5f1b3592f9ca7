"""The pages of the documentation and their code blocks."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PLUGINS = ROOT / "plugins"
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *PLUGINS.rglob("*.md")]
    if "{{" not in str(path)  # packages of the template are tested after they are made
)
FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>\w*)[^\n`]*\n(?P<text>.*?)^ *(?P=fence) *$", re.MULTILINE | re.DOTALL
)
NAMED = re.compile(r"`([\w./-]+\.\w+)`[^`]*[:\uff1a]$")
"""A sentence that names the file of the next code block; in Chinese it ends with a full-width colon."""


def name_of(path):
    """A page's path within the project."""
    return str(path.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes:
        page: its page.
        line: the number of its first line.
        language: its language; `""` if there is none.
        text: the code.
        file: the file whose name ends the paragraph before it; otherwise None.
    """

    page: Path
    line: int
    language: str
    text: str
    file: str | None

    @property
    def where(self):
        """The page and the line of the block, for messages."""
        return f"{name_of(self.page)}:{self.line}"


def blocks(page, *languages):
    """The code blocks of a page in some languages or all."""
    text = page.read_text("utf-8")
    found_blocks = []
    for match in FENCE.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n\n")[2].replace("\n", " ")
        named = NAMED.search(before)
        found_blocks.append(
            Block(
                page=page,
                line=text.count("\n", 0, match.start()) + 1,
                language=match["language"],
                text=textwrap.dedent(match["text"]) if match["indent"] else match["text"],
                file=named[1] if named else None,
            )
        )
    return [block for block in found_blocks if not languages or block.language in languages]


def prose(page):
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text("utf-8"))
