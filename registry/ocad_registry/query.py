"""The query grammar of FORMAT.md: a tokenizer, a recursive-descent parser, and predicates over `metadata.json`.

A name denotes a set of values (none when it is missing or null, several when it leads through an array); a comparison
holds when one of them satisfies it, so that with a missing value it is false, `!=` included, and `not` of it true.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import Any, NoReturn

from ocad_registry import names
from ocad_registry.errors import InvalidName, InvalidQuery
from ocad_registry.listing import Entry

Literal = str | float | bool
Predicate = Callable[[Entry], bool]

LENGTH_LIMIT = 10_000
DEPTH_LIMIT = 100
FIELDS = (
    "aliases", "created_at", "data", "description", "environment", "files", "format", "gates", "git_commit", "metric", "metrics",
    "name", "params", "parents", "parity", "passed", "plugin", "ref", "signature", "tags", "task", "version",
)  # fmt: skip
_KEYWORDS = frozenset({"and", "or", "not", "in", "like", "is", "null", "true", "false"})
_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
    (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*|\["(?:[^"]|"")*"\])*)
    | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
    | (?P<string>'(?:[^']|'')*')
    | (?P<symbol><=|>=|!=|[=<>(),])
    )""",
    re.VERBOSE,
)
_SEGMENT = re.compile(r"""\["((?:[^"]|"")*)"\]|\.?([A-Za-z_][A-Za-z0-9_]*)""")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Token:
    """A word of the query; `kind` is name, keyword, number, string, symbol or end."""

    kind: str
    text: str
    place: int


def parse_query(expression: str) -> Predicate:
    """The predicate that `expression` stands for; raises `InvalidQuery` with the column (from 1)."""
    if len(expression) > LENGTH_LIMIT:
        raise InvalidQuery(f"the query is longer than {LENGTH_LIMIT} characters", "shorten it")
    return _Parser(list(_tokens(expression))).parse()


def quote(text: str) -> str:
    """`text` as a string literal of the grammar."""
    return "'" + text.replace("'", "''") + "'"


def field_name(*segments: str) -> str:
    """A dotted name of the grammar, with brackets where a segment needs them: `metrics["val.auc"]`."""
    first, *rest = segments
    plain = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
    return first + "".join(
        f".{part}" if plain.fullmatch(part) else '["' + part.replace('"', '""') + '"]' for part in rest
    )


def _tokens(text: str) -> Iterator[Token]:
    place, end = 0, len(text.rstrip(_SPACE))
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            start = place + len(text[place:]) - len(text[place:].lstrip(_SPACE))
            _fail(start, f"cannot read `{text[start : start + 20]}`")
        kind = str(match.lastgroup)
        word, start = match[kind], match.start(kind)
        if kind == "name" and word.lower() in _KEYWORDS:
            kind, word = "keyword", word.lower()
        yield Token(kind, word, start)
        place = match.end()
    yield Token("end", "the end", end)


def _fail(place: int, cause: str) -> NoReturn:
    raise InvalidQuery(f"query, column {place + 1}: {cause}", "such as `task = 'forecast' and metrics.val_loss < 0.1`")


_SPACE = " \t\r\n"


class _Parser:
    """`or` binds weaker than `and`, `and` weaker than `not`."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def parse(self) -> Predicate:
        predicate = self._or()
        if self._token.kind != "end":
            _fail(self._token.place, f"`{self._token.text}` is one word too many")
        return predicate

    @property
    def _token(self) -> Token:
        return self._tokens[self._next]

    def _take(self, *words: str) -> str | None:
        """The next token's text when it is one of the keywords or symbols `words`, and goes on."""
        token = self._token
        if token.kind in ("keyword", "symbol") and token.text in words:
            self._next += 1
            return token.text
        return None

    def _require(self, word: str) -> None:
        if self._take(word) is None:
            _fail(self._token.place, f"`{word}` belongs here, not `{self._token.text}`")

    def _or(self) -> Predicate:
        terms = [self._and()]
        while self._take("or"):
            terms.append(self._and())
        return terms[0] if len(terms) == 1 else lambda entry: any(term(entry) for term in terms)

    def _and(self) -> Predicate:
        factors = [self._not()]
        while self._take("and"):
            factors.append(self._not())
        return factors[0] if len(factors) == 1 else lambda entry: all(factor(entry) for factor in factors)

    def _not(self) -> Predicate:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            _fail(self._token.place, f"nested deeper than {DEPTH_LIMIT}")
        if self._take("not"):
            predicate = _negated(self._not())
        elif self._take("("):
            predicate = self._or()
            self._require(")")
        else:
            predicate = self._comparison()
        self._depth -= 1
        return predicate

    def _comparison(self) -> Predicate:
        token = self._token
        if token.kind != "name":
            _fail(token.place, f"a field's name belongs here, not `{token.text}`")
        self._next += 1
        path = _path(token)
        if symbol := self._take("=", "!=", "<", "<=", ">", ">="):
            return _any(path, _compare(_COMPARISONS[symbol], self._literal(path)))
        if self._take("is"):
            negated = self._take("not")
            self._require("null")
            return _any(path, lambda value: True) if negated else _negated(_any(path, lambda value: True))
        if self._take("not"):
            return _negated(self._membership(path))
        return self._membership(path)

    def _membership(self, path: tuple[str, ...]) -> Predicate:
        if self._take("in"):
            return self._in(path)
        if self._take("like"):
            token = self._token
            if token.kind != "string":
                _fail(token.place, f"a string belongs after `like`, not `{token.text}`")
            self._next += 1
            pattern = _pattern(token)
            return _any(path, lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None)
        _fail(self._token.place, f"a comparison belongs after `{'.'.join(path)}`, not `{self._token.text}`")

    def _in(self, path: tuple[str, ...]) -> Predicate:
        self._require("(")
        tests = [_compare(operator.eq, self._literal(path))]
        while self._take(","):
            tests.append(_compare(operator.eq, self._literal(path)))
        self._require(")")
        return _any(path, lambda value: any(test(value) for test in tests))

    def _literal(self, path: tuple[str, ...]) -> Literal | names.VersionKey:
        token = self._token
        self._next += 1
        value: Literal
        if token.kind == "string":
            value = token.text[1:-1].replace("''", "'")
        elif token.kind == "number":
            value = float(token.text)
            if math.isinf(value):
                _fail(token.place, f"number `{token.text[:20]}` is out of range")
        elif token.text in ("true", "false") and token.kind == "keyword":
            value = token.text == "true"
        else:
            _fail(token.place, f"a string, number, true or false belongs here, not `{token.text}`")
        return _version_literal(token, value) if path == ("version",) else value


