"""One step of a liquid time-constant (LTC) neuron layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx import nn

from ncp_agents.layers.checks import IOMapping
from ncp_agents.layers.spec import POSITIVE, LTCSpec, Uniform, Wired, build_wiring
from ncp_agents.mlx.cfc_cell import one_step
from ncp_agents.mlx.masks import MASKS, Masked
from ncp_agents.wirings import Wiring


@dataclass(frozen=True)
class Layout:
    """The synapses that exist, as a table with a column for each neuron that receives any.

    Gathering whole rows of a state whose batch comes last, and adding up along the columns, is
    several times as fast as a scatter to the targets, or a matrix product.

    Axes: N neurons, R of them receiving, K synapses of the neuron with the largest number.
    """

    source: mx.array
    """(K, R) int"""
    flat: mx.array
    """(K, R) int: where the synapse stands in a flattened (sources, N)."""
    exists: mx.array
    """(K, R) bool, False where a neuron has fewer synapses than K."""
    column: mx.array
    """(N,) int: which column is the neuron's; R for those that receive nothing."""

    @classmethod
    def of(cls, matrix: np.ndarray) -> Layout:
        """matrix (sources, N), nonzero where a synapse is."""
        exists = matrix != 0
        receiving = np.flatnonzero(exists.any(0))
        column = np.full(matrix.shape[1], len(receiving))
        column[receiving] = np.arange(len(receiving))
        longest = exists.sum(0).max()
        source = np.argsort(~exists[:, receiving], axis=0, kind="stable")[:longest]
        return cls(
            source=mx.array(source),
            flat=mx.array(source * matrix.shape[1] + receiving),
            exists=mx.array(np.take_along_axis(exists[:, receiving], source, 0)),
            column=mx.array(column),
        )


class Synapses(NamedTuple):
    """The synapses from some sources to the neurons.

    act = sigmoid(slope * v[source] - offset)
    conductance[target] += weight * act,   pull[target] += reversal * weight * act
    """

    layout: Layout
    slope: mx.array
    offset: mx.array
    weight: mx.array
    pull: mx.array
    """(K, R) each; pull is weight * reversal potential."""

    def receive(self, v: mx.array) -> tuple[mx.array, mx.array]:
        """v (sources, B) → what the synapses add to conductance and pull, (N, B) each."""
        weighted = activate(v[self.layout.source], *(p[..., None] for p in self[1:]))
        nothing = mx.zeros((1, v.shape[1]), v.dtype)
        conductance, pull = (
            mx.concatenate([part.sum(0), nothing])[self.layout.column] for part in weighted
        )
        return conductance, pull


@partial(mx.compile, shapeless=True)
def activate(
    v: mx.array, slope: mx.array, offset: mx.array, weight: mx.array, pull: mx.array
) -> tuple[mx.array, mx.array]:
    """Return what the synapses add to conductance and pull."""
    act = mx.sigmoid(v * slope - offset)
    return act * weight, act * pull


@partial(mx.compile, shapeless=True)
def euler(
    v: mx.array, conductance: mx.array, pull: mx.array, cm: mx.array, dt: mx.array
) -> mx.array:
    """One semi-implicit step; a dt of 0 leaves v as it was."""
    divisor = cm + dt * conductance
    divisor = mx.where(divisor == 0, 1.0, divisor)  # dt and cm are
    return v + dt * (pull - conductance * v) / divisor


class Membrane(NamedTuple):
    """A cell's parameters as a step reads them. Axes: T steps, B batch, I inputs, N neurons."""

    cm: mx.array
    leak: mx.array
    rest: mx.array
    """(N, 1) each: capacitance, leak conductance and the potential that it pulls towards."""
    sensory: Synapses
    internal: Synapses
    unfolds: int
    epsilon: float

    def project(self, x: mx.array) -> mx.array:
        """x (…, B, I) → conductance and pull (…, 2, N, B) of all that stays within a step."""
        *steps, batch, inputs = x.shape
        flat = mx.contiguous(x.reshape(-1, inputs).T)
        conductance, pull = self.sensory.receive(flat)
        base = mx.stack([conductance + self.leak + self.epsilon, pull + self.leak * self.rest])
        base = base.reshape(2, -1, *steps, batch)
        return mx.contiguous(mx.moveaxis(base, 2, 0)) if steps else base

    def step(self, base: mx.array, v: mx.array, timespan: float | mx.array) -> mx.array:
        """One step from potentials v (B, N); timespan a float or (B, 1) → v' (B, N)."""
        v = mx.contiguous(v.T)
        dt = mx.array(timespan, v.dtype).T / self.unfolds
        for _ in range(self.unfolds):
            conductance, pull = self.internal.receive(v)
            v = euler(v, conductance + base[0], pull + base[1], self.cm, dt)
        return v.T


