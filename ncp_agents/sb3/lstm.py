"""torch's LSTM in a circuit's place, so that both can be compared in the same policy.

Axes: B sequences, T steps, I features, N neurons.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn

from ncp_agents.torch.sequence_layer import State
from ncp_agents.wirings import Wiring


class LSTMCircuit(nn.Module):
    """`nn.LSTM` with the interface that the policies expect of a circuit.

    Args:
        input_size: I.
        units: N, all of them outputs.

    Raises:
        ValueError: a wiring, which an LSTM does not have.
    """

    use_mixed = True  # its state is the pair (h, c)
    wiring = None

    def __init__(self, input_size: int, units: int | Wiring) -> None:
        super().__init__()
        if not isinstance(units, int):
            raise ValueError(f"an LSTM has no wiring, got {units}; give the number of neurons")
        self.input_size, self.state_size, self.output_size = input_size, units, units
        self.output_slice = slice(0, units)
        self.rnn_cell = nn.LSTM(input_size, units, batch_first=True)

    def states(
        self,
        input: Tensor,
        hx: State | None = None,
        timespans: Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Return h at every step (B, T, N) and the last pair (h, c).

        `nn.LSTM` cannot clear its state within a sequence, so it runs from each step at which some
        sequence is reset to the next.

        Args:
            input: (B, T, I).
            hx: a pair of (B, N), None = zeros.
            timespans: None.
            resets: (B, T) bool, or None.

        Raises:
            ValueError: timespans, which an LSTM does not take.
        """
        if timespans is not None:
            raise ValueError("an LSTM takes no timespans; expected None")
        batch, steps, _ = input.shape
        if hx is None:
            zeros = input.new_zeros(batch, self.state_size)
            hx = zeros, zeros
        cleared = torch.zeros_like(input[..., 0], dtype=torch.bool) if resets is None else resets
        cuts = [0, *(t for t in cleared.any(0).nonzero()[:, 0].tolist() if t > 0), steps]
        parts = []
        for start, end in pairwise(cuts):
            kept = ~cleared[:, start, None]
            state = tuple((part * kept)[None] for part in hx)
            part, (h, c) = self.rnn_cell(input[:, start:end], state)
            parts.append(part)
            hx = h[0], c[0]
        return torch.cat(parts, 1), hx

    def read_out(self, states: Tensor) -> Tensor:
        """Return the outputs (…, N), all states."""
        return states

    def frozen(self) -> AbstractContextManager[None]:
        """Return a context without effect: `nn.LSTM` prepares no weights."""
        return nullcontext()
