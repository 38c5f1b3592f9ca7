"""Read the metadata of an installed package."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from flowhooks.hookspecs import PROJECT
from flowhooks.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_HOME_PAGE_LABELS: Final = ("homepage", "home", "home page", "documentation", "repository", "source")
"""Labels of `Project-URL` for a home page, the likeliest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An installed package.

    Attributes:
        name: name as written by its author.
        version: version.
        summary: one-line summary; `""` if there is none.
        home_page: home page; `""` if there is none.
        plugins: names of its plugins.
    """

    name: str
    version: str
    summary: str
    home_page: str
    plugins: tuple[str, ...]


def find_package(name: str) -> Package | None:
    """Return the installed package with this name in any spelling; None if it is missing or its metadata is damaged."""
    importlib.invalidate_caches()
    try:
        distribution = metadata.distribution(name)
        fields = distribution.metadata
        return Package(
            name=printable_line(_first(fields, "Name") or name),
            version=printable_line(_first(fields, "Version")),
            summary=printable_line(_first(fields, "Summary")),
            home_page=printable_line(_home_page(_first(fields, "Home-page"), fields.get_all("Project-URL") or ())),
            plugins=tuple(
                sorted({entry_point.name for entry_point in distribution.entry_points.select(group=PROJECT)})
            ),
        )
    except Exception:  # noqa: BLE001 (a missing package or a damaged file may raise any error)
        return None


def _first(fields: metadata.PackageMetadata, name: str) -> str:
    # From Python 3.14 on, `fields[name]` raises an error if there is no such field.
    values: Sequence[Any] = fields.get_all(name) or ("",)
    return str(values[0])


def _home_page(field: str, urls: Sequence[str]) -> str:
    if field and field != "UNKNOWN":
        return field
    by_label = dict(_labelled(urls))
    return next(
        (by_label[label] for label in _HOME_PAGE_LABELS if label in by_label), next(iter(by_label.values()), "")
    )


def _labelled(urls: Sequence[str]) -> Iterator[tuple[str, str]]:
    for labelled_url in urls:
        label, _, url = labelled_url.partition(",")
        yield label.strip().lower(), url.strip()
