"""Parse `docs/deploy/Containerfile`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).parents[2] / "docs/deploy/Containerfile"


class Step(NamedTuple):
    """One instruction.

    Attributes:
        stage: the number of its stage, from 0.
        word: its keyword, such as `RUN`.
        text: its arguments, on one line.
    """

    stage: int
    word: str
    text: str

    @property
    def words(self):
        """The words of an instruction in exec form, which no shell reads; None for another form."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None


def steps():
    """Every instruction, in order."""
    lines = [line for line in FILE.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    found_steps, stage = [], -1
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, text = line.partition(" ")
            stage += word == "FROM"
            found_steps.append(Step(stage, word, text.strip()))
    return found_steps


def last(word):
    """The last instruction of a kind in the image itself."""
    all_steps = steps()
    return [step for step in all_steps if step.word == word and step.stage == all_steps[-1].stage][-1]


def environment():
    """The variables that `ENV` sets."""
    return dict(pair.split("=", 1) for pair in shlex.split(last("ENV").text))


def health():
    """The health check's command and its times."""
    options, _, command = last("HEALTHCHECK").text.partition("CMD ")
    return json.loads(command), dict(re.findall(r"--([a-z-]+)=(\w+)", options))
