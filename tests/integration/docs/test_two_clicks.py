"""Topics that readers look for are at most two links away from each home page and from each README."""

from __future__ import annotations

import re

import pytest

from support.code_blocks import DOCS, ROOT, name_of, prose

CLICKS = 2
TOPICS = {
    "production install": ("docs/how-to/production-checklist.md",),
    "security": ("docs/how-to/security-checklist.md",),
    "upgrade": ("docs/how-to/upgrade.md",),
    "exactly-once": ("docs/how-to/write-a-plugin.md", "docs/explanation/delivery.md"),
    "all settings": ("docs/reference/settings.md",),
    "Python API": ("docs/reference/python.md",),
    "contributing": ("CONTRIBUTING.md",),
    "troubleshooting": ("docs/how-to/troubleshooting.md",),
}
"""The pages of each topic, all of which must be near."""
HOMES = [DOCS / "README.md", ROOT / "README.md", DOCS / "README.zh-CN.md", ROOT / "README.zh-CN.md"]


def linked(page):
    """The Markdown pages of the project that a page links to."""
    for target in re.findall(r"\]\(([^)#\s]+)", prose(page)):
        file = (page.parent / target).resolve()
        if file.suffix == ".md" and file.is_file():
            yield file


def near(home):
    """The pages that are at most `CLICKS` links away from a page, each with its distance."""
    clicks = {home: 0}
    for distance in range(1, CLICKS + 1):
        for page in [page for page, there in clicks.items() if there == distance - 1]:
            for target in linked(page):
                clicks.setdefault(target, distance)
    return {name_of(page): distance for page, distance in clicks.items()}


@pytest.mark.parametrize("home", HOMES, ids=name_of)
@pytest.mark.parametrize("topic", TOPICS)
def test_topics_are_two_clicks_away(home, topic):
    """Each page of the topic, in the home page's language if it exists, can be reached in two clicks."""
    clicks = near(home)
    for page in TOPICS[topic]:
        chinese = page.replace(".md", ".zh-CN.md")
        wanted = chinese if ".zh-CN." in home.name and (ROOT / chinese).is_file() else page
        assert wanted in clicks, f"{wanted} is more than {CLICKS} clicks away from {name_of(home)}"


def test_the_search_by_clicks_does_not_find_every_page():
    """The search by clicks does not find every page."""
    pages = {name_of(page) for page in DOCS.rglob("*.md")}
    assert pages - near(ROOT / "README.md").keys()
