"""The CfC layer: a sequence in, a sequence out."""

from __future__ import annotations

import mlx.core as mx
from mlx import nn

from ncp_agents.layers.checks import Init, Mode
from ncp_agents.mlx.cfc_cell import CfCCell
from ncp_agents.mlx.sequence_layer import SequenceLayer
from ncp_agents.mlx.wired_cfc_cell import WiredCfCCell
from ncp_agents.validation import check_integer
from ncp_agents.wirings import Wiring


class CfC(SequenceLayer):
    """A recurrent layer of closed-form continuous-time neurons, dense or on a wiring.

    The arguments are those of `ncp_agents.torch.CfC`. Called on x (B, T, I), a state (B, N) or the
    pair of two with mixed memory, timespans and resets (B, T) → outputs (B, T, M) and state.
    """

    rnn_cell: CfCCell | WiredCfCCell

    def __init__(
        self,
        input_size: int,
        units: int | Wiring,
        proj_size: int | None = None,
        return_sequences: bool = True,
        batch_first: bool = True,
        mixed_memory: bool = False,
        mode: Mode = "default",
        activation: str = "lecun_tanh",
        backbone_units: int = 128,
        backbone_layers: int = 1,
        backbone_dropout: float = 0.0,
        *,
        mask_time_gates: bool = False,
        init: Init = "xavier",
    ) -> None:
        if isinstance(units, Wiring):
            cell = WiredCfCCell(input_size, units, mode, mask_time_gates=mask_time_gates, init=init)
        else:
            cell = CfCCell(
                input_size,
                units,
                mode,
                activation,
                backbone_units,
                backbone_layers,
                backbone_dropout,
                init=init,
            )
        super().__init__(cell, input_size, return_sequences, batch_first, mixed_memory)
        self.output_slice = cell.output_slice
        self.output_size = cell.output_size
        self.proj_size = None if proj_size is None else check_integer("proj_size", proj_size, 1)
        self.fc = nn.Identity() if proj_size is None else nn.Linear(self.output_size, proj_size)

    def read_out(self, states: mx.array) -> mx.array:
        """The neurons' states (…, N) → outputs (…, M)."""
        return self.fc(states[..., self.output_slice])
