"""The strict JSON reader and an independent one, written from the RFC, accept the same texts with the same values."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress

import pytest

from flowhooks.errors import MalformedRequest
from flowhooks.schema import parse
from support import fuzz_strict, rfc8259

SEED = 20261125
SPACES = ["", "", "", "", " ", "\n", "\t", "\r\n", "  "]
NO_SPACES = ["\x0b", "\x0c", "\xa0", "\ufeff", "\u2028", "//\n", "/**/", "#\n"]
NUMBERS = [
    *("0", "-0", "1", "-1.5", "1.0", "-0.0", "1e3"),
    *("1E+3", "1e-3", "0.1e1", "1e-400", "4.9e-324", "1.7976931348623157e308"),
    *("9007199254740991.0", "9007199254740992.0", "9007199254740993", "-9007199254740991.0", "-9007199254740992.0"),
    *("9" * 400, "9" * 4300, "-" + "9" * 4300, "0." + "0" * 500 + "1", "1e0000000000000000000001"),
]  # fmt: skip
NO_NUMBERS = [
    *("NaN", "Infinity", "-Infinity", "nan", "1e400", "-1e400"),
    *("9" * 400 + ".0", "9" * 4301, "-" + "9" * 4301, "00", "01"),
    *("-", "+1", ".5", "1.", "1e", "1e+", "0x1", "1_0", "1,0"),
    *("--1", "1e1.0", "\u0661", "\uff11", "1\u0661", "1e\u0661", "1L", "1j"),
]  # fmt: skip
PIECES = [
    *("a", "b", " ", "{", "]", ":", ",", "'", "/"),
    *("\x7f", "\x85", "\u2028", "\ufffe", "\u540d", "\U0001f600", "//", "null"),
    *('\\"', "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r"),
    *("\\t", "\\u0001", "\\u4e2D", "\\ud83d\\ude00", "\\uDBFF\\uDFFF", "\\u005c"),
    *("\\u0022", "\\uffff", "\\ud7ff", "\\ue000", "\\\\u0000", "\\\\ud83d", "\\\\\\\\"),
]  # fmt: skip
NO_PIECES = [
    *("\\u0000", "\\u0000", "\\u0000a", "\\u0000\\\\", "\\ud83d", "\\ude00", "\\ude00\\ud83d", "\\ud83d\\ud83d\\ude00"),
    *("\\ud83d\\u0041", "\\ud83dx\\ude00", "\\ud83d\\n", "\\uDFFF", "\\udbff\\ue000", "\\udfff\\udbff"),
    *("\\x41", "\\u00", "\\u 041", "\\u+041", "\\u-041"),
    *("\\u0x41", "\\u0_41", "\\uff11", "\\u\uff11\uff12\uff13\uff14", "\\U0041"),
    *("\\", "\\'", "\\0", "\\a", "\\\n", "\x00", "\n", "\t", "\x1f", '"', '\\\\"'),
]  # fmt: skip
NAMES = ["a", "b", "ab", "", "A", "\\u0061", "\\u0061b", "\\ud83d\\ude00", "\U0001f600", "a\\u0062", "\\/", "/"]
WORDS = ["null", "null", "true", "false"]
NO_WORDS = ["None", "True", "nul", "nulll", "NULL", "undefined", "'a'", "a", "", "\\", "n\\u0075ll", "[]]", "{}}"]
BYTES = [
    *(b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u"),
    *(b"0", b"e", b".", b"-", b" ", b"\xff", b"\x80", b"\xed\xa0\x80"),
    *(b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xf0\x9f\x98", b"\x00", b"\xef\xbb\xbf"),
    *(b"\xfe\xff", b"null", b"[" * 70, b'{"":' * 70),
]  # fmt: skip

REFUSALS = (
    *("body_bom", "body_not_utf8", "body_too_deep", "body_not_json", "body_not_object", "duplicate_member"),
    *("string_nul", "string_surrogate", "number_too_long", "number_not_finite", "number_constant"),
)
"""The reasons of refusals, except for a missing body."""


class Writer:
    """Writes JSON in many forms, with a given share of errors."""

    def __init__(self, chance, wrong):
        self.chance = chance
        self.wrong = wrong

    def pick(self, right, wrong):
        """A correct or an incorrect choice."""
        return self.chance.choice(wrong if self.chance.random() < self.wrong else right)

    def space(self):
        """White space."""
        return self.pick(SPACES, NO_SPACES)

    def value(self, depth):
        """Any value."""
        kind = self.chance.random()
        if kind < 0.3 and depth < 6:
            return self.object(depth + 1)
        if kind < 0.5 and depth < 6:
            return self.between("[", "]", lambda: self.value(depth + 1))
        if kind < 0.65:
            return self.pick(NUMBERS, NO_NUMBERS)
        if kind < 0.7:
            return repr(self.chance.uniform(-1, 1) * 10 ** self.chance.randint(0, 30))
        return self.string() if kind < 0.85 else self.pick(WORDS, NO_WORDS)

    def string(self):
        """A string."""
        return f'"{"".join(self.pick(PIECES, NO_PIECES) for _ in range(self.chance.randrange(5)))}"'

    def object(self, depth):
        """An object whose names differ unless it has an error."""
        names = self.chance.sample(NAMES[:5] + [f"n{number}" for number in range(9)], 8)

        def member():
            name = names.pop() if self.chance.random() >= self.wrong else self.chance.choice(NAMES)
            written = f'"{name}"' if self.chance.random() < 0.8 else self.string()
            return f"{written}{self.space()}{self.pick([':'], ['', '=', '::'])}{self.space()}{self.value(depth)}"

        return self.between("{", "}", member)

    def between(self, opens, closes, part):
        """Parts between brackets, separated by commas."""
        written = [f"{self.space()}{part()}{self.space()}" for _ in range(self.chance.randrange(5))]
        comma = self.pick([","], ["", ",,", ";", ", ,"])
        return f"{opens}{comma.join(written) or self.space()}{self.pick([''], [',', closes, opens])}{closes}"


def deep(chance):
    """An object near the maximum depth."""
    opening = chance.choices(['{"a":', "[", '{"[":', '[{"b":1},', '[[],"]",'], k=chance.randrange(58, 68))
    closing = "".join("}" if fragment.startswith("{") else "]" for fragment in reversed(opening))
    return '{"n":' + "".join(opening) + "1" + closing + "}"


def bodies(seed):
    """An endless series of bodies: correct ones, ones with an error, and ones with changed bytes."""
    chance = random.Random(seed)
    while True:
        writer = Writer(chance, chance.choice([0, 0, 0.02, 0.05, 0.1, 0.3]))
        text = deep(chance) if chance.random() < 0.05 else f"{writer.space()}{writer.object(0)}{writer.space()}"
        if chance.random() < 0.03:
            text = writer.value(0)
        raw = bytearray(text.encode())
        for _ in range(chance.choice([0, 0, 0, 0, 0, 0, 1, 1, 3])):
            at = chance.randrange(len(raw) + 1)
            raw[at : at + chance.randrange(3)] = chance.choice([*BYTES, raw[:at][-9:], chance.randbytes(2)])
        yield bytes(raw)


def agree(seed, times):
    """Let both readers read this many bodies; return the reasons of refusals with their counts."""
    found = Counter()
    for _, body in zip(range(times), bodies(seed), strict=False):
        fuzz_strict.agree(body)
        try:
            parse(body)
        except MalformedRequest as refusal:
            found[refusal.key] += 1
        else:
            found["taken"] += 1
    return found


def test_both_readers_agree():
    """For thousands of fixed bodies both readers return the same value or refuse, and raise nothing else."""
    found = agree(SEED, 6_000)
    assert found["taken"] > 1_000, found
    assert all(found[why] > 3 for why in REFUSALS), found


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_both_readers_agree_on_a_million_bodies():
    """The same for a million bodies, different ones each time."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}: {dict(agree(seed, 1_000_000))}")  # noqa: T201 (what `make test-long` is to show)


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed: pip install atheris")
def test_the_fuzzer_finds_nothing(tmp_path):
    """Two minutes of atheris, which searches inputs that reach new lines of the reader."""
    ran = subprocess.run(
        [sys.executable, fuzz_strict.__file__, "-max_total_time=120", "-max_len=4096", "-print_final_stats=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-5000:]
    print(*[line for line in ran.stderr.splitlines() if "number_of_executed_units" in line])  # noqa: T201 (as above)


def test_the_reference_parsers_accept_and_reject_known_texts():
    """The reference parsers accept and refuse these texts, too."""
    assert rfc8259.parse_callback(b' {"a": [null, 1.0, 1.5, {"b": null}], "\\ud83d\\ude00": "\\u0041"} ') == {
        "a": [None, 1, 1.5, {}],
        "\U0001f600": "A",
    }
    refused = [
        b"",
        b"[]",
        b"{} x",
        b'{"a":1,}',
        b'{"a":1,"\\u0061":1}',
        b'{"a":01}',
        b'{"a":"\\ud83d"}',
        b"\xef\xbb\xbf{}",
    ]
    for body in refused:
        with pytest.raises(rfc8259.InvalidBody):
            rfc8259.parse_callback(body)


MADE = {
    "brackets": lambda size: b"[" * size,
    "objects": lambda size: b'{"a":' * (size // 5),
    "brackets in a string": lambda size: b'{"a":"%s"}' % (b"[" * size),
    "quotes": lambda size: b'"' * size,
    "backslashes": lambda size: b'{"a":"%s' % (b"\\" * size),
    "escaped quotes": lambda size: b'{"a":"%s"}' % (b'\\"' * (size // 2)),
    "pairs": lambda size: b'{"a":"%s\\ud800"}' % (b"\\ud83d\\ude00" * (size // 12)),
    "digits": lambda size: b'{"a":%s}' % (b"1" * size),
    "digits of a fraction": lambda size: b'{"a":0.%s1}' % (b"0" * size),
    "digits of an exponent": lambda size: b'{"a":1e-%s}' % (b"1" * size),
    "a number near the middle of two": lambda size: b'{"a":9007199254740993.%s1}' % (b"0" * size),
    "whole numbers": lambda size: b'{"a":[%s]}' % b",".join([b"1" * 4000] * (size // 4001)),
    "names": lambda size: b"{%s}" % b",".join(b'"%d":1' % number for number in range(size // 10)),
    "one name": lambda size: b"{%s}" % b",".join([b'"a":1'] * (size // 6)),
    "nulls": lambda size: b'{"a":[%s]}' % b",".join([b'{"b":null}'] * (size // 11)),
    "lines": lambda size: b'{"a":%sx' % (b"\n" * size),
    "no UTF-8 at the end": lambda size: b'{"a":"%s\xff' % (b"a" * size),
}
SMALL, TIMES = 50_000, 8


def seconds(body):
    """The thread's processor time for reading the text; the minimum of several tries."""
    taken = []
    for _ in range(3):
        began = time.thread_time()
        with suppress(MalformedRequest):
            parse(body)
        taken.append(time.thread_time() - began)
    return min(taken)


@pytest.mark.parametrize("name", MADE)
def test_the_time_is_proportional_to_the_input_length(name):
    """Input of eight times the length takes eight times as long, not sixty-four, even if it invites repeated scans."""
    small, large = seconds(MADE[name](SMALL)), seconds(MADE[name](SMALL * TIMES))
    assert large < 4 * TIMES * max(small, 0.0002), (small, large)
