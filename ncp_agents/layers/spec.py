"""What a layer is, for every port: options and their limits, sizes, names of its parameters.

A port builds its cells from one of these specifications, and holds the arithmetic and its
framework's conventions. The arguments are described at the cells of `ncp_agents.torch`.

Axes: I inputs, N neurons, M motor neurons, U units of a backbone layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ncp_agents import registry
from ncp_agents.layers.checks import (
    ACTIVATIONS,
    MODES,
    IOMapping,
    Mode,
    check_units,
    check_wiring,
)
from ncp_agents.validation import check_integer
from ncp_agents.wirings import FullyConnected, Wiring, wiring_to_config


@dataclass(frozen=True)
class CfCSpec:
    """A CfC cell: h' from the linear maps (heads) of z, where z is [x, h] or a backbone of it.

    Raises:
        ValueError: an unknown mode or activation, a size below its limit, a dropout outside [0, 1),
            a backbone behind a sparsity mask.
    """

    units: int
    mode: Mode = "default"
    activation: str = "lecun_tanh"
    backbone_units: int = 128
    backbone_layers: int = 1
    backbone_dropout: float = 0.0
    sparsity_mask: np.ndarray | None = field(default=None, compare=False)
    """(I + N, N), nonzero where a synapse is; row = source, column = target."""
    mask_time_gates: bool = False

    def __post_init__(self) -> None:
        registry.get("mode", self.mode, MODES)
        registry.get("activation", self.activation, ACTIVATIONS)
        units = check_integer("backbone_units", self.backbone_units, 0)
        layers = check_integer("backbone_layers", self.backbone_layers, 0)
        if not 0.0 <= self.backbone_dropout < 1.0:
            raise ValueError(
                f"backbone_dropout is {self.backbone_dropout}, expected 0.0 <= p < 1.0"
            )
        if self.sparsity_mask is not None:
            if units and layers:
                raise ValueError(
                    "If sparsity of a CfC cell is set, then no backbone is allowed "
                    f"(got backbone_units={units}; set backbone_units=0)"
                )
            _set(self, sparsity_mask=np.asarray(self.sparsity_mask) != 0)
        _set(self, units=check_units(self.units), backbone_units=units)
        _set(self, backbone_layers=layers if units else 0)

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the linear maps of z, in the order in which they are initialised."""
        return ("ff1",) if self.mode == "pure" else ("ff1", "ff2", "time_a", "time_b")

    def is_masked(self, head: str) -> bool:
        """Whether the sparsity mask limits a head."""
        masked = self.sparsity_mask is not None
        return masked and (self.mask_time_gates or not head.startswith("time"))

    @property
    def backbone(self) -> tuple[str, ...]:
        """Keys of the backbone's linear maps in a state dict, without "backbone.".

        They are their places in ncps's `nn.Sequential`: linear, activation, then linear, activation
        and with dropout a third for each further layer.
        """
        stride = 3 if self.backbone_dropout > 0 else 2
        places = [0, *range(2, 2 + stride * (self.backbone_layers - 1), stride)]
        return tuple(map(str, places[: self.backbone_layers]))

    def widths(self, inputs: int) -> list[int]:
        """Sources of each linear map of the backbone, and last those of the heads.

        Raises:
            ValueError: a sparsity mask of another size.
        """
        mask, expected = self.sparsity_mask, (inputs + self.units, self.units)
        if mask is not None and mask.shape != expected:
            raise ValueError(
                f"sparsity_mask has shape {mask.shape}, expected (I + N, N) = {expected}"
            )
        return [inputs + self.units, *[self.backbone_units] * self.backbone_layers]

    def masks(self) -> dict[str, np.ndarray]:
        """What a state dict holds besides the parameters: (N, I + N) of 0.0 and 1.0."""
        if self.sparsity_mask is None:
            return {}
        return {"sparsity_mask": self.sparsity_mask.T.astype(np.float32, order="C")}

    def balanced(self, inputs: int) -> dict[str, float | np.ndarray]:
        """Standard deviations of the heads' input weights for init "balanced", 1 or (N, 1) each.

        Xavier's rule counts the sources that a mask removes, and h is the mean of two tanh, which
        halves its variance: together a chain of sparse layers loses a factor of about two a layer,
        in its signal and again in its gradient. Here each neuron's input weights have variance
        gain^2 / (its number of synapses), gain 2 for ff1 and ff2, which makes up for both, and 1
        for the gates; recurrent weights are orthogonal and biases zero.

        Raises:
            ValueError: a cell with a backbone.
        """
        if self.backbone_layers:
            raise ValueError("init 'balanced' needs a cell without a backbone; use 'xavier'")
        scales: dict[str, float | np.ndarray] = {}
        for head in self.heads:
            sources: Any = float(inputs)
            if self.is_masked(head) and self.sparsity_mask is not None:
                synapses = self.sparsity_mask[:inputs].sum(0, dtype=np.float32)[:, None]
                sources = np.maximum(synapses, np.float32(1.0))
            scales[head] = (1.0 if head.startswith("time") else 2.0) / sources**0.5
        return scales

    def settings(self) -> dict[str, Any]:
        """The arguments that the layers of all ports share, as plain data."""
        names = ("units", "mode", "activation", "backbone_units", "backbone_layers")
        names += ("backbone_dropout", "mask_time_gates")
        return {name: getattr(self, name) for name in names}


