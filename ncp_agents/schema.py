"""Dataclasses that check their fields, and files that are parsed as such.

A field's limits stand in its type, `Annotated[int, Field(ge=1)]`; pydantic checks them. An error is
one line that says what came and what was expected.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, to_json

from ncp_agents.errors import UserError, shown
from ncp_agents.registry import did_you_mean

Finite = Annotated[float, Field(allow_inf_nan=False)]

T = TypeVar("T")
MAX_TEXT = 160  # characters of a key's path, or of a parser's words


class Validated:
    """Base of dataclasses whose fields are checked whenever one is made, by hand or from a file.

    A check of several fields together belongs into a `__post_init__` that calls this one first.
    """

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: names the first field of another type or out of range.
        """
        for name, adapter in _field_adapters(type(self)).items():
            try:
                adapter.validate_python(getattr(self, name), strict=True)
            except ValidationError as error:
                raise ValueError(f"{name} {_problem(error.errors()[0])}") from None


def parse_json(kind: type[T], text: str | bytes, source: Path | str) -> T:
    """Return JSON text as a `kind`.

    Args:
        kind: a dataclass, or any other type, such as `dict[str, Scores]`.
        text: the JSON.
        source: where it is from, for messages.

    Raises:
        UserError: text that is not JSON, an unknown or missing key, a value of another type or out
            of range. The message names `source` and the key.
    """
    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise UserError(f"{source}{_message(error.errors()[0], kind)}") from None


def parse_toml(kind: type[T], text: str, source: Path | str) -> T:
    """Return TOML text as a `kind`, see `parse_json`."""
    try:
        data = to_json(tomllib.loads(text), inf_nan_mode="constants")
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise UserError(f"{source} is not TOML: {_one_line(error)}") from None
    return parse_json(kind, data, source)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _field_adapters(kind: Any) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: _adapter(hints[field.name]) for field in fields(kind)}


def _message(error: ErrorDetails, kind: Any) -> str:
    """Return where in data of a type an error is, and what it is, to follow the data's source."""
    path = error["loc"]
    if error["type"] == "unexpected_keyword_argument":
        *path, key = path
        known = [field.name for field in fields(_type_at(kind, path))]
        problem = did_you_mean("key", key, known)
    elif error["type"] == "value_error":  # of a __post_init__
        problem = error["msg"].removeprefix("Value error, ")
    else:
        return f": {_path(path)} {_problem(error)}" if path else f" {_problem(error)}"
    return f": [{_path(path)}] {problem}" if path else f": {problem}"


def _type_at(kind: Any, path: Sequence[int | str]) -> Any:
    """Return the type of the value that is at `path` in a value of type `kind`."""
    inner = [argument for argument in get_args(kind) if argument not in (NoneType, ...)]
    if get_origin(kind) in (Union, UnionType):  # X | None
        return _type_at(inner[0], path)
    if not path:
        return kind
    if is_dataclass(kind):
        return _type_at(get_type_hints(kind)[str(path[0])], path[1:])
    return _type_at(inner[-1], path[1:])  # of a list, tuple or dict


def _problem(error: ErrorDetails) -> str:
    if error["type"] in ("missing", "missing_argument"):
        return "is missing"
    if error["type"] == "json_invalid":
        return error["msg"].replace("Invalid JSON", "is not JSON")
    expected = error["msg"].removeprefix("Input should be ")
    separator = ", expected" if expected != error["msg"] else ":"
    return f"is {shown(error['input'])}{separator} {_one_line(expected)}"


def _path(path: Sequence[int | str]) -> str:
    return _one_line(".".join(map(str, path)))


def _one_line(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…"
