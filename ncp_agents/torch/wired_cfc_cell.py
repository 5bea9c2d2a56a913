"""One step of CfC neurons on a wiring: a chain of sparse CfC layers."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from ncp_agents.layers.checks import Init, Mode, check_step
from ncp_agents.layers.spec import Wired, WiredCfCSpec, build_wiring
from ncp_agents.torch.cfc_cell import CfCCell
from ncp_agents.wirings import Wiring


class WiredCfCCell(Wired, nn.Module):
    """One step of CfC neurons on a wiring.

    The layers of the wiring (inter, command, motor for an NCP) follow one another within a step:
    each reads the layer before it through the synapses of the wiring, and its own previous state
    through dense recurrent weights.

    Axes: B batch, I inputs, N neurons, M motor neurons (outputs).

    Args:
        input_size: I, or None where the wiring is built already.
        wiring: built for I inputs here if it was not yet.
        mode: as in `CfCCell`.
        mask_time_gates: whether the time gates are as sparse as the other heads
            (in ncps they are dense).
        init: as in `CfCCell`.

    Raises:
        ValueError: a wiring that is not built or was built for another size.

    The state (B, N) holds the layers in order, first to last: [inter, command, motor].

    Source: Lechner et al. 2020, "Neural circuit policies enabling auditable autonomy".
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
        self.mode: Mode = mode
        self.state_size, self.output_size = self.wiring.units, self.motor_size
        self.layer_sizes = self.spec.layer_sizes
        self.num_layers = len(self.layer_sizes)
        self.output_slice = self.spec.output_slice
        sources = self.sensory_size
        for index, layer in enumerate(self.spec.cells()):
            cell = CfCCell(
                sources,
                layer.units,
                mode,
                backbone_units=0,
                sparsity_mask=layer.sparsity_mask,
                mask_time_gates=mask_time_gates,
                init=init,
            )
            self.register_module(f"layer_{index}", cell)
            sources = layer.units

    @property
    def cells(self) -> list[CfCCell]:
        """The layers' cells, first to last."""
        return [cast(CfCCell, getattr(self, f"layer_{i}")) for i in range(self.num_layers)]

    @property
    def any_parameter(self) -> Tensor:
        """One parameter; all have its dtype and device."""
        return self.layer_0.any_parameter

    def forward(
        self, x: Tensor, h: Tensor, timespan: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """x (B, I), h (B, N), timespan in steps → output (B, M), state (B, N).

        timespan is a float, (B,) or (B, 1).

        Raises:
            ValueError: another shape.
        """
        timespan = check_step(x, h, timespan, self.sensory_size, self.state_size)
        states = []
        for cell, previous in zip(self.cells, h.split(self.layer_sizes, -1), strict=True):
            x, _ = cell(x, previous, timespan)
            states.append(x)
        state = torch.cat(states, -1)
        return state[..., self.output_slice], state
