"""One step of a liquid time-constant (LTC) neuron layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np

from ncp_agents import registry
from ncp_agents.keras.inputs import single_state, split_timespans
from ncp_agents.keras.ops import Tensor, ops
from ncp_agents.keras.synapses import Strengths, Synapses
from ncp_agents.keras.wired_cell import WiredCell
from ncp_agents.layers.checks import IOMapping, check_ltc
from ncp_agents.wirings import Wiring

RANGES = {
    "gleak": (0.001, 1.0),
    "vleak": (-0.2, 0.2),
    "cm": (0.4, 0.6),
    "w": (0.001, 1.0),
    "sigma": (3.0, 8.0),
    "mu": (0.3, 0.8),
    "sensory_w": (0.001, 1.0),
    "sensory_sigma": (3.0, 8.0),
    "sensory_mu": (0.3, 0.8),
}
"""Of the uniform distributions that parameters start from."""
POSITIVE = ("gleak", "cm", "w", "sensory_w")


class Membrane(NamedTuple):
    """A cell's parameters as the equation reads them."""

    cm: Tensor
    leak: Tensor
    rest: Tensor
    """(N, 1) each: capacitance, leak conductance and the potential that it pulls towards."""
    sensory: Strengths
    internal: Strengths


class Unfold(NamedTuple):
    """One step of the solver, v' = v + dt (pull - conductance v) / (cm + dt conductance), with what
    its gradient needs.
    """

    after: Tensor
    """v'"""
    conductance: Tensor
    imbalance: Tensor
    """pull - conductance v"""
    inverse: Tensor
    """1 / (cm + dt conductance)"""

    @classmethod
    def of(
        cls,
        cm: Tensor,
        base: tuple[Tensor, Tensor],
        own: tuple[Tensor, Tensor],
        v: Tensor,
        dt: Tensor,
    ) -> Unfold:
        """From potentials v (N, B), with conductance and pull of all that stays the same within a
        step (`base`) and of the synapses between neurons (`own`), and dt (1, B).
        """
        conductance, pull = base[0] + own[0], base[1] + own[1]
        divisor = cm + dt * conductance
        # Nothing moves where dt and cm are both 0.
        inverse = 1 / ops.where(divisor == 0, ops.ones_like(divisor), divisor)
        imbalance = pull - conductance * v
        return cls(v + dt * imbalance * inverse, conductance, imbalance, inverse)