def build_wiring(wiring: Wiring, inputs: int | None, argument: str) -> Wiring:
    """Build a wiring for its inputs and return a copy, which later changes do not reach.

    Args:
        wiring: built here if it was not yet.
        inputs: I, or None where the wiring is built already.
        argument: the name of `inputs` at the caller.

    Raises:
        ValueError: no wiring, one that is not built, or one that was built for another size.
    """
    check_wiring(wiring)
    if inputs is not None:
        wiring.build(inputs)
    if not wiring.is_built():
        raise ValueError(
            f"the wiring is not built; pass {argument}, or call wiring.build({argument}) first"
        )
    return deepcopy(wiring)


def motor_size(wiring: Wiring) -> int:
    """Return M; all neurons are motor neurons where no number is set."""
    return wiring.output_dim or wiring.units


@dataclass(frozen=True)
class WiredCfCSpec:
    """CfC cells on the layers of a wiring, each fed by the one before it within a step.

    Raises:
        ValueError: an unknown mode, more outputs than the wiring's last layer has neurons.
    """

    wiring: Wiring
    mode: Mode = "default"
    mask_time_gates: bool = False
    fully_recurrent: bool = True
    """Whether each neuron of a layer reads the whole layer, or only along the wiring's synapses."""

    def __post_init__(self) -> None:
        registry.get("mode", self.mode, MODES)
        last = len(self.wiring.layers[-1])
        if motor_size(self.wiring) > last:
            raise ValueError(
                f"the wiring has {motor_size(self.wiring)} outputs, expected at most the {last} "
                "neurons of its last layer"
            )

    @property
    def layer_sizes(self) -> list[int]:
        """Neurons of each layer, first to last, as the state holds them."""
        return [len(neurons) for neurons in self.wiring.layers]

    @property
    def output_slice(self) -> slice:
        """Where the motor neurons are in the state: first in the last layer."""
        start = sum(self.layer_sizes[:-1])
        return slice(start, start + motor_size(self.wiring))

    def cells(self) -> list[CfCSpec]:
        """The layers' cells, first to last, of a built wiring."""
        adjacency, layers = self.wiring.erev_initializer(), self.wiring.layers
        synapses = [self.wiring.sensory_erev_initializer()[:, layers[0]]]
        synapses += [adjacency[np.ix_(*pair)] for pair in pairwise(layers)]
        cells = []
        for feeding, neurons in zip(synapses, layers, strict=True):
            within = adjacency[np.ix_(neurons, neurons)]
            recurrent = np.ones_like(within) if self.fully_recurrent else within
            cells.append(
                CfCSpec(
                    len(neurons),
                    self.mode,
                    backbone_units=0,
                    backbone_layers=0,
                    sparsity_mask=np.concatenate([feeding, recurrent]),
                    mask_time_gates=self.mask_time_gates,
                )
            )
        return cells

    def masks(self) -> dict[str, np.ndarray]:
        """What a state dict holds besides the parameters."""
        return {
            f"layer_{k}.{name}": mask
            for k, cell in enumerate(self.cells())
            for name, mask in cell.masks().items()
        }

    def settings(self) -> dict[str, Any]:
        """The arguments that the layers of all ports share, as plain data."""
        units = wiring_to_config(self.wiring)
        return {"units": units, "mode": self.mode, "mask_time_gates": self.mask_time_gates}


class Uniform(NamedTuple):
    """Initial values of a parameter, uniform in [low, high)."""

    shape: tuple[int, ...]
    low: float
    high: float


RANGES = {
    "gleak": (0.001, 1.0),
    "vleak": (-0.2, 0.2),
    "cm": (0.4, 0.6),
    "sigma": (3.0, 8.0),
    "mu": (0.3, 0.8),
    "w": (0.001, 1.0),
    "sensory_sigma": (3.0, 8.0),
    "sensory_mu": (0.3, 0.8),
    "sensory_w": (0.001, 1.0),
}
"""Of the uniform distributions that an LTC cell's parameters start from."""
POSITIVE = ("gleak", "cm", "w", "sensory_w")
"""Parameters of an LTC cell that must not be negative."""


