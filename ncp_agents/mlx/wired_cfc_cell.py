"""One step of CfC neurons on a wiring: a chain of sparse CfC layers."""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import mlx.core as mx

from ncp_agents.layers.checks import Init, Mode
from ncp_agents.layers.spec import Wired, WiredCfCSpec, build_wiring
from ncp_agents.mlx.cfc_cell import CfCCell, FusedCfC, one_step
from ncp_agents.mlx.masks import Masked
from ncp_agents.wirings import Wiring


class FusedChain(NamedTuple):
    """The layers of a wired CfC as a step reads them, first to last."""

    layers: list[FusedCfC]
    ends: list[int]
    """Where each layer's neurons but the last's end in the state."""

    def project(self, x: mx.array) -> mx.array:
        """x (…, I) → the inputs' part of the first layer's map (…, U)."""
        return self.layers[0].project(x)

    def step(self, projected: mx.array, h: mx.array, timespan: float | mx.array) -> mx.array:
        """projected (B, U) of the first layer, h (B, N) → h' (B, N)."""
        first, *others = self.layers
        previous, *states = mx.split(h, self.ends, -1)
        new = [first.step(projected, previous, timespan)]
        for layer, previous in zip(others, states, strict=True):
            new.append(layer.step(layer.project(new[-1]), previous, timespan))
        return mx.concatenate(new, -1)


class WiredCfCCell(Wired, Masked):
    """One step of CfC neurons on a wiring: a chain of sparse CfC layers.

    The circuit and the arguments are those of `ncp_agents.torch.WiredCfCCell`. Called on x (B, I),
    h (B, N) and a timespan, in steps → output (B, M), state (B, N).
    """

    layer_0: CfCCell

    def __init__(
        self,
        input_size: int | None,
        wiring: Wiring,
        mode: Mode = "default",
        *,
        mask_time_gates: bool = False,
        init: Init = "xavier",
    ) -> None:
        super().__init__()
        self.wiring = build_wiring(wiring, input_size, "input_size")
        self.spec = WiredCfCSpec(self.wiring, mode, mask_time_gates)
        self.input_size = sources = self.sensory_size
        self.state_size, self.output_size = self.wiring.units, self.motor_size
        self.output_slice = self.spec.output_slice
        for index, layer in enumerate(self.spec.cells()):
            self[f"layer_{index}"] = CfCCell(
                sources,
                layer.units,
                mode,
                backbone_units=0,
                sparsity_mask=layer.sparsity_mask,
                mask_time_gates=mask_time_gates,
                init=init,
            )
            sources = layer.units

    @property
    def cells(self) -> list[CfCCell]:
        """The layers' cells, first to last."""
        return [self[f"layer_{index}"] for index in range(len(self.layer_sizes))]

    @property
    def layer_sizes(self) -> list[int]:
        """Neurons of each layer, first to last."""
        return self.spec.layer_sizes

    @property
    def any_parameter(self) -> mx.array:
        """One parameter; all have its dtype."""
        return self.layer_0.any_parameter

    def fuse(self, timespan: float | None) -> FusedChain:
        """Return the weights as steps read them, for one constant timespan or None for several."""
        layers = [cell.fuse(timespan) for cell in self.cells]
        return FusedChain(layers, [*accumulate(self.layer_sizes[:-1])])

    def __call__(
        self, x: mx.array, h: mx.array, timespan: float | mx.array = 1.0
    ) -> tuple[mx.array, mx.array]:
        """One step, see the class; timespan is a float, (B,) or (B, 1)."""
        state = one_step(self, x, h, timespan)
        return state[..., self.output_slice], state