def _version_literal(token: Token, value: Literal) -> names.VersionKey:
    """The field `version` compares by SemVer precedence, so its literals are versions."""
    try:
        return names.version_key(names.check_version(value if isinstance(value, str) else token.text))
    except InvalidName:
        _fail(token.place, f"`version` compares with a version such as `'1.2.0'`, not {token.text}")


def _negated(predicate: Predicate) -> Predicate:
    return lambda entry: not predicate(entry)


def _path(token: Token) -> tuple[str, ...]:
    segments = tuple(plain if plain else quoted.replace('""', '"') for quoted, plain in _SEGMENT.findall(token.text))
    if segments[0] not in FIELDS:
        close = get_close_matches(segments[0], FIELDS, n=1, cutoff=0.5)
        hint = f"did you mean `{close[0]}`?" if close else "known: " + ", ".join(f"`{field}`" for field in FIELDS)
        raise InvalidQuery(f"query, column {token.place + 1}: there is no field `{segments[0]}`", hint)
    return segments


def _pattern(token: Token) -> re.Pattern[str]:
    """`%` is any run of characters, `_` any one; a backslash takes `%`, `_` and itself literally."""
    parts, escaped = [], False
    for character in token.text[1:-1].replace("''", "'"):
        if escaped and character not in "%_\\":
            _fail(token.place, f"`\\{character}` means nothing in a pattern; write `\\\\` for a backslash")
        if not escaped and character == "\\":
            escaped = True
            continue
        wild = {"%": ".*", "_": "."}.get(character) if not escaped else None
        parts.append(wild or re.escape(character))
        escaped = False
    if escaped:
        _fail(token.place, "a pattern ends with a single backslash")
    return re.compile("".join(parts), re.DOTALL)


def _any(path: tuple[str, ...], test: Callable[[Any], bool]) -> Predicate:
    return lambda entry: any(test(value) for value in _values(entry, path))


def _values(entry: Entry, path: tuple[str, ...]) -> list[Any]:
    first, rest = path[0], path[1:]
    if first == "version" and not rest:
        return [names.version_key(entry.version)]
    if first in ("aliases", "ref"):
        start: Any = getattr(entry, first)
    else:
        start = entry.document.get(first)
    return [_named(value) for value in reduce(_step, rest, _spread(start)) if value is not None]


def _named(value: Any) -> Any:
    """An object that has a name stands for it: `plugin = 'tcn'` means `plugin.name = 'tcn'`."""
    return value["name"] if isinstance(value, dict) and isinstance(value.get("name"), str) else value


def _step(values: list[Any], segment: str) -> list[Any]:
    return [item for value in values if isinstance(value, dict) for item in _spread(value.get(segment))]


def _spread(value: Any) -> list[Any]:
    """The elements of an array, however deep; of anything else itself."""
    return [item for element in value for item in _spread(element)] if isinstance(value, list) else [value]


def _compare(compare: Callable[[Any, Any], bool], literal: Any) -> Callable[[Any], bool]:
    """Values of another type than the literal satisfy nothing; true and false know only = and !=."""

    def test(value: Any) -> bool:
        if isinstance(literal, bool):
            return isinstance(value, bool) and compare in (operator.eq, operator.ne) and compare(value, literal)
        if isinstance(literal, float):
            return isinstance(value, int | float) and not isinstance(value, bool) and compare(float(value), literal)
        return type(value) is type(literal) and compare(value, literal)

    return test