class LTCCell(Wired, Masked):
    """One step of a liquid time-constant (LTC) neuron layer.

    The equation and the arguments are those of `ncp_agents.torch.LTCCell`. Called on inputs (B, I),
    states (B, N) and the elapsed time, in steps → output (B, M), state (B, N).
    """

    gleak: mx.array
    vleak: mx.array
    cm: mx.array  # (N,) each
    input_w: mx.array
    input_b: mx.array  # (I,) each, where the inputs are mapped
    output_w: mx.array
    output_b: mx.array  # (M,) each, where the outputs are mapped

    def __init__(
        self,
        wiring: Wiring,
        in_features: int | None = None,
        input_mapping: IOMapping = "affine",
        output_mapping: IOMapping = "affine",
        ode_unfolds: int = 6,
        epsilon: float = 1e-8,
        implicit_param_constraints: bool = False,
    ) -> None:
        super().__init__()
        self.wiring = build_wiring(wiring, in_features, "in_features")
        self.spec = LTCSpec(
            self.wiring,
            input_mapping,
            output_mapping,
            ode_unfolds,
            epsilon,
            implicit_param_constraints,
        )
        self.input_size, self.state_size = self.sensory_size, self.wiring.units
        self.output_size = self.motor_size
        self._layouts: dict[str, Layout] = {}
        for name, initial in self.spec.parameters().items():
            if isinstance(initial, Uniform):
                self[name] = mx.random.uniform(initial.low, initial.high, initial.shape)
            else:
                self[name] = mx.array(initial.astype(np.float32))
        for name, mask in self.spec.masks().items():
            self[name] = mx.array(mask)
        self.freeze(keys=MASKS)

    def __setitem__(self, key: str, value: Any) -> None:
        """Set a parameter, by whatever way it comes; a mask decides which synapses exist."""
        super().__setitem__(key, value)
        if key in MASKS:
            self._layouts[key] = Layout.of(np.array(value != 0))

    @property
    def any_parameter(self) -> mx.array:
        """One parameter; all have its dtype."""
        return self.gleak

    def fuse(self, timespan: float | None = None) -> Membrane:
        """Return the parameters as steps read them, which is the same for every timespan."""
        return Membrane(
            cm=self._positive(self.cm)[:, None],
            leak=self._positive(self.gleak)[:, None],
            rest=self.vleak[:, None],
            sensory=self._map_inputs(self._synapses("sensory_")),
            internal=self._synapses(""),
            unfolds=self.spec.ode_unfolds,
            epsilon=self.spec.epsilon,
        )

    def map_outputs(self, v: mx.array) -> mx.array:
        """v (…, N) → (…, M)."""
        motor, mapping = v[..., : self.output_size], self.spec.output_mapping
        if mapping:
            motor = motor * self.output_w
        return motor + self.output_b if mapping == "affine" else motor

    def __call__(
        self, inputs: mx.array, states: mx.array, elapsed_time: float | mx.array = 1.0
    ) -> tuple[mx.array, mx.array]:
        """One step, see the class; elapsed_time is a float, (B,) or (B, 1)."""
        v = one_step(self, inputs, states, elapsed_time)
        return self.map_outputs(v), v

    def apply_weight_constraints(self) -> None:
        """Clip cm, gleak and w at 0; does nothing with implicit_param_constraints."""
        if not self.spec.implicit_param_constraints:
            for name in POSITIVE:
                self[name] = mx.maximum(self[name], 0.0)

    def _positive(self, value: mx.array) -> mx.array:
        return nn.softplus(value) if self.spec.implicit_param_constraints else value

    def _map_inputs(self, sensory: Synapses) -> Synapses:
        """Let the synapses read x in place of x * input_w + input_b."""
        slope, offset, source = sensory.slope, sensory.offset, sensory.layout.source
        if self.spec.input_mapping == "affine":
            offset = offset - slope * self.input_b[source]
        if self.spec.input_mapping:
            slope = slope * self.input_w[source]
        return sensory._replace(slope=slope, offset=offset)

    def _synapses(self, prefix: str) -> Synapses:
        layout = self._layouts[f"{prefix}sparsity_mask"]
        sigma, mu, w, erev = (
            mx.take(self[prefix + name], layout.flat) for name in ("sigma", "mu", "w", "erev")
        )
        weight = mx.where(layout.exists, self._positive(w), 0.0)
        return Synapses(layout, sigma, sigma * mu, weight, weight * erev)
