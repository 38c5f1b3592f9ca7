"""The page's Java code for signing, compiled, run, and verified by the library of Standard Webhooks."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

PROJECTS = Path(__file__).parents[1] / "data/engines/signature"
PAGE = Path(__file__).parents[2] / "docs/how-to/let-engines-in.md"


def test_the_page_shows_the_code_that_is_run():
    """The page's code equals the code that is run."""
    (shown,) = re.findall(r"^```java\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert shown == (PROJECTS / "Signature.java").read_text("utf-8")


@pytest.mark.java
def test_the_library_verifies_signatures_of_java(tmp_path):
    """The library verifies Java's signatures, including their time."""
    compiler, java = shutil.which("javac"), shutil.which("java")
    if not compiler or not java:
        pytest.skip("there is no Java (Debian: apt-get install default-jdk-headless)")
    subprocess.run([compiler, "-encoding", "UTF-8", "-d", tmp_path, *sorted(PROJECTS.glob("*.java"))], check=True)
    secret = f"whsec_{base64.b64encode(bytes(range(200, 232))).decode()}"
    body = tmp_path / "body.json"
    body.write_text('{"businessKey": "合同"}', "utf-8")
    command = [java, "-Dfile.encoding=UTF-8", "-cp", tmp_path, "com.example.flowhooks.SignatureHarness"]
    ran = subprocess.run([*command, secret, "row-1", body], check=True, capture_output=True, text=True)
    headers = dict(line.split("=", 1) for line in ran.stdout.splitlines())
    assert headers["webhook-id"] == "row-1"
    assert Webhook(secret).verify(body.read_bytes(), headers) == json.loads(body.read_bytes())
