"""The LTC layer: a sequence in, a sequence out."""

from __future__ import annotations

import mlx.core as mx

from ncp_agents.layers.checks import IOMapping
from ncp_agents.layers.spec import ltc_wiring
from ncp_agents.mlx.ltc_cell import LTCCell
from ncp_agents.mlx.sequence_layer import SequenceLayer
from ncp_agents.wirings import Wiring


class LTC(SequenceLayer):
    """A recurrent layer of liquid time-constant neurons on a wiring.

    The arguments are those of `ncp_agents.torch.LTC`. Called on x (B, T, I), a state (B, N) or the
    pair of two with mixed memory, timespans and resets (B, T) → outputs (B, T, M) and state.
    """

    rnn_cell: LTCCell

    def __init__(
        self,
        input_size: int,
        units: int | Wiring,
        return_sequences: bool = True,
        batch_first: bool = True,
        mixed_memory: bool = False,
        input_mapping: IOMapping = "affine",
        output_mapping: IOMapping = "affine",
        ode_unfolds: int = 6,
        epsilon: float = 1e-8,
        implicit_param_constraints: bool = True,
    ) -> None:
        cell = LTCCell(
            ltc_wiring(units),
            input_size,
            input_mapping,
            output_mapping,
            ode_unfolds,
            epsilon,
            implicit_param_constraints,
        )
        super().__init__(cell, input_size, return_sequences, batch_first, mixed_memory)
        self.output_size = cell.output_size

    def read_out(self, states: mx.array) -> mx.array:
        """The neurons' states (…, N) → outputs (…, M)."""
        return self.rnn_cell.map_outputs(states)
