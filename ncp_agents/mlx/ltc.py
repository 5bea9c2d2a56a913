"""The LTC layer: a sequence in, a sequence out."""

from __future__ import annotations

import mlx.core as mx

from ncp_agents.layers.checks import IOMapping
from ncp_agents.mlx.ltc_cell import LTCCell
from ncp_agents.mlx.sequence_layer import SequenceLayer
from ncp_agents.wirings import FullyConnected, Wiring
from ncp_agents.wirings.base import number_of_neurons


class LTC(SequenceLayer):
    """A recurrent layer of liquid time-constant neurons on a wiring.

    Axes: B batch, T steps, I inputs, N neurons, M outputs (motor neurons).

    Args:
        input_size: I.
        units: a `Wiring`, or N for `FullyConnected(N)`.
        return_sequences: whether the output has all steps or only the last.
        batch_first: whether inputs are (B, T, I) or (T, B, I).
        mixed_memory: whether a memory cell (`MemoryCell`) precedes the neurons in each step.
        input_mapping, output_mapping, ode_unfolds, epsilon, implicit_param_constraints: see
            `LTCCell`.

    Its cost grows with the synapses that exist, not with N squared.

    Raises:
        ValueError: a size below 1, a wiring that was built for another size, and what `LTCCell`
            refuses.

    Source: Hasani et al. 2021, "Liquid time-constant networks", AAAI, arXiv:2006.04439; resets
    inside the sequence and timespans a row are additions.
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
            units if isinstance(units, Wiring) else FullyConnected(number_of_neurons(units)),
            input_size,
            input_mapping,
            output_mapping,
            ode_unfolds,
            epsilon,
            implicit_param_constraints,
        )
        neurons = cell.state_size
        super().__init__(cell, input_size, neurons, return_sequences, batch_first, mixed_memory)
        self.output_size = cell.motor_size

    @property
    def wiring(self) -> Wiring:
        return self.rnn_cell.wiring

    def read_out(self, states: mx.array) -> mx.array:
        return self.rnn_cell.map_outputs(states)
