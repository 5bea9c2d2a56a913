"""What the sequence layers share: a call's arguments, checked and moved to time-major."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import mlx.core as mx

from ncp_agents.layers.checks import check_call
from ncp_agents.mlx.cfc_cell import CfCCell
from ncp_agents.mlx.ltc_cell import LTCCell
from ncp_agents.mlx.masks import Masked
from ncp_agents.mlx.memory_cell import MemoryCell
from ncp_agents.mlx.scan import scan
from ncp_agents.mlx.wired_cfc_cell import WiredCfCCell

State = mx.array | tuple[mx.array, mx.array]


class SequenceLayer(Masked):
    """A sequence in, a sequence out, around a cell that does one step.

    Axes: B batch, T steps, I inputs, N neurons, M outputs.
    """

    wiring: Any
    """None for a dense layer."""
    output_size: int
    """M"""

    def __init__(
        self,
        cell: CfCCell | WiredCfCCell | LTCCell,
        input_size: int,
        return_sequences: bool,
        batch_first: bool,
        mixed_memory: bool,
    ) -> None:
        super().__init__()
        self.rnn_cell = cell
        self.wiring = cell.wiring
        self.input_size = input_size
        self.state_size = cell.state_size
        self.return_sequences = return_sequences
        self.batch_first = batch_first
        self.use_mixed = mixed_memory
        self.lstm = MemoryCell(input_size, self.state_size) if mixed_memory else None

    @abstractmethod
    def read_out(self, states: mx.array) -> mx.array:
        """Outputs (…, M) of the neurons' states (…, N)."""

    def __call__(
        self,
        input: mx.array,
        hx: State | None = None,
        timespans: float | mx.array | None = None,
        resets: mx.array | None = None,
    ) -> tuple[mx.array, State]:
        """One sequence batch.

        The arguments, the result and the errors are those of `ncp_agents.torch.CfC`'s call, but the
        values of timespans in an array are not checked, which would make MLX evaluate it.
        """
        states, hx = self.states(input, hx, timespans, resets)
        if not self.return_sequences:
            states = states[:, -1] if self.batch_first and input.ndim == 3 else states[-1]
        return self.read_out(states), hx

    def states(
        self,
        input: mx.array,
        hx: State | None = None,
        timespans: float | mx.array | None = None,
        resets: mx.array | None = None,
    ) -> tuple[mx.array, State]:
        """Like a call, but the states of all neurons at every step, (B, T, N), not read out."""
        state, times, resets, axes = check_call(self, mx.array, input, hx, timespans, resets)
        dtype = self.rnn_cell.any_parameter.dtype
        if input.dtype != dtype:
            raise ValueError(
                f"input is {input.dtype}, but the layer {dtype}; convert one: input.astype({dtype})"
            )
        x = axes.time_major(input)
        shape = (x.shape[1], self.state_size)
        parts = [part.astype(dtype).reshape(shape) for part in state]
        h, *c = parts or [mx.zeros(shape, dtype)] * (1 + self.use_mixed)
        if isinstance(times, mx.array):
            times = axes.time_major(mx.broadcast_to(times.astype(dtype), input.shape[:-1]))
        if resets is not None:
            resets = axes.time_major(resets.astype(mx.bool_))

        memory = c[0] if c else None
        states, h, memory = scan(self.rnn_cell, self.lstm, x, h, memory, times, resets)
        if not axes.batched:
            h, memory = h[0], None if memory is None else memory[0]
        return axes.restore(states), (h if memory is None else (h, memory))
