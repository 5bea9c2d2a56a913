"""The memory cell that "mixed memory" puts in front of a circuit."""

from __future__ import annotations

from functools import partial

import mlx.core as mx
from mlx import nn
from mlx.nn.init import orthogonal

from ncp_agents.mlx.heads import head


class MemoryCell(nn.Module):
    """A long short-term memory whose hidden state is the circuit's own state.

    The equation is that of `ncp_agents.torch.memory_cell.MemoryCell`.
    """

    def __init__(self, input_size: int, units: int) -> None:
        super().__init__()
        self.input_map = head(input_size, 4 * units)
        self.input_map.bias = mx.random.uniform(-0.1, 0.1, (4 * units,))
        self.recurrent_map = nn.Linear(units, 4 * units, bias=False)
        self.recurrent_map.weight = orthogonal()(self.recurrent_map.weight)

    def __call__(self, projected: mx.array, h: mx.array, c: mx.array) -> tuple[mx.array, mx.array]:
        """input_map(x) (B, 4 N), h (B, N), c (B, N) → h (B, N), c (B, N)."""
        z = mx.addmm(projected, h, self.recurrent_map.weight.T)
        return memory_step(c, *mx.split(z, 4, -1))


@partial(mx.compile, shapeless=True)
def memory_step(
    c: mx.array, i: mx.array, input_gate: mx.array, forget_gate: mx.array, output_gate: mx.array
) -> tuple[mx.array, mx.array]:
    """Return h' and c'."""
    c = c * mx.sigmoid(forget_gate + 1.0) + mx.tanh(i) * mx.sigmoid(input_gate)
    return mx.tanh(c) * mx.sigmoid(output_gate), c
