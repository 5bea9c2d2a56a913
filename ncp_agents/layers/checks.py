"""What all ports check at their border; nothing here needs a framework.

Axes: B batch, I inputs, N neurons.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np

from ncp_agents import registry
from ncp_agents.validation import check_integer

Mode = Literal["default", "no_gate", "pure"]
"""Of a CfC cell; `ncp_agents.layers.reference.cfc_step` says what they compute."""
MODES: tuple[Mode, ...] = get_args(Mode)
Init = Literal["xavier", "balanced"]
IOMapping = Literal["affine", "linear"] | None
"""Of an LTC cell's inputs and of its outputs."""


def renamed(name: str, value: Any, older: str, alias: Any, default: Any = None) -> Any:
    """An argument that may come under its older name, too.

    Raises:
        ValueError: both are there, and differ.
    """
    if alias is None or alias == value:
        return value
    if value != default:
        raise ValueError(f"{name} is {value!r} and {older}, its older name, {alias!r}; give one")
    return alias


def check_step(x: Any, h: Any, timespan: Any, inputs: int, neurons: int) -> Any:
    """x (B, I), h (B, N), timespan a float, (B,) or (B, 1), all also without B where the cell takes
    that → timespan as a float or (B, 1).

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


def check_times(least: float, most: float) -> None:
    """Raises ValueError for timespans below 0 or not finite."""
    if not 0.0 <= least <= most < math.inf:
        wrong = most if least >= 0.0 else least
        raise ValueError(f"timespans has {wrong}, expected finite steps of at least 0")


def check_cfc(mode: str, units: int, layers: int, dropout: float, masked: bool) -> tuple[int, int]:
    """A CfC cell's mode and backbone → the backbone's width and its number of layers, 0 without.

    Raises:
        ValueError: an unknown mode, a size below 0, a dropout outside [0, 1), a backbone behind a
            sparsity mask.
    """
    registry.get("mode", mode, MODES)
    units = check_integer("backbone_units", units, 0)
    layers = check_integer("backbone_layers", layers, 0)
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"backbone_dropout is {dropout}, expected 0.0 <= p < 1.0")
    if masked and units and layers:
        raise ValueError(
            "If sparsity of a CfC cell is set, then no backbone is allowed "
            f"(got backbone_units={units}; set backbone_units=0)"
        )
    return units, layers if units else 0


def check_wired(**given: Any) -> None:
    """Raises ValueError for options of a dense CfC that are given (not None) beside a wiring."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name}={value!r} does not go with a wiring: it has synapses of its own and no "
                "backbone"
            )


def check_dense(**given: Any) -> None:
    """Raises ValueError for options of a wired CfC that are given (not None) without a wiring."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name}={value!r} needs a wiring: a dense layer has all synapses")


def check_mask(mask: Any, inputs: int, neurons: int) -> np.ndarray:
    """A CfC cell's sparsity_mask (I + N, N) of any sign → whether each synapse exists."""
    exists, expected = np.asarray(mask) != 0, (inputs + neurons, neurons)
    if exists.shape != expected:
        raise ValueError(
            f"sparsity_mask has shape {exists.shape}, expected (I + N, N) = {expected}"
        )
    return exists


def check_outputs(outputs: int, last_layer: int) -> None:
    """Raises ValueError for more outputs of wired CfC neurons than their last layer has."""
    if outputs > last_layer:
        raise ValueError(
            f"the wiring has {outputs} outputs, expected at most the {last_layer} neurons of its "
            "last layer"
        )


def check_ltc(
    input_mapping: IOMapping, output_mapping: IOMapping, ode_unfolds: int, epsilon: float
) -> tuple[int, float]:
    """An LTC cell's options → ode_unfolds and epsilon as plain numbers.

    Raises:
        ValueError: an unknown mapping, fewer than one unfold, an epsilon that cannot be added to a
            conductance.
    """
    for name, mapping in (("input_mapping", input_mapping), ("output_mapping", output_mapping)):
        if mapping is not None:
            registry.get(name, mapping, ("affine", "linear"))
    if not (isinstance(epsilon, int | float | np.number) and 0.0 <= epsilon < math.inf):
        raise ValueError(f"epsilon is {epsilon!r}, expected a number of at least 0; usual is 1e-8")
    return check_integer("ode_unfolds", ode_unfolds, 1), float(epsilon)
