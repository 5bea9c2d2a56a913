"""The memory cell that "mixed memory" puts in front of a circuit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ncp_agents.torch.heads import Head


class MemoryCell(nn.Module):
    """A long short-term memory whose hidden state is the circuit's own state.

        i, ig, fg, og = input_map(x) + recurrent_map(h)
        c' = c * sigmoid(fg + 1) + tanh(i) * sigmoid(ig)
        h' = tanh(c') * sigmoid(og)

    Axes: B batch, I inputs, N neurons.

    Source: Lechner & Hasani 2020, "Learning long-term dependencies in irregularly-sampled time
    series", arXiv:2006.04418.
    """

    def __init__(self, input_size: int, units: int) -> None:
        super().__init__()
        self.input_map = Head(input_size, 4 * units)
        self.recurrent_map = RecurrentMap(units, 4 * units)
        nn.init.uniform_(self.input_map.bias, -0.1, 0.1)

    def forward(self, projected: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """input_map(x) (B, 4 N), h (B, N), c (B, N) → h (B, N), c (B, N)."""
        i, input_gate, forget_gate, output_gate = (projected + self.recurrent_map(h)).chunk(4, -1)
        c = c * torch.sigmoid(forget_gate + 1.0) + torch.tanh(i) * torch.sigmoid(input_gate)
        return torch.tanh(c) * torch.sigmoid(output_gate), c


class RecurrentMap(nn.Module):
    """A linear map without bias, orthogonal at the start."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(outputs, inputs)))

    def forward(self, h: Tensor) -> Tensor:
        """h (B, N) → (B, outputs)."""
        return nn.functional.linear(h, self.weight)
