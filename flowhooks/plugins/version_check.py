"""Whether a plugin's package asks for another flowhooks than this one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from flowhooks.hookspecs import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterable

_OURS: Final = re.compile(rf"\s*{PROJECT}(?![A-Za-z0-9._-])", re.IGNORECASE)


def unmet_requirement(requires: Iterable[str], version: str) -> str | None:
    """What of a package's requirements this version of flowhooks does not meet, such as `"flowhooks>=2"`; or None.

    A pre-release counts as the version that it comes before: 2.0.0rc1 meets `>=2`, for that is what it is tried out
    for, and `>=1.4`; but not `<2`.

    Args:
        requires: the package's `Requires-Dist`, all of them.
        version: the version of flowhooks that runs.
    """
    ours = [line for line in requires if _OURS.match(line)]
    if not ours:
        return None
    # Loaded here: a start without installed plugins has no use for it.
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
