"""Validated dataclasses and files parsed as such: the facts that an error carries, in one line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from pydantic import Field

from ncp_agents.errors import UserError
from ncp_agents.schema import Validated, parse_json, parse_toml


@dataclass(frozen=True)
class Inner(Validated):
    size: Annotated[int, Field(ge=1)] = 1
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    kind: Literal["cfc", "ltc"] = "cfc"
    name: Annotated[str, Field(pattern="^[a-z]*$")] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size == 13:
            raise ValueError("size is 13, expected a lucky one")


@dataclass(frozen=True)
class Outer(Validated):
    one: Inner
    many: list[Inner] = field(default_factory=list)
    named: dict[str, tuple[Inner, ...]] = field(default_factory=dict)
    maybe: Inner | None = None
    count: int = 0


WRONG = {
    "unknown key": ('{"one": {}, "cuont": 1}', "'cuont'.*did you mean 'count'"),
    "nested unknown key": ('{"one": {"siez": 1}}', r"\[one\].*'siez'.*did you mean 'size'"),
    "unknown key in a list": ('{"one": {}, "many": [{}, {"siez": 1}]}', r"\[many\.1\].*'size'"),
    "unknown key in a dict": ('{"one": {}, "named": {"x": [{"siez": 1}]}}', r"named\.x\.0.*'size'"),
    "unknown key in an option": ('{"one": {}, "maybe": {"siez": 1}}', r"\[maybe\].*'size'"),
    "missing key": ("{}", "one is missing"),
    "wrong type": ('{"one": {"size": "x"}}', r"one\.size is 'x', expected .*integer"),
    "no conversion": ('{"one": {"size": 1.0}}', r"one\.size is 1\.0, expected"),
    "bool for int": ('{"one": {"size": true}}', r"one\.size is True, expected"),
    "null for an object": ('{"one": null}', "one is None, expected"),
    "out of range": ('{"one": {"size": 0}}', r"one\.size is 0, expected .* 1"),
    "NaN": ('{"one": {"rate": NaN}}', r"one\.rate is nan, expected"),
    "other choice": ('{"one": {"kind": "lstm"}}', r"one\.kind is 'lstm', expected 'cfc' or 'ltc'"),
    "other pattern": ('{"one": {"name": "A"}}', r"one\.name is 'A'.*\^\[a-z\]"),
    "check of its own": ('{"one": {"size": 13}}', r"\[one\] size is 13, expected a lucky"),
    "not an object": ("[1]", r"is \[1\], expected"),
    "is not JSON": ("nope", "is not JSON"),
    "too deep": ("[" * 10**5, "is not JSON"),
    "long value": (f'{{"one": {{"size": "{"x" * 10**5}"}}}}', r"one\.size is 'x"),
    "long key": (f'{{"one": {{}}, "{"x" * 10**5}": 1}}', "key 'x.* unknown"),
    "lines in a key": ('{"one": {}, "named": {"a\\nb": 3}}', "named.a b is 3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_error_says_what_and_where_in_one_line(case):
    text, message = WRONG[case]
    with pytest.raises(UserError, match=f"^file.json.*{message}") as caught:
        parse_json(Outer, text, "file.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_what_fits_is_parsed():
    text = '{"one": {"rate": 0.25}, "many": [{"size": 2}], "maybe": {}, "count": 3}'
    expected = Outer(Inner(rate=0.25), [Inner(2)], {}, Inner(), 3)
    assert parse_json(Outer, text, "file.json") == expected
    assert parse_json(dict[str, Outer], f'{{"x": {text}}}', "file.json") == {"x": expected}
    text = "count = 3\none.rate = 0.25\n[[many]]\nsize = 2\n[maybe]\n"
    assert parse_toml(Outer, text, "file.toml") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("count =", "is not TOML"),
        ("[" * 10**5, "is not TOML"),
        ("[one]\nrate = nan", r"one\.rate is nan"),
        ("one = {}\ncount = 2020-01-01", "count is '2020-01-01'"),
    ],
)
def test_wrong_toml_is_named(text, message):
    with pytest.raises(UserError, match=f"^file.toml.*{message}") as caught:
        parse_toml(Outer, text, "file.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "size is 0, expected"),
        ({"size": 2.0}, "size is 2.0, expected"),
        ({"rate": float("nan")}, "rate is nan, expected"),
        ({"kind": "lstm"}, "kind is 'lstm', expected"),
        ({"size": 13}, "lucky"),
    ],
)
def test_an_object_made_by_hand_is_checked_too(values, message):
    with pytest.raises(ValueError, match=message):
        Inner(**values)
