"""Check whether a plugin's package requires another version of flowhooks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from flowhooks.hookspecs import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable

_OURS: Final = re.compile(rf"\s*{PROJECT}(?![A-Za-z0-9._-])", re.IGNORECASE)


def unmet_requirement(requires: Iterable[str], version: str) -> str | None:
    """Return the first requirement that this version of flowhooks does not meet, such as `"flowhooks>=2"`; or None.

    A pre-release counts as its final version: 2.0.0rc1 meets `>=2`, because it is used to test plugins for version 2,
    and `>=1.4`, but not `<2`.

    Args:
        requires: all `Requires-Dist` lines of the package.
        version: running version of flowhooks.
    """
    ours = [line for line in requires if _OURS.match(line)]
    if not ours:
        return None
    # Import here: a start without installed plugins does not need it.
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415
    from packaging.version import Version  # noqa: PLC0415

    running = Version(version)
    for line in ours:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            return line.strip()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        met = requirement.specifier.contains(running, prereleases=True)
        if not met and not requirement.specifier.contains(running.base_version, prereleases=True):
            return f"{PROJECT}{requirement.specifier}"
    return None