@keras.saving.register_keras_serializable(package="ncp_agents")
class LTCCell(WiredCell):
    """One step of a liquid time-constant (LTC) neuron layer.

        cm dv/dt = gleak (vleak - v) + sum_s w_s sigmoid(sigma_s (v_source - mu_s)) (erev_s - v)

    over the synapses s into a neuron, by `ode_unfolds` steps of semi-implicit Euler
    (`ncp_agents.layers.reference.ltc_step`).

    Axes: B batch, I inputs, N neurons, M motor neurons (outputs).

    Args:
        wiring: built for I inputs with the cell if it was not yet.
        input_mapping: of the inputs: "affine" (x * input_w + input_b), "linear" (x * input_w) or
            None.
        output_mapping: of the motor neurons, in the same way.
        ode_unfolds: steps of the solver in one step of the cell.
        epsilon: added to the conductance, so that nothing is divided by 0.
        initialization_ranges: {parameter: (low, high)} that replace some of `RANGES`.
        implicit_param_constraints: True takes cm, gleak and w through a softplus, so that they stay
            positive; with False they are constrained to be at least 0 by the optimiser.

    The state (B, N) holds the neurons as the wiring numbers them, motor neurons first: for an NCP
    [motor, command, inter]. `erev`, the reversal potentials, is trainable and free in sign.

    Raises:
        ValueError: a wiring that was built for another size, an unknown mapping or parameter, a
            range that is none, fewer than one unfold.

    Source: Hasani et al. 2021, "Liquid time-constant networks", AAAI, arXiv:2006.04439.
    """

    def __init__(
        self,
        wiring: Wiring,
        input_mapping: IOMapping = "affine",
        output_mapping: IOMapping = "affine",
        ode_unfolds: int = 6,
        epsilon: float = 1e-8,
        initialization_ranges: dict[str, tuple[float, float]] | None = None,
        *,
        implicit_param_constraints: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(wiring, **kwargs)
        self.input_mapping: IOMapping = input_mapping
        self.output_mapping: IOMapping = output_mapping
        options = check_ltc(input_mapping, output_mapping, ode_unfolds, epsilon)
        self.ode_unfolds, self.epsilon = options
        self.initialization_ranges = _checked_ranges(initialization_ranges or {})
        self.implicit_param_constraints = implicit_param_constraints

    def build(self, inputs_shape: Any, states_shape: Any = None) -> None:
        inputs, neurons = self.build_wiring(inputs_shape), self.state_size
        ranges = RANGES | self.initialization_ranges
        shapes = dict.fromkeys(("gleak", "vleak", "cm"), (neurons,))
        for prefix, rows in (("", neurons), ("sensory_", inputs)):
            shapes |= {f"{prefix}{name}": (rows, neurons) for name in ("sigma", "mu", "w")}
        clips = not self.implicit_param_constraints
        self.params = {
            name: self.add_weight(
                name=name,
                shape=shape,
                initializer=keras.initializers.RandomUniform(*ranges[name]),
                constraint=keras.constraints.NonNeg() if clips and name in POSITIVE else None,
            )
            for name, shape in shapes.items()
        }
        polarities = {
            "erev": self.wiring.erev_initializer(),
            "sensory_erev": self.wiring.sensory_erev_initializer(),
        }
        for name, polarity in polarities.items():
            self.params[name] = self.add_weight(
                name=name, shape=polarity.shape, initializer=_constant(polarity)
            )
        for name, mapping, size in (
            ("input", self.input_mapping, inputs),
            ("output", self.output_mapping, self.output_size),
        ):
            if mapping:
                self.params[f"{name}_w"] = self.add_weight(
                    name=f"{name}_w", shape=(size,), initializer="ones"
                )
            if mapping == "affine":
                self.params[f"{name}_b"] = self.add_weight(
                    name=f"{name}_b", shape=(size,), initializer="zeros"
                )
        self.internal = Synapses(polarities["erev"])
        self.sensory = Synapses(polarities["sensory_erev"])
        self.built = True

    def membrane(self) -> Membrane:
        p = {name: ops.convert_to_tensor(value) for name, value in self.params.items()}
        if self.implicit_param_constraints:
            p |= {name: ops.softplus(p[name]) for name in POSITIVE}
        return Membrane(
            p["cm"][:, None],
            p["gleak"][:, None],
            p["vleak"][:, None],
            self._strengths(self.sensory, p, "sensory_"),
            self._strengths(self.internal, p, ""),
        )

    def _strengths(self, synapses: Synapses, p: dict[str, Tensor], prefix: str) -> Strengths:
        slope, mu, weight, erev = (
            synapses.pick(p[prefix + name]) for name in ("sigma", "mu", "w", "erev")
        )
        weight = weight * ops.cast(synapses.real[..., None], weight.dtype)
        return Strengths(slope, slope * mu, weight, weight * erev)

    def map_inputs(self, x: Tensor) -> Tensor:
        if self.input_mapping:
            x = x * self.params["input_w"]
        return x + self.params["input_b"] if self.input_mapping == "affine" else x

    def read_out(self, v: Tensor) -> Tensor:
        """v (…, N) → (…, M)."""
        motor = v[..., : self.output_size]
        if self.output_mapping:
            motor = motor * self.params["output_w"]
        return motor + self.params["output_b"] if self.output_mapping == "affine" else motor

    def base(self, membrane: Membrane, sensory: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Conductance and pull (N, B) of all that stays the same within a step, from those of the
        sensory synapses.
        """
        conductance, pull = sensory
        return conductance + membrane.leak + self.epsilon, pull + membrane.leak * membrane.rest

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Tensor, list[Tensor]]:
        """inputs (B, I), or the pair of it and timespans (B,) or (B, 1) in steps; states (B, N) or
        [(B, N)] → output (B, M), new states [(B, N)].
        """
        x, timespan = split_timespans(inputs)
        # Inside, the batch comes last.
        membrane, v = self.membrane(), ops.transpose(single_state(states))
        x = ops.transpose(self.map_inputs(x))
        base = self.base(membrane, self.sensory.receive(membrane.sensory, x))
        dt = ops.ones_like(v[:1]) if timespan is None else ops.transpose(timespan)
        dt = dt / self.ode_unfolds
        for _ in range(self.ode_unfolds):
            own = self.internal.receive(membrane.internal, v)
            v = Unfold.of(membrane.cm, base, own, v, dt).after
        v = ops.transpose(v)
        return self.read_out(v), [v]

    def torch_names(self) -> dict[str, Any]:
        """The variables by their names in the torch port's state dict."""
        return dict(self.params)

    def torch_buffers(self) -> dict[str, np.ndarray]:
        """What the torch port's state dict holds besides the variables."""
        matrices = {
            "sparsity_mask": self.wiring.erev_initializer(),
            "sensory_sparsity_mask": self.wiring.sensory_erev_initializer(),
        }
        return {name: np.abs(matrix).astype(np.float32) for name, matrix in matrices.items()}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "input_mapping": self.input_mapping,
            "output_mapping": self.output_mapping,
            "ode_unfolds": self.ode_unfolds,
            "epsilon": self.epsilon,
            "initialization_ranges": {k: list(v) for k, v in self.initialization_ranges.items()},
            "implicit_param_constraints": self.implicit_param_constraints,
        }


def _checked_ranges(ranges: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    for name, (low, high) in ranges.items():
        registry.get("parameter", name, RANGES)
        if low > high or (low < 0 and name in POSITIVE):
            at_least = " and low >= 0" if name in POSITIVE else ""
            raise ValueError(
                f"the initialization range of {name} is ({low}, {high}), expected low <= high"
                f"{at_least}"
            )
    return {name: (float(low), float(high)) for name, (low, high) in ranges.items()}


def _constant(values: np.ndarray) -> Any:
    return lambda shape, dtype=None: ops.convert_to_tensor(values, dtype=dtype)
