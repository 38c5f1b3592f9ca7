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
DICTIONARY = (
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
"""The words that the fuzzer inserts, in the format of libFuzzer's dictionaries."""


def agree(body):
    """Check that the body is parsed according to RFC 8259, or rejected with the right exception.

    Raises:
        AssertionError: it is neither.
    """
    from flowhooks.errors import MalformedRequest
    from flowhooks.schema import parse

    try:
        expected = rfc8259.parse_callback(body)
    except rfc8259.InvalidBody:
        expected = None
    parsed = rejection = None
    try:
        parsed = parse(body)
    except MalformedRequest as error:
        rejection = error
    if rejection:
        assert all(rejection.text(language).isprintable() for language in ("en", "zh"))
        assert len(rejection.text("en")) < 300
        assert 0 < rejection.params.get("line", 1) <= body.count(b"\n") + 1, rejection.params
        assert 0 < rejection.params.get("column", 1) <= len(body) + 1, rejection.params
    assert same(parsed, expected), (parsed, expected)


def same(left, right):
    """Whether two values are the same JSON, with numbers of the same type."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


def main(arguments):
    """Fuzz until a fault is found, or until the time in libFuzzer's options has passed."""
    import atheris

    with atheris.instrument_imports(include=["flowhooks.schema", "json"]):
        import flowhooks.schema  # noqa: F401 (the import instruments it)
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS):
            (Path(folder) / str(number)).write_bytes(seed)
        words = Path(folder) / "words"
        words.write_text("\n".join(DICTIONARY))
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        corpora = [argument for argument in arguments if not argument.startswith("-")] or [str(corpus)]
        options = [argument for argument in arguments if argument.startswith("-")]
        atheris.Setup([sys.argv[0], f"-dict={words}", *options, *corpora, folder], agree)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
