"""The schema files in a wheel that is built and unpacked."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from flowhooks.schema.files import shipped_dir

CHECKOUT = Path(__file__).resolve().parents[3]


def test_a_wheel_contains_the_schema_files(tmp_path):
    """A wheel contains the files, and an installed flowhooks uses those."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=CHECKOUT, check=True
    )
    [wheel] = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    code = (
        "import flowhooks; from flowhooks.schema import files, schemas; "
        "print(flowhooks.__file__, files.shipped_dir(), *schemas.Schemas.load().documents)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=installed, check=True, capture_output=True, text=True)
    package, folder, *names = said.stdout.split()
    assert Path(package).parent == installed / "flowhooks"
    assert Path(folder) == installed / "flowhooks" / "schemas"
    assert names == sorted(file.relative_to(shipped_dir()).as_posix() for file in shipped_dir().rglob("*.json"))
