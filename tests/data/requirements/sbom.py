"""Write the requirements of the wheel as a reproducible CycloneDX SBOM.

Versions and hashes are those of run.txt; licences and dependencies come from the packages themselves, which
are installed here in the same versions. The same files give the same SBOM, byte for byte.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[3]
LOCKED: Final = ROOT / "tests/data/requirements/run.txt"


def locked() -> dict[str, tuple[Requirement, list[str]]]:
    """Each locked package by name: its requirement, and the SHA-256s of its files."""
    entries = re.split(r"\n(?=\S)", LOCKED.read_text().replace("\\\n", ""))
    found = {}
    for entry in entries:
        if entry.startswith("#"):
            continue
        asked, *hashes = re.split(r"\s+--hash=sha256:", entry.strip())
        requirement = Requirement(asked)
        found[str(requirement)] = (requirement, hashes)
    return found


def component(requirement: Requirement, hashes: list[str]) -> Component:
    """One package with the licence that its installed metadata declares."""
    (version,) = (specifier.version for specifier in requirement.specifier)
    name = canonicalize_name(requirement.name)
    purl = PackageURL("pypi", name=name, version=version)
    made = Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        purl=purl,
        bom_ref=f"{purl}{f'#{requirement.marker}' if requirement.marker else ''}",
        external_references=[
            ExternalReference(
                type=ExternalReferenceType.DISTRIBUTION,
                url=XsUri(str(purl)),
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in hashes],
            )
        ],
    )
    if requirement.marker:
        made.properties.add(Property(name="flowhooks:marker", value=str(requirement.marker)))
    try:
        told = metadata(name)
    except PackageNotFoundError:  # the marker excludes this system
        return made
    licence = told.get("License-Expression") or told.get("License")
    if licence and "\n" not in licence:
        made.licenses.add(LicenseFactory().make_from_string(licence))
    return made


def project() -> dict[str, Any]:
    """The project's own metadata."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bom(folder: Path) -> Bom:
    """The SBOM of the wheel, with the wheel's own hash if it is in `folder`."""
    told = project()
    ours = PackageURL("pypi", name=told["name"], version=told["version"])
    root = Component(
        name=told["name"],
        version=told["version"],
        type=ComponentType.APPLICATION,
        description=told["description"],
        purl=ours,
        bom_ref=str(ours),
        licenses=[LicenseFactory().make_from_string(told["license"])],
        hashes=[
            HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(wheel.read_bytes()).hexdigest())
            for wheel in folder.glob(f"flowhooks-{told['version']}-*.whl")
        ],
    )
    packages = [component(*entry) for entry in locked().values()]
    named = {package.name: package for package in packages}
    made = Bom(components=packages, serial_number=uuid5(NAMESPACE_URL, f"{ours}:{LOCKED.read_text()}"))
    made.metadata.timestamp = None  # omitted, so that the file is reproducible
    made.metadata.component = root
    extras = (requirement for extra in told["optional-dependencies"].values() for requirement in extra)
    asked = {root: [*told["dependencies"], *extras]}
    for package in packages:
        try:
            asked[package] = requires(package.name) or []
        except PackageNotFoundError:
            asked[package] = []
    for package, wanted in asked.items():
        names = {canonicalize_name(Requirement(line).name) for line in wanted}
        made.register_dependency(
            package, [named[name] for name in sorted(names & named.keys()) if named[name] is not package]
        )
    return made


def main() -> None:
    """Write the SBOM into a folder after checking it against its schema."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    made = bom(folder)
    text = JsonV1Dot6(made).output_as_string(indent=2)
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"not what the schema of CycloneDX allows: {wrong}")
    file = folder / f"flowhooks-{project()['version']}.cdx.json"
    file.write_text(text + "\n")
    print(f"{file}: {len(made.components)} packages")


if __name__ == "__main__":
    main()
