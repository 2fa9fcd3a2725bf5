"""The query grammar of FORMAT.md: a tokenizer, a recursive-descent parser, and what a query asks of the versions' facts.

A name denotes a set of values (none when it is missing or null, several when it leads through an array); a test chooses the
versions of which one value satisfies it, so that `and`, `or` and `not` are intersection, union and complement.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import Any, NamedTuple, NoReturn, Protocol

from ocad_registry import names
from ocad_registry.errors import InvalidName, InvalidQuery
from ocad_registry.patterns import Pattern, Piece

Literal = str | float | bool
Path = tuple[str, ...]
Value = str | float | bytes
"""A value as it is compared: true and false are `TRUTH[…]`, an object is `b""`, which equals nothing."""
TRUTH = {True: b"true", False: b"false"}

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
_COMPARISONS = ("=", "!=", "<=", ">=", "<", ">")
_SEGMENT = re.compile(r"""\["((?:[^"]|"")*)"\]|\.?([A-Za-z_][A-Za-z0-9_]*)""")


@dataclass(frozen=True, slots=True)
class Token:
    """A word of the query; `kind` is name, keyword, number, string, symbol or end."""

    kind: str
    text: str
    place: int


class Facts(Protocol):
    """Versions, each standing for a number, and what is known of them."""

    def everything(self) -> AbstractSet[int]:
        """All of them."""
        ...

    def present(self, path: Path) -> AbstractSet[int]:
        """Those that have a value at `path`."""
        ...

    def comparing(self, path: Path, symbol: str, literals: Sequence[Literal]) -> AbstractSet[int]:
        """Those of which a value at `path` is `symbol` (`= != < <= > >=`) than one of `literals`, and of its type."""
        ...

    def matching(self, path: Path, pattern: Pattern) -> AbstractSet[int]:
        """Those of which a string at `path` matches as a whole."""
        ...


Selection = Callable[[Facts], AbstractSet[int]]


class Query(NamedTuple):
    """A parsed query: which versions it chooses, and every path that it asks for."""

    select: Selection
    paths: frozenset[Path]


def parse_query(expression: str) -> Query:
    """What `expression` stands for; raises `InvalidQuery` with the column (from 1)."""
    if len(expression) > LENGTH_LIMIT:
        raise InvalidQuery(f"the query is longer than {LENGTH_LIMIT} characters", "shorten it")
    if any("\ud800" <= character <= "\udfff" for character in expression):
        raise InvalidQuery("the query is no Unicode text", "write it in UTF-8")
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
        self._paths: set[Path] = set()

    def parse(self) -> Query:
        selection = self._or()
        if self._token.kind != "end":
            _fail(self._token.place, f"`{self._token.text}` is one word too many")
        return Query(selection, frozenset(self._paths))

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

    def _or(self) -> Selection:
        terms = [self._and()]
        while self._take("or"):
            terms.append(self._and())
        return terms[0] if len(terms) == 1 else lambda facts: reduce(_union, (term(facts) for term in terms))

    def _and(self) -> Selection:
        factors = [self._not()]
        while self._take("and"):
            factors.append(self._not())
        return factors[0] if len(factors) == 1 else lambda facts: reduce(_both, (factor(facts) for factor in factors))

    def _not(self) -> Selection:
        self._depth += 1
        if self._depth > DEPTH_LIMIT:
            _fail(self._token.place, f"nested deeper than {DEPTH_LIMIT}")
        if self._take("not"):
            selection = _negated(self._not())
        elif self._take("("):
            selection = self._or()
            self._require(")")
        else:
            selection = self._comparison()
        self._depth -= 1
        return selection

    def _comparison(self) -> Selection:
        token = self._token
        if token.kind != "name":
            _fail(token.place, f"a field's name belongs here, not `{token.text}`")
        self._next += 1
        path = _path(token)
        self._paths.add(path)
        if symbol := self._take(*_COMPARISONS):
            literal = self._literal(path)
            return lambda facts: facts.comparing(path, symbol, [literal])
        if self._take("is"):
            negated = self._take("not")
            self._require("null")
            return (lambda facts: facts.present(path)) if negated else _negated(lambda facts: facts.present(path))
        if self._take("not"):
            return _negated(self._membership(path))
        return self._membership(path)

    def _membership(self, path: Path) -> Selection:
        if self._take("in"):
            literals = self._literals(path)
            return lambda facts: facts.comparing(path, "=", literals)
        if self._take("like"):
            token = self._token
            if token.kind != "string":
                _fail(token.place, f"a string belongs after `like`, not `{token.text}`")
            self._next += 1
            pattern = _pattern(token)
            return lambda facts: facts.matching(path, pattern)
        _fail(self._token.place, f"a comparison belongs after `{'.'.join(path)}`, not `{self._token.text}`")

    def _literals(self, path: Path) -> list[Literal]:
        self._require("(")
        literals = [self._literal(path)]
        while self._take(","):
            literals.append(self._literal(path))
        self._require(")")
        return literals

    def _literal(self, path: Path) -> Literal:
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


