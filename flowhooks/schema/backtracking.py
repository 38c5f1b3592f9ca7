"""Find repetitions in a regular expression that can take exponential time.

`re` tries one way after another to divide a text among repetitions. If a repeated part can match one text in two ways,
a text of n such pieces has 2^n ways, and a text that does not match in the end makes `re` try all of them. The
interpreter is locked meanwhile.

Each character of the repeated part is a position of an automaton; counted repetitions are written out. The repetition
is ambiguous if two different paths of the automaton leave one position with the same text and meet again. Anchors count
as characters of their own that equal no others, so no repetition is reported because of one.

A repetition with a maximum is compared only if its number of ways, for all texts together, is large.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_POSITIONS: Final = 500
"""Maximum number of positions of one repetition. A larger one is not checked."""
MAX_STEPS: Final = 50_000
"""Maximum number of pairs of edges that are compared for one repetition."""
MAX_WRITTEN_OUT: Final = 16
"""Maximum count that is still written out if all counts together have too many positions."""
MAX_WAYS: Final = 100_000
"""Maximum number of ways of a repetition that is not compared. `re` needs less than a second for them."""
MAX_EMPTY_ROUNDS: Final = 10_000
"""Maximum number of rounds in which nested repetitions may match an empty text: `re` makes as many as their counts ask
for.
"""
_PIECE: Final = re.compile(
    r"""
    \\x[0-9a-fA-F]{2} | \\u[0-9a-fA-F]{4} | \\U[0-9a-fA-F]{8} | \\0[0-7]{0,2} | \\[0-7]{3} | \\[0-9]{1,2} | \\.
    | \[ \^? \]? (?: \\. | [^\]\\] )* \]
    | \(\?\# [^)]* \)
    | \(\?P= \w+ \)
    | \(\?\( \w+ \)
    | \( (?: \? (?: : | = | ! | > | <= | <! | P<\w+> | [a-zA-Z]*(?:-[a-zA-Z]+)?: ) )?
    | (?: [*+?] | \{ [0-9]* , [0-9]* \} | \{ [0-9]+ \} ) [?+]?
    | .
    """,
    re.VERBOSE | re.DOTALL,
)
_COUNTS: Final = {"*": (0, None), "+": (1, None), "?": (0, 1)}
_ANCHORS: Final = frozenset({"^", "$", r"\b", r"\B", r"\A", r"\Z"})
_UNKNOWN: Final = -1
"""The characters of a position that matches the same text as no other position."""


@dataclass(frozen=True, slots=True)
class _Character:
    """A part that matches one character."""

    source: str
    flags: str


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    branches: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repetition:
    """A repeated part. `maximum` is None if it has none; `span` is its place in the expression."""

    part: _Node
    minimum: int
    maximum: int | None
    span: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Opaque:
    """An anchor or a back reference, which is not compared with other parts."""


_Node = _Character | _Sequence | _Choice | _Repetition | _Opaque


@lru_cache(maxsize=1024)
def exponential_repetition(expression: str) -> str | None:
    """Return the first repetition that can take exponential time; None if none is found.

    Args:
        expression: an expression that `re` accepts.

    Raises:
        ValueError: the expression has syntax of Python that no ECMAScript has and that is not analysed.
    """
    parser = _Parser(expression)
    roots = [parser.parse(), *parser.separate]
    characters = _CharacterSets(expression)
    for root in roots:
        if endless := _repetition_of_nothing(root):
            return expression[slice(*endless.span)]
        if ambiguous := _ambiguous_repetition(root, characters, MAX_WAYS):
            return expression[slice(*ambiguous.span)]
    return None


class _Parser:
    """Parses an expression.

    Attributes:
        separate: the parts in look-arounds, which `re` matches on their own.
    """

    def __init__(self, expression: str) -> None:
        self.separate: list[_Node] = []
        self._pieces = [(match.group(), match.start(), match.end()) for match in _PIECE.finditer(expression)]
        self._next = 0

    def parse(self, flags: str = "") -> _Node:
        branches: list[_Node] = []
        parts: list[_Node] = []
        while self._next < len(self._pieces) and self._pieces[self._next][0] != ")":
            piece, start, _ = self._pieces[self._next]
            self._next += 1
            if piece == "|":
                branches.append(_Sequence(tuple(parts)))
                parts = []
            else:
                parts.append(self._repeated(self._atom(piece, flags), start))
        sequence = _Sequence(tuple(parts))
        return _Choice((*branches, sequence)) if branches else sequence

    def _atom(self, piece: str, flags: str) -> _Node:
        if piece.startswith("(?#"):
            return _Sequence(())
        if piece in _ANCHORS or piece.startswith("(?P=") or re.fullmatch(r"\\[1-9][0-9]?", piece):
            return _Opaque()
        if not piece.startswith("("):
            return _Character(piece, flags)
        if piece.endswith(":"):
            if "x" in piece:
                raise ValueError("the flag x is not supported")
            flags = _change_flags(flags, piece[2:-1])
        if piece == "(?>":
            raise ValueError("the group (?>...) is not supported; write (?:...)")
        inner = self.parse(flags)
        self._next += 1  # the closing parenthesis
        if piece in {"(?=", "(?!", "(?<=", "(?<!"}:
            self.separate.append(inner)
            return _Sequence(())
        return inner

    def _repeated(self, node: _Node, start: int) -> _Node:
        if self._next >= len(self._pieces):  # also after a parenthesis that is not closed
            return node
        piece, _, end = self._pieces[self._next]
        counts = _counts(piece)
        if counts is None:
            return node
        if piece.endswith("+") and len(piece) > 1:
            raise ValueError(f"the quantifier {piece} is not supported; leave out its last +")
        self._next += 1
        return _Repetition(node, *counts, (start, end))


def _change_flags(flags: str, change: str) -> str:
    """Return the flags in a group whose flags are changed as in `i-s`."""
    added, _, removed = change.partition("-")
    if "a" in added or "u" in added:  # each of these two replaces the other one
        removed += "au"
    return "".join(sorted(set(flags) - set(removed) | set(added)))


def _counts(piece: str) -> tuple[int, int | None] | None:
    """Return the counts of a quantifier; None if the piece is none."""
    if piece[0] in _COUNTS:
        return _COUNTS[piece[0]]
    if piece[0] != "{" or len(piece) < 3:  # noqa: PLR2004 (a brace, a digit or a comma, a brace)
        return None
    least, comma, most = piece[1 : piece.index("}")].partition(",")
    return int(least or 0), int(most) if most else None if comma else int(least)


def _ambiguous_repetition(node: _Node, characters: _CharacterSets, max_ways: int) -> _Repetition | None:
    """Return the first repetition with more than `max_ways` ways that can match one text in several of them."""
    for repetition in _repetitions(node, max_ways):
        ambiguous = repetition if (is_ambiguous := _is_ambiguous(repetition, characters)) else None
        if is_ambiguous is None:  # two ways of a part of it double in each round
            ambiguous = _ambiguous_repetition(repetition.part, characters, max_ways=1)
        if ambiguous is not None:
            return ambiguous
    return None


def _repetitions(node: _Node, max_ways: int) -> Iterator[_Repetition]:
    """Yield the outermost repetitions that are worth a check."""
    match node:
        case _Sequence(parts) | _Choice(parts):
            for part in parts:
                yield from _repetitions(part, max_ways)
        case _Repetition(part, _, maximum):
            is_repeated = maximum is None or maximum > 1
            if is_repeated and _has_choice(part) and _count_ways(node) > max_ways:
                yield node
            else:
                yield from _repetitions(part, max_ways)


def _count_ways(node: _Node) -> int:
    """Return in how many ways a part can match all texts together; a large number as `MAX_WAYS + 1`."""
    ways = 1
    match node:
        case _Sequence(parts):
            for part in parts:
                ways = min(ways * _count_ways(part), MAX_WAYS + 1)
        case _Choice(branches):
            ways = sum(map(_count_ways, branches))
        case _Repetition(part, minimum, maximum):
            one_round = _count_ways(part)
            if maximum is None:
                ways = MAX_WAYS + 1
            elif one_round == 1:
                ways = maximum - minimum + 1
            else:
                ways, rounds = _power(one_round, minimum), minimum
                while rounds < maximum and ways <= MAX_WAYS:
                    rounds += 1
                    ways += _power(one_round, rounds)
    return min(ways, MAX_WAYS + 1)


def _count_empty_rounds(ways: int, minimum: int, maximum: int | None) -> int:
    """Return in how many ways a repetition can be empty if its part can in `ways`; a large number as `MAX_WAYS + 1`."""
    # `re` tries one more round than required, but none after an empty one.
    one_more = 0 if minimum == maximum else _power(ways, minimum + 1)
    return min(_power(ways, minimum) + one_more, MAX_WAYS + 1)


def _power(ways: int, rounds: int) -> int:
    """Return the ways of a number of rounds; a large number as `MAX_WAYS + 1`."""
    power: int = ways ** min(rounds, MAX_WAYS.bit_length())
    return min(power, MAX_WAYS + 1)


def _repetition_of_nothing(node: _Node) -> _Repetition | None:
    """Return the first repetition that makes `re` match an empty text too many times."""
    found: _Repetition | None = None

    def rounds(node: _Node) -> tuple[int, bool]:
        """Return the number of rounds without a character, and whether the part can be empty."""
        nonlocal found
        match node:
            case _Sequence(parts) | _Choice(parts):
                counted = [rounds(part) for part in parts]
                nullable = all if isinstance(node, _Sequence) else any
                return max((count for count, _ in counted), default=1), nullable(empty for _, empty in counted)
            case _Repetition(part, minimum, _):
                count, empty = rounds(part)
                if empty and minimum > 1:
                    count *= minimum
                    found = node if found is None and count > MAX_EMPTY_ROUNDS else found
                return count, empty or minimum == 0
        return 1, isinstance(node, _Opaque)

    rounds(node)
    return found


def _has_choice(node: _Node) -> bool:
    """Tell whether a part can match in more than one way at all."""
    match node:
        case _Sequence(parts):
            return any(map(_has_choice, parts))
        case _Repetition() | _Choice():
            return True
    return False


class _CharacterSets:
    r"""Sets of characters, as bits for a sample of characters.

    The sample has the first and the last character of each range in the expression with their neighbours, and all that
    differ in `\d`, `\s` and `\w`. So two sets have a character in common only if one of the sample is in both.
    """

    def __init__(self, expression: str) -> None:
        codes = {*range(256), 0x661, 0x2003, 0x4E2D}  # a digit, a space and a letter beyond Latin-1, for the flag `u`
        for match in _PIECE.finditer(expression):
            if match.group().startswith("(?#"):
                continue
            for text in re.findall(r"\\x..|\\u.{4}|\\U.{8}|\\?.", match.group(), re.DOTALL):
                if text == r"\N":
                    raise ValueError(r"\N{...} is not supported; write the character")
                code = int(text.lstrip("\\xuU"), 16) if len(text) > 2 else ord(text[-1])  # noqa: PLR2004 (an escape of digits)
                codes |= {code - 1, code, code + 1}
        self._sample = "".join(chr(code) for code in sorted(codes) if 0 <= code <= 0x10FFFF)  # noqa: PLR2004 (Unicode)
        self._known: dict[_Character, int] = {}

    def bits(self, character: _Character) -> int:
        """Return the characters that a part matches."""
        bits = self._known.get(character)
        if bits is None:
            try:
                flags = _change_flags("a", character.flags)  # as in `Pattern`
                matches = re.compile(f"(?{flags}:{character.source})").match
                bits = sum(1 << index for index, text in enumerate(self._sample) if matches(text))
            except re.error:
                bits = _UNKNOWN
            self._known[character] = bits
        return bits


@dataclass(slots=True)
class _Part:
    """First and last positions of a part, and in how many ways the part can be empty, at most `MAX_WAYS + 1`."""

    first: list[int]
    last: list[int]
    empty_ways: int


@dataclass(slots=True)
class _Automaton:
    """The positions of a part, and the positions that may follow each of them.

    Attributes:
        characters: makes sets of characters.
        exact: whether each counted repetition is written out; otherwise a long one counts as endless.
        bits: characters of each position.
        following: for each position, those that may follow it; one may occur twice.
        repeats_nothing: whether a text has several ways because a part of them is empty.
    """

    characters: _CharacterSets
    exact: bool
    bits: list[int] = field(default_factory=list)
    following: list[list[int]] = field(default_factory=list)
    repeats_nothing: bool = False

    def add(self, node: _Node) -> _Part:
        """Add the positions of a part.

        Raises:
            OverflowError: there are too many positions.
        """
        match node:
            case _Character():
                return self._position(self.characters.bits(node))
            case _Opaque():
                return self._position(_UNKNOWN)
            case _Sequence(parts):
                return self._sequence([self.add(part) for part in parts])
            case _Choice(branches):
                added = [self.add(branch) for branch in branches]
                return _Part(
                    [position for part in added for position in part.first],
                    [position for part in added for position in part.last],
                    min(sum(part.empty_ways for part in added), MAX_WAYS + 1),
                )
            case _Repetition(part, minimum, maximum):
                return self._repetition(part, minimum, maximum)

    def _position(self, bits: int) -> _Part:
        number = len(self.bits)
        if number == MAX_POSITIONS:
            raise OverflowError
        self.bits.append(bits)
        self.following.append([])
        return _Part([number], [number], empty_ways=0)

    def _sequence(self, parts: list[_Part]) -> _Part:
        whole = _Part([], [], empty_ways=1)
        for part in parts:
            self.connect(whole.last, part.first)
            self.repeats_nothing |= whole.empty_ways > 1 and bool(part.first)
            self.repeats_nothing |= part.empty_ways > 1 and bool(whole.last)
            whole.first = whole.first + part.first if whole.empty_ways else whole.first
            whole.last = whole.last + part.last if part.empty_ways else part.last
            whole.empty_ways = min(whole.empty_ways * part.empty_ways, MAX_WAYS + 1)
        return whole

    def _repetition(self, node: _Node, minimum: int, maximum: int | None) -> _Part:
        if maximum == 0:
            return _Part([], [], empty_ways=1)
        part = self.add(node)
        if part.empty_ways:
            # Any required round can be the empty one.
            self.repeats_nothing |= maximum != 1 and bool(part.first)
            return _Part(part.first, part.last, _count_empty_rounds(part.empty_ways, minimum, maximum))
        if not self.exact and maximum is not None and minimum < maximum and maximum > MAX_WRITTEN_OUT:
            minimum, maximum = min(minimum, 1), None
        rounds = [part, *(self.add(node) for _ in range((maximum or minimum) - 1))]
        if maximum is None:
            self.connect(rounds[-1].last, rounds[-1].first)
        # x{0,3} is (x(x(x)?)?)?, in which a text has one way only.
        optional = _Part([], [], empty_ways=1)
        for part in reversed(rounds[minimum:]):
            optional = self._sequence([part, optional])
            optional.empty_ways = 1
        return self._sequence([*rounds[:minimum], optional])

    def connect(self, before: list[int], after: list[int]) -> None:
        """Add an edge from each position of `before` to each one of `after`."""
        for position in before:
            self.following[position] += after
            if len(self.following[position]) > MAX_STEPS:
                raise OverflowError

    def is_ambiguous(self) -> bool:
        """Tell whether two different paths leave one position with the same text and meet again.

        Every position can be reached from every other one, because the whole part is repeated.

        Raises:
            OverflowError: there are too many pairs of paths.
        """
        if self.repeats_nothing:
            return True
        steps = 0
        seen: set[tuple[int, int]] = set()
        todo: list[tuple[int, int]] = [(position, position) for position in range(len(self.bits))]
        while todo:
            left, right = todo.pop()
            same = left == right
            for index, after_left in enumerate(self.following[left]):
                others = self.following[right]
                for other_index in range(index + 1 if same else 0, len(others)):
                    steps += 1
                    if steps > MAX_STEPS:
                        raise OverflowError
                    after_right = others[other_index]
                    if after_left == after_right:
                        return True
                    if self._meet(after_left, after_right):
                        pair = (min(after_left, after_right), max(after_left, after_right))
                        if pair not in seen:
                            seen.add(pair)
                            todo.append(pair)
        return False

    def _meet(self, left: int, right: int) -> bool:
        """Tell whether two different positions match a common character."""
        return _UNKNOWN not in (self.bits[left], self.bits[right]) and bool(self.bits[left] & self.bits[right])


def _is_ambiguous(repetition: _Repetition, characters: _CharacterSets) -> bool | None:
    """Tell whether a repetition can match one text in several ways; None: it is too large to be compared."""
    for exact in (True, False):
        automaton = _Automaton(characters, exact)
        try:
            part = automaton.add(repetition.part)
            if part.empty_ways:
                required, maximum = repetition.minimum, repetition.maximum
                automaton.repeats_nothing |= _count_empty_rounds(part.empty_ways, required, maximum) > MAX_WAYS
                automaton.repeats_nothing |= required > 1 and _power(_count_ways(repetition.part), required) > MAX_WAYS
            automaton.connect(part.last, part.first)
            return automaton.is_ambiguous()
        except OverflowError:
            continue
    return None
