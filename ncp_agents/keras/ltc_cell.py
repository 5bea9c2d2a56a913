"""One step of a liquid time-constant (LTC) neuron layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np

from ncp_agents.keras.inputs import single_state, split_timespans
from ncp_agents.keras.ops import Tensor, ops
from ncp_agents.keras.synapses import Strengths, Synapses
from ncp_agents.keras.wired_cell import WiredCell
from ncp_agents.layers.checks import IOMapping
from ncp_agents.layers.spec import POSITIVE, LTCSpec, Uniform
from ncp_agents.wirings import Wiring


class Membrane(NamedTuple):
    """A cell's parameters as the equation reads them."""

    cm: Tensor
    leak: Tensor
    rest: Tensor
    """(N, 1) each: capacitance, leak conductance and the potential that it pulls towards."""
    sensory: Strengths
    internal: Strengths


class Unfold(NamedTuple):
    """One step of the solver and what its gradient needs.

    v' = v + dt (pull - conductance v) / (cm + dt conductance)
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
        """Take the step from potentials v (N, B) for dt (1, B).

        `base` holds conductance and pull of all that is constant within a step of the cell, `own`
        those of the synapses between neurons.
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

    The equation and the arguments are those of `ncp_agents.torch.LTCCell`, except that the inputs'
    size comes with `build` and that, without `implicit_param_constraints`, the optimiser keeps cm,
    gleak and w at 0 or above. Besides

    Args:
        initialization_ranges: {parameter: (low, high)} that replace some of
            `ncp_agents.layers.spec.RANGES`.

    Called on inputs (B, I), or the pair of them and timespans (B,) or (B, 1) in steps, and a state
    (B, N) or [(B, N)] → output (B, M), [(B, N)].
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
        self.spec = LTCSpec(
            wiring,
            input_mapping,
            output_mapping,
            ode_unfolds,
            epsilon,
            implicit_param_constraints,
            initialization_ranges or {},
        )
        self.ode_unfolds = self.spec.ode_unfolds

    def build(  # pyright: ignore[reportIncompatibleMethodOverride]  # named after those of call
        self, inputs_shape: Any, states_shape: Any = None
    ) -> None:
        """Make the weights for inputs of that shape."""
        self.build_wiring(inputs_shape)
        clips = not self.spec.implicit_param_constraints
        initial = self.spec.parameters()
        # Those sampled come first: files of Keras hold weights in the order in which they are made.
        names = sorted(initial, key=lambda name: not isinstance(initial[name], Uniform))
        self.params = {
            name: self.add_weight(
                name=name,
                shape=initial[name].shape,
                initializer=_initializer(initial[name]),
                constraint=keras.constraints.NonNeg() if clips and name in POSITIVE else None,
            )
            for name in names
        }
        self.internal = Synapses(self.wiring.erev_initializer())
        self.sensory = Synapses(self.wiring.sensory_erev_initializer())
        self.built = True

    def membrane(self) -> Membrane:
        """Return the parameters as the equation reads them."""
        p = {name: ops.convert_to_tensor(value) for name, value in self.params.items()}
        if self.spec.implicit_param_constraints:
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
        """x (…, I) → what the synapses read, (…, I)."""
        return self._mapped(x, "input", self.spec.input_mapping)

    def read_out(self, v: Tensor) -> Tensor:
        """v (…, N) → (…, M)."""
        return self._mapped(v[..., : self.output_size], "output", self.spec.output_mapping)

    def _mapped(self, values: Tensor, name: str, mapping: IOMapping) -> Tensor:
        if mapping:
            values = values * self.params[f"{name}_w"]
        return values + self.params[f"{name}_b"] if mapping == "affine" else values

    def base(self, membrane: Membrane, sensory: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Add the leak to the sensory synapses' conductance and pull, (N, B) each."""
        conductance, pull = sensory
        return conductance + membrane.leak + self.spec.epsilon, pull + membrane.leak * membrane.rest

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Tensor, list[Tensor]]:
        """One step, see the class."""
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

    def get_config(self) -> dict[str, Any]:
        """Return the arguments as plain data."""
        settings = self.spec.settings()
        del settings["units"]
        ranges = {name: list(pair) for name, pair in self.spec.initialization_ranges.items()}
        return {**super().get_config(), **settings, "initialization_ranges": ranges}


def _initializer(initial: Uniform | np.ndarray) -> Any:
    if isinstance(initial, Uniform):
        return keras.initializers.RandomUniform(initial.low, initial.high)
    return lambda shape, dtype=None: ops.convert_to_tensor(initial, dtype=dtype)