def _version_literal(token: Token, value: Literal) -> str:
    """The field `version` compares by SemVer precedence, so its literals are versions."""
    try:
        return names.version_rank(names.check_version(value if isinstance(value, str) else token.text))
    except InvalidName:
        _fail(token.place, f"`version` compares with a version such as `'1.2.0'`, not {token.text}")


def _negated(selection: Selection) -> Selection:
    return lambda facts: facts.everything() - selection(facts)


def _both(first: AbstractSet[int], second: AbstractSet[int]) -> AbstractSet[int]:
    return first & second


def _union(first: AbstractSet[int], second: AbstractSet[int]) -> AbstractSet[int]:
    return first | second


def _path(token: Token) -> Path:
    segments = tuple(plain if plain else quoted.replace('""', '"') for quoted, plain in _SEGMENT.findall(token.text))
    if segments[0] not in FIELDS:
        close = get_close_matches(segments[0], FIELDS, n=1, cutoff=0.5)
        hint = f"did you mean `{close[0]}`?" if close else "known: " + ", ".join(f"`{field}`" for field in FIELDS)
        raise InvalidQuery(f"query, column {token.place + 1}: there is no field `{segments[0]}`", hint)
    return segments


def _pattern(token: Token) -> Pattern:
    """`%` is any run of characters, `_` any one; a backslash takes `%`, `_` and itself literally."""
    pieces: list[list[str | None]] = [[]]
    escaped = False
    for character in token.text[1:-1].replace("''", "'"):
        if escaped and character not in "%_\\":
            _fail(token.place, f"`\\{character}` means nothing in a pattern; write `\\\\` for a backslash")
        if not escaped and character == "\\":
            escaped = True
            continue
        if character == "%" and not escaped:
            pieces.append([])
        else:
            pieces[-1].append(None if character == "_" and not escaped else character)
        escaped = False
    if escaped:
        _fail(token.place, "a pattern ends with a single backslash")
    return Pattern([Piece(piece) for piece in pieces])


def values(document: dict[str, Any], path: Path) -> set[Value]:
    """What `path` denotes in the `metadata.json` of a version; `ref` is its reference, `version` its rank."""
    if path == ("version",):
        return {names.version_rank(document["version"])}
    start = f"{document['name']}@{document['version']}" if path[0] == "ref" else document.get(path[0])
    return {_value(found) for found in reduce(_step, path[1:], _spread(start)) if found is not None}


def _value(found: Any) -> Value:
    """An object that has a name stands for it: `plugin = 'tcn'` means `plugin.name = 'tcn'`. Numbers are doubles."""
    if isinstance(found, dict) and isinstance(found.get("name"), str):
        found = found["name"]
    if isinstance(found, str):
        return found
    if isinstance(found, bool):
        return TRUTH[found]
    return float(found) if isinstance(found, int | float) else b""


def _step(found: list[Any], segment: str) -> list[Any]:
    return [item for value in found if isinstance(value, dict) for item in _spread(value.get(segment))]


def _spread(value: Any) -> list[Any]:
    """The elements of an array, however deep; of anything else itself."""
    return [item for element in value for item in _spread(element)] if isinstance(value, list) else [value]
