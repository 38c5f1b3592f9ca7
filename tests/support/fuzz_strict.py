"""Fuzz the strict JSON reader: `python tests/support/fuzz_strict.py -max_total_time=600`, with atheris installed.

It runs the checks that `tests/integration/schema/test_strict_json_fuzz.py` runs on thousands of inputs. It records the
lines that an input reaches, and continues from inputs that reach new ones.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # where `support` is

from support import rfc8259

SEEDS = (
    b"{}",
    b'{"businessKey": "1", "processDefinitionVersion": 1, "a": [null, true, false, -0.5e+3, {"b": null}]}',
    b'{"\\ud83d\\ude00": "\\"\\\\\\/\\b\\f\\n\\r\\t\\u0001", "a": 1, "\\u0061b": 1e308, "c": -0.0}',
    b'{"a": ' + b"[" * 63 + b"]" * 63 + b"}",
    '{"名": "值 \u202e"}'.encode(),
)
"""The first inputs."""
WORDS = (
    '"{"',
    '"}"',
    '"["',
    '"]"',
    '"\\""',
    '":"',
    '","',
    '"\\\\u"',
    '"\\\\ud83d"',
    '"null"',
    '"1e"',
    '"NaN"',
    '"\\x00"',
)
"""The words that it inserts, as libFuzzer's dictionaries are written."""


def agree(body):
    """Check that the body is read as RFC 8259 says, or refused with the right exception.

    Raises:
        AssertionError: it is not.
    """
    from flowhooks.errors import MalformedRequest
    from flowhooks.schema import parse

    try:
        expected = rfc8259.call_back(body)
    except rfc8259.InvalidBody:
        expected = None
    found = refusal = None
    try:
        found = parse(body)
    except MalformedRequest as refused:
        refusal = refused
    if refusal:
        assert all(refusal.text(language).isprintable() for language in ("en", "zh"))
        assert len(refusal.text("en")) < 300
        assert 0 < refusal.params.get("line", 1) <= body.count(b"\n") + 1, refusal.params
        assert 0 < refusal.params.get("column", 1) <= len(body) + 1, refusal.params
    assert same(found, expected), (found, expected)


def same(one, other):
    """Whether two values are the same JSON, numbers of one kind included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def main(arguments):
    """Fuzz until a fault is found, or as long as libFuzzer's options say."""
    import atheris

    with atheris.instrument_imports(include=["flowhooks.schema", "json"]):
        import flowhooks.schema  # noqa: F401 (instrumented by being imported here)
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS):
            (Path(folder) / str(number)).write_bytes(seed)
        words = Path(folder) / "words"
        words.write_text("\n".join(WORDS))
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        given = [argument for argument in arguments if not argument.startswith("-")] or [str(corpus)]
        options = [argument for argument in arguments if argument.startswith("-")]
        atheris.Setup([sys.argv[0], f"-dict={words}", *options, *given, folder], agree)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
