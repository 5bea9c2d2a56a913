"""Dataclasses whose fields are checked by their types, and files that are read as such.

Limits stand in the type of a field, `Annotated[int, Field(ge=1)]`; pydantic enforces them, here and
for data read from a file. A message says what came and what was expected, in one line.
"""

from __future__ import annotations

import tomllib
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, to_json

from ncp_agents.errors import UserError
from ncp_agents.registry import did_you_mean

T = TypeVar("T")
MAX_LENGTH = 80  # characters of a value in a message


class Validated:
    """A base of dataclasses whose fields are checked by their types, wherever one is made."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ValueError: the first field that is of another type or out of range.
        """
        for name, adapter in _field_adapters(type(self)).items():
            try:
                adapter.validate_python(getattr(self, name), strict=True)
            except ValidationError as error:
                raise ValueError(f"{name} {_problem(error.errors()[0])}") from None


def parse_json(kind: type[T], text: str | bytes, source: Path | str) -> T:
    """Return the JSON `text` of `source` as a `kind`, a dataclass or another type.

    Raises:
        UserError: other text, an unknown or missing key, a value of another type or out of range;
            the message names `source` and the key.
    """
    try:
        return _adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise UserError(f"{source}: {_located(error.errors()[0], kind)}") from None


def parse_toml(kind: type[T], text: str, source: Path | str) -> T:
    """Return the TOML `text` of `source` as a `kind`; see `parse_json`."""
    try:
        data = to_json(tomllib.loads(text), inf_nan_mode="constants")
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise UserError(f"{source} is not TOML: {error}") from None
    return parse_json(kind, data, source)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _field_adapters(kind: Any) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: _adapter(hints[field.name]) for field in fields(kind)}


def _located(error: ErrorDetails, kind: Any) -> str:
    """Say where in the data an error is, and what it is."""
    *parents, key = error["loc"] or ("it",)
    path = ".".join(map(str, [*parents, key]))
    if error["type"] == "unexpected_keyword_argument":
        for parent in parents:
            kind = get_type_hints(kind)[str(parent)]
        return did_you_mean("key", str(key), [field.name for field in fields(kind)])
    if error["type"] == "value_error" and "ctx" in error:  # of a __post_init__
        return f"[{path}] {error['ctx']['error']}" if error["loc"] else str(error["ctx"]["error"])
    return f"{path} {_problem(error)}"


def _problem(error: ErrorDetails) -> str:
    if error["type"] in ("missing", "missing_argument"):
        return "is missing"
    if error["type"] == "json_invalid":
        return f"is not JSON: {error['ctx']['error']}" if "ctx" in error else "is not JSON"
    got = repr(error["input"])
    got = got if len(got) <= MAX_LENGTH else f"{got[: MAX_LENGTH - 1]}…"
    message = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"is {got}, expected {message}"