@dataclass(frozen=True)
class LTCSpec:
    """An LTC cell on a wiring.

    Raises:
        ValueError: an unknown mapping or parameter, fewer than one unfold, an epsilon or a range
            outside its limits.
    """

    wiring: Wiring
    input_mapping: IOMapping = "affine"
    output_mapping: IOMapping = "affine"
    ode_unfolds: int = 6
    epsilon: float = 1e-8
    implicit_param_constraints: bool = False
    initialization_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Replace some of `RANGES`."""

    def __post_init__(self) -> None:
        for name in ("input_mapping", "output_mapping"):
            if getattr(self, name) is not None:
                registry.get(name, getattr(self, name), ("affine", "linear"))
        epsilon = self.epsilon
        if not (isinstance(epsilon, int | float | np.number) and 0.0 <= epsilon < math.inf):
            raise ValueError(f"epsilon is {epsilon!r}, expected a number of at least 0")
        for name, (low, high) in self.initialization_ranges.items():
            registry.get("parameter", name, RANGES)
            if low > high or (low < 0 and name in POSITIVE):
                at_least = " and low >= 0" if name in POSITIVE else ""
                raise ValueError(
                    f"the initialization range of {name} is ({low}, {high}), expected low <= high"
                    f"{at_least}"
                )
        ranges = {
            k: (float(low), float(high)) for k, (low, high) in self.initialization_ranges.items()
        }
        unfolds = check_integer("ode_unfolds", self.ode_unfolds, 1)
        _set(self, ode_unfolds=unfolds, epsilon=float(epsilon), initialization_ranges=ranges)

    def parameters(self) -> dict[str, Uniform | np.ndarray]:
        """Initial values by name, of a built wiring, in the order in which ncps draws them."""
        wiring, neurons = self.wiring, self.wiring.units
        ranges = {**RANGES, **self.initialization_ranges}
        values: dict[str, Uniform | np.ndarray] = {
            name: Uniform((neurons,), *ranges[name]) for name in ("gleak", "vleak", "cm")
        }
        for prefix, polarity in (
            ("", wiring.erev_initializer()),
            ("sensory_", wiring.sensory_erev_initializer()),
        ):
            for name in (f"{prefix}sigma", f"{prefix}mu", f"{prefix}w"):
                values[name] = Uniform(polarity.shape, *ranges[name])
            values[f"{prefix}erev"] = polarity
        for name, mapping, size in (
            ("input", self.input_mapping, len(wiring.sensory_erev_initializer())),
            ("output", self.output_mapping, motor_size(wiring)),
        ):
            if mapping:
                values[f"{name}_w"] = np.ones(size)
            if mapping == "affine":
                values[f"{name}_b"] = np.zeros(size)
        return values

    def masks(self) -> dict[str, np.ndarray]:
        """What a state dict holds besides the parameters: (N, N) and (I, N) of 0.0 and 1.0."""
        matrices = {
            "sparsity_mask": self.wiring.erev_initializer(),
            "sensory_sparsity_mask": self.wiring.sensory_erev_initializer(),
        }
        return {name: np.abs(matrix).astype(np.float32) for name, matrix in matrices.items()}

    def settings(self) -> dict[str, Any]:
        """The arguments that the layers of all ports share, as plain data."""
        names = ("input_mapping", "output_mapping", "ode_unfolds", "epsilon")
        names += ("implicit_param_constraints",)
        units = wiring_to_config(self.wiring)
        return {"units": units, **{name: getattr(self, name) for name in names}}


def ltc_wiring(units: int | Wiring) -> Wiring:
    """Return the wiring of an LTC layer's `units`: `FullyConnected` for a number of neurons."""
    return units if isinstance(units, Wiring) else FullyConnected(check_units(units))


class Wired:
    """Sizes that a cell or layer on a wiring reports, as in ncps."""

    wiring: Wiring
    """Built."""

    @property
    def sensory_size(self) -> int:
        """Number of inputs, I."""
        assert self.wiring.input_dim is not None
        return self.wiring.input_dim

    @property
    def motor_size(self) -> int:
        """Number of motor neurons, M."""
        return motor_size(self.wiring)

    @property
    def synapse_count(self) -> int:
        """Synapses between neurons."""
        return self.wiring.synapse_count

    @property
    def sensory_synapse_count(self) -> int:
        """Synapses from inputs to neurons."""
        return self.wiring.sensory_synapse_count


def _set(spec: Any, **values: Any) -> None:
    """Store checked values in a frozen specification that is being made."""
    for name, value in values.items():
        object.__setattr__(spec, name, value)
