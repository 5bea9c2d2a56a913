"""Checks of a single value."""

from __future__ import annotations

import operator
from typing import Any

from ncp_agents.errors import shown


def check_integer(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return `value` as a plain int within [low, high]; NumPy's integers pass, floats do not.

    Raises:
        ValueError: another type, or out of range.
    """
    limits = f"an integer of at least {low}" if high is None else f"an integer in {low}..{high}"
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {shown(value)}, expected {limits}") from None
    if number < low or (high is not None and number > high):
        raise ValueError(f"{name} is {number}, expected {limits}")
    return number
