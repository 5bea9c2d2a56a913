"""The LTC layer: a sequence in, a sequence out."""

from __future__ import annotations

from torch import Tensor

from ncp_agents.layers.checks import IOMapping
from ncp_agents.layers.spec import Wired, ltc_wiring
from ncp_agents.torch.ltc_cell import LTCCell
from ncp_agents.torch.scan import scan_ltc
from ncp_agents.torch.sequence_layer import SequenceLayer
from ncp_agents.wirings import Wiring


class LTC(Wired, SequenceLayer):
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
        self.output_slice = slice(0, cell.output_size)

    def read_out(self, states: Tensor) -> Tensor:
        """The neurons' states (…, N) → outputs (…, M)."""
        return self.rnn_cell.map_outputs(states)

    def _scan(
        self, x: Tensor, h: Tensor, timespans: float | Tensor, resets: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return scan_ltc(self.rnn_cell, x, h, timespans, resets)
