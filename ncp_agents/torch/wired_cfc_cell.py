"""One step of CfC neurons on a wiring: a chain of sparse CfC layers."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from ncp_agents.layers.checks import Init, Mode, check_outputs, check_step
from ncp_agents.torch.cfc_cell import CfCCell
from ncp_agents.torch.wired_cell import WiredCell
from ncp_agents.wirings import Wiring


class WiredCfCCell(WiredCell):
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

    def __init__(
        self,
        input_size: int | None,
        wiring: Wiring,
        mode: Mode = "default",
        *,
        mask_time_gates: bool = False,
        init: Init = "xavier",
    ) -> None:
        super().__init__(wiring, input_size, "input_size")
        self.mode: Mode = mode
        layers = wiring.layers
        check_outputs(self.motor_size, len(layers[-1]))
        sources = self.sensory_size
        for index, neurons in enumerate(layers):
            if index == 0:
                synapses = wiring.sensory_erev_initializer()[:, neurons]
            else:
                synapses = wiring.adjacency_matrix[np.ix_(layers[index - 1], neurons)]
            recurrent = np.ones((len(neurons), len(neurons)))
            cell = CfCCell(
                sources,
                len(neurons),
                mode,
                backbone_units=0,
                backbone_layers=0,
                sparsity_mask=np.concatenate([synapses, recurrent]),
                mask_time_gates=mask_time_gates,
                init=init,
            )
            self.register_module(f"layer_{index}", cell)
            sources = len(neurons)

    @property
    def cells(self) -> list[CfCCell]:
        """The layers' cells, first to last."""
        return [cast(CfCCell, getattr(self, f"layer_{i}")) for i in range(self.num_layers)]

    @property
    def layer_sizes(self) -> list[int]:
        return [len(neurons) for neurons in self.wiring.layers]

    @property
    def num_layers(self) -> int:
        return self.wiring.num_layers

    @property
    def output_slice(self) -> slice:
        """Where the motor neurons stand in the state: first in the last layer."""
        start = sum(self.layer_sizes[:-1])
        return slice(start, start + self.motor_size)

    def forward(
        self, x: Tensor, h: Tensor, timespan: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """x (B, I), h (B, N), timespan a float, (B,) or (B, 1), in steps → output (B, M), state
        (B, N).

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
