"""One step of a liquid time-constant (LTC) neuron layer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ncp_agents.layers.checks import IOMapping, check_step
from ncp_agents.layers.spec import POSITIVE, LTCSpec, Uniform, Wired, build_wiring
from ncp_agents.wirings import Wiring


class Synapses(NamedTuple):
    """The synapses that exist from some sources to the neurons, sorted by their target.

    act = sigmoid(slope * v[source] - offset)
    conductance[target] += weight * act,   pull[target] += reversal * weight * act
    """

    source: Tensor
    target: Tensor
    """(S,) int64 each."""
    neurons: int
    slope: Tensor
    offset: Tensor
    weight: Tensor
    pull: Tensor
    """(S,) each; pull is weight * reversal potential."""

    def receive(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """v (…, sources) → what the synapses add to conductance and pull, (…, N) each."""
        act = torch.sigmoid(v[..., self.source] * self.slope - self.offset)
        target = self.target.expand(act.shape)
        zeros = act.new_zeros(*act.shape[:-1], self.neurons)
        return (
            zeros.scatter_add(-1, target, act * self.weight),
            zeros.scatter_add(-1, target, act * self.pull),
        )


class Membrane(NamedTuple):
    """A cell's parameters as an equation reads them. Axes: N neurons."""

    cm: Tensor
    leak: Tensor
    rest: Tensor
    """(N,) each: capacitance, leak conductance and the potential that it pulls towards."""
    sensory: Synapses
    internal: Synapses
    unfolds: int
    epsilon: float

    @property
    def tensors(self) -> list[Tensor]:
        """Return all parameters."""
        return [self.cm, self.leak, self.rest, *self.sensory[3:], *self.internal[3:]]

    def base(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (…, I) → conductance and pull (…, N) of all that stays the same within a step."""
        conductance, pull = self.sensory.receive(x)
        return conductance + self.leak + self.epsilon, pull + self.leak * self.rest

    def step(self, base: tuple[Tensor, Tensor], v: Tensor, timespan: float | Tensor) -> Tensor:
        """One step from potentials v (B, N); timespan a float or (B, 1) → v' (B, N)."""
        dt = torch.as_tensor(timespan, dtype=v.dtype, device=v.device) / self.unfolds
        for _ in range(self.unfolds):
            conductance, pull = self.internal.receive(v)
            conductance, pull = conductance + base[0], pull + base[1]
            divisor = self.cm + dt * conductance
            divisor = torch.where(divisor == 0, 1.0, divisor)  # dt and cm are: v stays
            v = v + dt * (pull - conductance * v) / divisor
        return v


class LTCCell(Wired, nn.Module):
    """One step of a liquid time-constant (LTC) neuron layer.

        cm dv/dt = gleak (vleak - v) + sum_s w_s sigmoid(sigma_s (v_source - mu_s)) (erev_s - v)

    over the synapses s into a neuron, by `ode_unfolds` steps of semi-implicit Euler
    (`ncp_agents.layers.reference.ltc_step`).

    Axes: B batch, I inputs, N neurons, M motor neurons (outputs).

    Args:
        wiring: built for I inputs here if it was not yet.
        in_features: I, or None where the wiring is built already.
        input_mapping: of the inputs: "affine" (x * input_w + input_b), "linear" (x * input_w) or
            None.
        output_mapping: of the motor neurons, in the same way.
        ode_unfolds: steps of the solver in one step of the cell.
        epsilon: added to the conductance, so that nothing is divided by 0.
        implicit_param_constraints: True takes cm, gleak and w through a softplus, so that they stay
            positive; with False `apply_weight_constraints` clips them, after each optimiser step.

    The state (B, N) holds the neurons as the wiring numbers them, motor neurons first: for an NCP
    [motor, command, inter]. `erev`, the reversal potentials, is trainable and free in sign. The
    masks decide which synapses exist when they are loaded, not when they are changed in place.

    Raises:
        ValueError: a wiring that is not built or was built for another size, an unknown mapping,
            fewer than one unfold.

    Source: Hasani et al. 2021, "Liquid time-constant networks", AAAI, arXiv:2006.04439.
    """

    gleak: Tensor
    vleak: Tensor
    cm: Tensor  # (N,) each
    input_w: Tensor
    input_b: Tensor  # (I,) each, where the inputs are mapped
    output_w: Tensor
    output_b: Tensor  # (M,) each, where the outputs are mapped
    sparsity_mask: Tensor  # (N, N)
    sensory_sparsity_mask: Tensor  # (I, N)

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
        self.spec = spec = LTCSpec(
            self.wiring,
            input_mapping,
            output_mapping,
            ode_unfolds,
            epsilon,
            implicit_param_constraints,
        )
        self.state_size, self.output_size = self.wiring.units, self.motor_size
        self.input_mapping: IOMapping = input_mapping
        self.output_mapping: IOMapping = output_mapping
        self.ode_unfolds, self.epsilon = spec.ode_unfolds, spec.epsilon
        self.implicit_param_constraints = implicit_param_constraints

        for name, initial in spec.parameters().items():
            if isinstance(initial, Uniform):
                values = torch.rand(initial.shape) * (initial.high - initial.low) + initial.low
            else:
                values = torch.tensor(initial, dtype=torch.get_default_dtype())
            self.register_parameter(name, nn.Parameter(values))
        for name, mask in spec.masks().items():
            self.register_buffer(name, torch.tensor(mask, dtype=torch.get_default_dtype()))
        _index_synapses(self)
        # The masks belong to the state dict, as in ncps: what is loaded decides.
        self.register_load_state_dict_post_hook(_index_synapses)

    @property
    def any_parameter(self) -> Tensor:
        """One parameter; all have its dtype and device."""
        return self.gleak

    def membrane(self) -> Membrane:
        """The parameters as the equation reads them."""
        return Membrane(
            cm=self._positive(self.cm),
            leak=self._positive(self.gleak),
            rest=self.vleak,
            sensory=self._map_inputs(self._synapses("sensory_")),
            internal=self._synapses(""),
            unfolds=self.ode_unfolds,
            epsilon=self.epsilon,
        )

    def map_outputs(self, v: Tensor) -> Tensor:
        """v (…, N) → (…, M)."""
        motor = v[..., : self.motor_size]
        if not self.output_mapping:
            return motor.clone()  # may be changed in place, as v may not: the backward needs it
        motor = motor * self.output_w
        return motor + self.output_b if self.output_mapping == "affine" else motor

    def forward(
        self, inputs: Tensor, states: Tensor, elapsed_time: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """inputs (B, I), states (B, N), elapsed_time in steps → output (B, M), state (B, N).

        elapsed_time is a float, (B,) or (B, 1).

        Raises:
            ValueError: another shape.
        """
        elapsed_time = check_step(inputs, states, elapsed_time, self.sensory_size, self.state_size)
        membrane = self.membrane()
        v = membrane.step(membrane.base(inputs), states, elapsed_time)
        return self.map_outputs(v), v

    def apply_weight_constraints(self) -> None:
        """Clip cm, gleak and w at 0; does nothing with implicit_param_constraints."""
        if not self.implicit_param_constraints:
            with torch.no_grad():
                for name in POSITIVE:
                    getattr(self, name).clamp_(min=0.0)

    def _positive(self, value: Tensor) -> Tensor:
        return F.softplus(value) if self.implicit_param_constraints else value

    def _map_inputs(self, sensory: Synapses) -> Synapses:
        """Let the synapses read x in place of x * input_w + input_b."""
        slope, offset = sensory.slope, sensory.offset
        if self.input_mapping == "affine":
            offset = offset - slope * self.input_b[sensory.source]
        if self.input_mapping:
            slope = slope * self.input_w[sensory.source]
        return sensory._replace(slope=slope, offset=offset)

    def _synapses(self, prefix: str) -> Synapses:
        source, target = getattr(self, f"_{prefix}source"), getattr(self, f"_{prefix}target")
        sigma, mu, w, erev = (
            getattr(self, prefix + name)[source, target] for name in ("sigma", "mu", "w", "erev")
        )
        weight = self._positive(w)
        return Synapses(source, target, self.state_size, sigma, sigma * mu, weight, weight * erev)


def _index_synapses(cell: LTCCell, *_: object) -> None:
    """List the synapses that exist by the masks, or by the wiring on the device "meta"."""
    for name, of_wiring in cell.spec.masks().items():
        mask: Tensor = getattr(cell, name)
        known = of_wiring if mask.is_meta else mask.numpy(force=True)
        prefix = name.removesuffix("sparsity_mask")
        for name, index in zip(("target", "source"), np.nonzero(known.T), strict=True):
            values = torch.tensor(index, dtype=torch.int64, device=mask.device)
            cell.register_buffer(f"_{prefix}{name}", values, persistent=False)
