"""Limits of a layer's options, and of the shapes of a call; for arrays of any framework.

Axes: B batch, T steps, I inputs, N neurons.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from ncp_agents.validation import check_integer
from ncp_agents.wirings import Wiring

Mode = Literal["default", "no_gate", "pure"]
"""Of a CfC cell; `ncp_agents.layers.reference.cfc_step` says what they compute."""
MODES: tuple[Mode, ...] = get_args(Mode)
Init = Literal["xavier", "balanced"]
IOMapping = Literal["affine", "linear"] | None
"""Of an LTC cell's inputs and of its outputs."""
ACTIVATIONS = ("lecun_tanh", "tanh", "relu", "silu", "gelu")
"""Of a CfC cell's backbone."""


def check_units(units: Any) -> int:
    """Return a dense layer's number of neurons.

    Raises:
        ValueError: neither a whole number nor a wiring, such as a wiring of ncps.
    """
    if not hasattr(units, "__index__"):
        kind = units if isinstance(units, type) else type(units)
        raise ValueError(
            f"units is {kind.__module__}.{kind.__name__}, expected a whole number or a wiring of "
            "ncp_agents.wirings"
        )
    return check_integer("units", units, 1)


def check_wiring(wiring: Any) -> None:
    """Raise ValueError for anything but a `Wiring`, such as a wiring of ncps."""
    if not isinstance(wiring, Wiring):
        kind = type(wiring)
        raise ValueError(
            f"wiring is a {kind.__module__}.{kind.__name__}, expected one of ncp_agents.wirings"
        )


def check_times(low: float, high: float) -> None:
    """Raise ValueError for timespans below 0 or not finite."""
    if not 0.0 <= low <= high < math.inf:
        wrong = high if low >= 0.0 else low
        raise ValueError(f"timespans has {wrong}, expected finite steps of at least 0")


def check_step(x: Any, h: Any, timespan: Any, inputs: int, neurons: int) -> Any:
    """Check the arguments of a cell and return its timespan as a float or (B, 1).

    Args:
        x: (B, I), or (I,).
        h: (B, N), or (N,).
        timespan: a float, (B,) or (B, 1).
        inputs: I.
        neurons: N.

    Raises:
        ValueError: another shape; one of (B,) would otherwise spread over the neurons where B = N.
    """
    if x.shape[-1] != inputs or tuple(h.shape) != (*x.shape[:-1], neurons):
        raise ValueError(
            f"input has shape {tuple(x.shape)} and state {tuple(h.shape)}, expected (B, {inputs}) "
            f"and (B, {neurons})"
        )
    if isinstance(timespan, np.ndarray):
        raise ValueError("timespan is a numpy.ndarray, expected a float or an array like the input")
    shape, rows = tuple(getattr(timespan, "shape", ())), tuple(x.shape[:-1])
    if shape in ((), (*rows, 1)):
        return timespan
    if shape != rows:
        raise ValueError(f"timespan has shape {shape}, expected a float, {rows} or {(*rows, 1)}")
    return timespan[..., None]


class Axes(NamedTuple):
    """Which axis of a call's arrays is time."""

    batched: bool
    batch_first: bool

    def time_major(self, values: Any) -> Any:
        """Values (B, T, …), (T, B, …) or (T, …) → (T, B, …)."""
        if not self.batched:
            return values[:, None]
        return values.swapaxes(0, 1) if self.batch_first else values

    def restore(self, values: Any) -> Any:
        """Values (T, B, …) → (B, T, …), (T, B, …) or (T, …)."""
        if not self.batched:
            return values[:, 0]
        return values.swapaxes(0, 1) if self.batch_first else values


class Call(NamedTuple):
    """The arguments of a sequence layer's call, checked."""

    state: tuple[Any, ...]
    """(h,), with mixed memory (h, c), or () for zeros; (B, N) each, (N,) unbatched."""
    timespans: Any
    """A float, or an array (B, T), (T, B), (T,) or ()."""
    resets: Any
    """Shaped like the timespans, or None."""
    axes: Axes


def check_call(layer: Any, array: type, input: Any, hx: Any, timespans: Any, resets: Any) -> Call:
    """Check the kinds and shapes of a sequence layer's arguments; their values are not read.

    Args:
        layer: its `input_size`, `state_size`, `use_mixed` and `batch_first` say what is expected.
        array: the framework's array type.
        input: (B, T, I), (T, B, I) or (T, I).
        hx: None, (B, N), or the pair of two such with mixed memory; without B unbatched.
        timespans: None, a number, or an array (B, T) or (B, T, 1), time-major if the input is,
            without B unbatched.
        resets: None or (B, T), time-major if the input is, without B unbatched.

    Raises:
        ValueError: a kind or shape that is none of these.
        RuntimeError: a single state with mixed memory, or several without.
    """
    shape, size = _shape("input", input, array), layer.input_size
    if len(shape) not in (2, 3) or shape[-1] != size:
        raise ValueError(
            f"input has shape {shape}, expected (B, T, {size}), time first if batch_first=False, "
            f"or (T, {size}) unbatched"
        )
    axes, lead = Axes(len(shape) == 3, layer.batch_first), shape[:-1]
    if 0 in lead:
        raise ValueError(
            f"input has shape {shape}, expected at least one sequence of at least one step"
        )

    state: tuple[Any, ...] = ()
    if hx is not None:
        state = (hx,) if isinstance(hx, array) else tuple(hx)
        if isinstance(hx, array) == layer.use_mixed or len(state) != 1 + layer.use_mixed:
            wanted = "a tuple (h0, c0)" if layer.use_mixed else "one array, not a tuple,"
            raise RuntimeError(
                f"{type(layer).__name__} with mixed_memory={layer.use_mixed} requires {wanted} as "
                f"state, got {'one array' if isinstance(hx, array) else f'{len(state)} in a tuple'}"
            )
        neurons = (layer.state_size,)
        rows = (lead[0 if layer.batch_first else 1], *neurons) if axes.batched else neurons
        for part in state:
            if _shape("state", part, array) != rows:
                raise ValueError(f"state has shape {tuple(part.shape)}, expected {rows}")

    if timespans is None:
        timespans = 1.0
    elif isinstance(timespans, int | float | np.number):
        timespans = float(timespans)
        check_times(timespans, timespans)
    else:
        shape = _shape("timespans", timespans, array, "a float or ")
        if shape == (*lead, 1):
            timespans = timespans[..., 0]
        elif shape not in ((), lead):
            raise ValueError(
                f"timespans has shape {shape}, expected a float, {lead} or {(*lead, 1)}"
            )
    if resets is not None and _shape("resets", resets, array) != lead:
        raise ValueError(f"resets has shape {tuple(resets.shape)}, expected {lead} of bool")
    return Call(state, timespans, resets, axes)


def _shape(name: str, values: Any, array: type, also: str = "") -> tuple[int, ...]:
    if not isinstance(values, array):
        raise ValueError(
            f"{name} is a {type(values).__name__}, expected {also}{array.__module__}."
            f"{array.__name__}"
        )
    return tuple(values.shape)
