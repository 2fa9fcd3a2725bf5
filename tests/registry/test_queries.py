"""The query grammar against an evaluator that knows nothing of its text, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ocad_registry import InvalidQuery
from ocad_registry.index import MEMORY, connect
from ocad_registry.index_rows import IndexFacts, Reading, add_fields, remember
from ocad_registry.query import field_name, parse_query, quote

from .conftest import Publisher

Node = tuple[str, Callable[[dict[str, Any]], bool]]

KEYS = ("loss", "val.auc", "in", 'a"b', "x y", "ü")
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}
numbers = st.integers(-5, 5).map(float) | st.floats(allow_nan=False, allow_infinity=False, width=32)
strings = st.text("ab'%_\\\" ü", max_size=4)
literals = numbers | strings | st.booleans()
stored = literals | st.none() | st.lists(literals | st.none(), max_size=2)
documents = st.dictionaries(st.sampled_from(KEYS), stored, max_size=4)


def render(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return quote(value) if isinstance(value, str) else repr(value).replace("+", "")


def values(params: dict[str, Any], key: str) -> list[Any]:
    found = params.get(key)
    return [value for value in (found if isinstance(found, list) else [found]) if value is not None]


def same_type(a: Any, b: Any) -> bool:
    return type(a) is type(b)


@st.composite
def comparisons(draw: st.DrawFn) -> Node:
    key, operator, literal = draw(st.sampled_from(KEYS)), draw(st.sampled_from(sorted(OPERATORS))), draw(literals)
    legal = not isinstance(literal, bool) or operator in ("=", "!=")
    compare = OPERATORS[operator]
    text = f"{field_name('params', key)} {operator} {render(literal)}"
    return (
        text,
        lambda params: legal and any(same_type(v, literal) and compare(v, literal) for v in values(params, key)),
    )


@st.composite
def memberships(draw: st.DrawFn) -> Node:
    key, chosen, negated = (
        draw(st.sampled_from(KEYS)),
        draw(st.lists(literals, min_size=1, max_size=3)),
        draw(st.booleans()),
    )
    text = f"{field_name('params', key)} {'NOT ' if negated else ''}in ({', '.join(map(render, chosen))})"
    return text, lambda params: negated != any(same_type(v, c) and v == c for v in values(params, key) for c in chosen)


@st.composite
def null_tests(draw: st.DrawFn) -> Node:
    key, negated = draw(st.sampled_from(KEYS)), draw(st.booleans())
    text = f"{field_name('params', key)} is {'not ' if negated else ''}null"
    return text, lambda params: negated == bool(values(params, key))


def combined(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    def both(left: Node, right: Node) -> Node:
        return f"({left[0]} and {right[0]})", lambda params: left[1](params) and right[1](params)

    def either(left: Node, right: Node) -> Node:
        return f"({left[0]} OR\n{right[0]})", lambda params: left[1](params) or right[1](params)

    def negated(one: Node) -> Node:
        return f"not {one[0]}", lambda params: not one[1](params)

    return st.builds(both, inner, inner) | st.builds(either, inner, inner) | st.builds(negated, inner)


trees = st.recursive(comparisons() | memberships() | null_tests(), combined, max_leaves=8)


def holds(text: str, **document: Any) -> bool:
    """Whether the query chooses `m@1.10.0`, to which two aliases point, from the two readable versions and a broken one."""
    query = parse_query(text)
    required = {"created_at": "", "plugin": {"name": "tcn"}, "task": "", "metrics": {}, "passed": True}
    readings = [
        Reading.of((name, "1.10.0", b"", b""), required | {"name": name, "version": "1.10.0"} | more, "")
        for name, more in (("m", document), ("n", {}))
    ]
    readings.append(Reading("m", "2.0.0", b"", b"", broken="bad-json"))
    connection = connect(MEMORY)
    try:
        remember(connection, readings)
        add_fields(connection, query.paths)
        facts = IndexFacts(connection, {"m": {"1.10.0": ["canary", "production"], "2.0.0": ["canary"]}})
        chosen = query.select(facts)
        numbers = dict(connection.execute("SELECT model || '@' || version, id FROM version"))
        assert numbers["m@2.0.0"] not in chosen
        return numbers["m@1.10.0"] in chosen
    finally:
        connection.close()


@settings(max_examples=300)
@given(trees, documents)
def test_a_query_means_what_its_tree_means(tree: Node, params: dict[str, Any]) -> None:
    text, expected = tree
    assert holds(text, params=params) == expected(params)


@given(st.text() | st.text("()'=<>!., \\%_andornotilkesu10\"[]", max_size=40))
@example("(" * 5000 + "name = 'a'" + ")" * 5000)
@example("not " * 2000 + "name = 'a'")
@example("name = '" + "a" * 20_000)
@example("metrics.a = 1e999")
@example("name = 'a'\x00")
@example("name\u00a0= 'a'")
def test_any_text_is_a_query_or_refused(text: str) -> None:
    try:
        answer = holds(text, params={})
    except InvalidQuery as error:
        answer = error.exit_code == 2 and bool(error.hint)
        assert answer
    assert isinstance(answer, bool)


@given(st.text("ab%_", max_size=8), st.text("ab\n", max_size=8))
@example("%a_%_b%", "aab")
@example("a%", "a")
@example("", "")
@example("a%a", "a")
def test_like_means_its_regular_expression(pattern: str, value: str) -> None:
    regular = "".join({"%": ".*", "_": "."}.get(character, character) for character in pattern)
    expected = re.fullmatch(regular, value, re.DOTALL) is not None
    assert holds(f"description like {quote(pattern)}", description=value) is expected


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("%a" * 4_000 + "%b", "a" * 1_000_000),
        ("%" + "a" * 9_000 + "b%", "a" * 1_000_000),
        ("%" + "a_" * 500 + "b%", "a" * 100_000),
        ("%a_" * 3_000 + "b", "a" * 100_000),
    ],
)
def test_like_takes_no_longer_for_a_pattern_that_nearly_fits_everywhere(pattern: str, text: str) -> None:
    """Read as a regular expression each takes longer than anybody waits."""
    assert not holds(f"description like {quote(pattern)}", description=text)


@given(strings, strings)
def test_like_with_everything_escaped_is_equality(pattern: str, value: str) -> None:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    query = f"description like {quote(escaped)}"
    assert holds(query, description=pattern)
    assert holds(query, description=value) == (pattern == value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "query, column 1: a field's name belongs here, not `the end`"),
        ("task =", "query, column 7: a string, number, true or false belongs here, not `the end`"),
        ("task = forecast", "query, column 8: a string, number, true or false belongs here, not `forecast`"),
        ("task = 'a' or", "query, column 14: a field's name belongs here, not `the end`"),
        ("(task = 'a'", "query, column 12: `)` belongs here, not `the end`"),
        ("task = 'a' name", "query, column 12: `name` is one word too many"),
        ("task # 'a'", "query, column 6: cannot read `# 'a'`"),
        ("metrcs.a < 1", "query, column 1: there is no field `metrcs`"),
        ("task like 1", "query, column 11: a string belongs after `like`, not `1`"),
        ("task like 'a\\b'", "query, column 11: `\\b` means nothing in a pattern; write `\\\\` for a backslash"),
        ("task", "query, column 5: a comparison belongs after `task`, not `the end`"),
        ("version > 1", "query, column 11: `version` compares with a version such as `'1.2.0'`, not 1"),
        ("task\u00a0= 'a'", "query, column 5: cannot read `\u00a0= 'a'`"),
        ("metrics.a < 1e999", "query, column 13: number `1e999` is out of range"),
    ],
)
def test_refusals_say_where(text: str, message: str) -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse_query(text)
    assert caught.value.message == message


def test_a_misspelt_field_names_its_nearest() -> None:
    with pytest.raises(InvalidQuery) as caught:
        parse_query("metrcs.a < 1")
    assert caught.value.hint == "did you mean `metrics`?"


def test_lists_and_the_entry_itself_can_be_asked_for() -> None:
    one: dict[str, Any] = {
        "files": [{"role": "onnx"}, {"role": "report"}],
        "params": {"a": [1, True, [2, "x"]], "b": {}},
    }
    for text in (
        "aliases = 'canary'",
        "files.role = 'report'",
        "version > '1.9.0'",
        "plugin = 'tcn'",
        "plugin like 't%'",
        "ref = 'm@1.10.0'",
        "params.a = 1 and params.a = true and params.a = 2 and params.a = 'x'",
        "params.b is not null",
        "passed != false",
    ):
        assert holds(text, **one), text
    for text in (
        "aliases = 'old'",
        "files.role = 'weights'",
        "version > '1.10.0'",
        "plugin != 'tcn'",
        "files.role is null",
        "version like '%'",
        "aliases.name = 'canary'",
        "aliases = true",
        "params.a = false",
        "params.b = 'b'",
        "passed < true",
        "passed = 1",
    ):
        assert not holds(text, **one), text


def test_a_query_may_be_as_wide_and_deep_as_the_grammar_allows() -> None:
    assert holds(" or ".join(["ref = 1"] * 900 + ["task = ''"]), task="")
    assert holds("not (" * 49 + "not task = 'a'" + ")" * 49, task="a")
    wide = " and ".join(f"params.k{number} = {number}" for number in range(300))
    assert holds(wide, params={f"k{number}": number for number in range(300)})


def test_queries_answer_in_the_order_of_lists(publish: Publisher, registry: Any) -> None:
    references = [publish(params={"epochs": epochs}).ref for epochs in (10, 20, 30)]
    found = registry.query("params.epochs >= 20 and plugin = 'tcn' and metrics.skill > 0.2")
    assert [entry.ref for entry in found] == [references[2], references[1]]
