"""The two forms of inputs (alone, or with timespans) and states (alone, or in a list)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal

from ncp_agents.keras.ops import Tensor, ops


def is_pair(inputs: Any) -> bool:
    """Whether `inputs` is a list or tuple, and not one tensor or its shape."""
    return isinstance(inputs, (list, tuple)) and not isinstance(inputs[-1], (int, type(None)))


def input_size(shape: Sequence[Any]) -> int:
    """Return I from the shape of an input (…, I), or from the two of an input and its timespans."""
    return (shape[0] if is_pair(shape) else shape)[-1]


def split_timespans(inputs: Any) -> tuple[Tensor, Tensor | None]:
    """Return an input (…, I) and its timespans (…, 1), or None.

    Args:
        inputs: the input, or the pair of it and timespans (…) or (…, 1).

    Raises:
        ValueError: not a pair, or timespans of another shape.
    """
    if not is_pair(inputs):
        return inputs, None
    if len(inputs) != 2:
        raise ValueError(f"inputs are {len(inputs)} tensors, expected x or (x, timespans)")
    x, timespans = inputs
    lead, given = tuple(x.shape[:-1]), tuple(timespans.shape)
    if not any(_may_be(given, expected) for expected in (lead, (*lead, 1))):
        raise ValueError(f"timespans has shape {given}, expected {lead} or {(*lead, 1)}")
    if len(given) == len(lead):
        timespans = ops.expand_dims(timespans, -1)
    return x, ops.cast(timespans, x.dtype)


def single_state(states: Any) -> Tensor:
    """Return h (B, N) from [h], as Keras passes it to a cell, or from h itself.

    Raises:
        ValueError: more than one.
    """
    if not isinstance(states, (list, tuple)):
        return states
    if len(states) != 1:
        raise ValueError(f"states are {len(states)} tensors, expected one (B, N)")
    return states[0]


def _may_be(given: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    """Whether two shapes, parts of which may be unknown (None), can be the same."""
    return len(given) == len(expected) and all(
        None in (a, b) or a == b for a, b in zip(given, expected, strict=True)
    )


def split_sizes(values: Tensor, sizes: Iterable[int], axis: Literal[-1, -2] = -1) -> list[Tensor]:
    """Split an axis into chunks of the given sizes; `ops.split` on torch takes no single chunk."""
    rest = (slice(None),) * (-1 - axis)
    return [values[(..., slice(a, b), *rest)] for a, b in pairwise(accumulate(sizes, initial=0))]
