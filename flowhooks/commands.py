"""Commands as text for an operator to paste into a shell: every value in them is quoted."""

from __future__ import annotations

import shlex

shell_quote = shlex.quote
"""One value as a shell reads it back, whatever is in it."""


def command_line(*words: str) -> str:
    """`flowhooks` with these words, quoted for a shell. An option with its value is one word: `--key=VALUE`."""
    return shlex.join(("flowhooks", *words))
