"""What the sequence layers share: a call's arguments, checked and moved to time-major."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from ncp_agents.layers.checks import Axes, check_call, check_times
from ncp_agents.torch.frozen import frozen
from ncp_agents.torch.memory_cell import MemoryCell
from ncp_agents.torch.scan import scan_steps

State = Tensor | tuple[Tensor, Tensor]


class SequenceLayer(nn.Module, ABC):
    """A sequence in, a sequence out, around a cell that does one step.

    Axes: B batch, T steps, I inputs, N neurons, M outputs.
    """

    wiring: Any
    """None for a dense layer."""
    output_size: int
    """M"""
    output_slice: slice
    """Where the motor neurons are in the state."""

    def __init__(
        self,
        cell: nn.Module,
        input_size: int,
        return_sequences: bool,
        batch_first: bool,
        mixed_memory: bool,
    ) -> None:
        super().__init__()
        self.rnn_cell: Any = cell
        self.wiring = self.rnn_cell.wiring
        self.input_size = input_size
        self.state_size: int = self.rnn_cell.state_size
        self.return_sequences = return_sequences
        self.batch_first = batch_first
        self.use_mixed = mixed_memory
        self.lstm = MemoryCell(input_size, self.state_size) if mixed_memory else None

    @abstractmethod
    def read_out(self, states: Tensor) -> Tensor:
        """Outputs (…, M) of the neurons' states (…, N)."""

    @abstractmethod
    def _scan(
        self, x: Tensor, h: Tensor, timespans: float | Tensor, resets: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x (T, B, I), h (B, N) → states (T, B, N), final state (B, N).

        timespans is a float or (T, B), resets (T, B) bool or None.
        """

    @property
    def step_by_step(self) -> bool:
        """Whether steps must be taken one by one, by the cell itself."""
        return self.lstm is not None

    def frozen(self) -> AbstractContextManager[None]:
        """Return a context in which the weights do not change.

        Single steps without gradient, as in a rollout, then prepare them once.
        """
        return frozen(self.rnn_cell)

    def forward(
        self,
        input: Tensor,
        hx: State | None = None,
        timespans: float | Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """One sequence batch.

        Args:
            input: (B, T, I), (T, B, I) if not batch_first, or (T, I) unbatched.
            hx: state (B, N), zeros if None; with mixed memory the pair (h, c); without B unbatched.
            timespans: time since the previous input, in steps, at least 0: a float (None = 1.0), or
                a tensor (B, T) or (B, T, 1), time-major if the input is, without B unbatched.
            resets: (B, T) bool, True where the state is reset before that step; time-major if
                the input is, without B unbatched.

        Returns:
            Output (B, T, M), or (B, M) without return_sequences, and the state after the last step.

        Raises:
            ValueError: a shape or kind that is none of these, another dtype or device than the
                layer's, a timespan below 0 or not finite.
            RuntimeError: a state that is not of the layer's kind.

        Under autocast the layer keeps to its own precision. For second derivatives see
        `ncp_agents.torch.kernels.off`.
        """
        states, hx = self.states(input, hx, timespans, resets)
        if not self.return_sequences:
            states = states.select(int(input.dim() == 3 and self.batch_first), -1)
        if _is_autocast(states):
            with torch.autocast(states.device.type, enabled=False):
                return self.read_out(states), hx
        return self.read_out(states), hx

    def states(
        self,
        input: Tensor,
        hx: State | None = None,
        timespans: float | Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Like `forward`, but the states of all neurons at every step, (B, T, N), not read out."""
        state, times, resets, axes = check_call(self, Tensor, input, hx, timespans, resets)
        own: Tensor = self.rnn_cell.any_parameter
        if _is_autocast(input):
            with torch.autocast(input.device.type, enabled=False):
                return self.states(input.to(own.dtype), hx, times, resets)
        if (input.device, input.dtype) != (own.device, own.dtype):
            raise ValueError(
                f"input is {input.dtype} on {input.device}, but the layer {own.dtype} on "
                f"{own.device}; convert one: input.to({str(own.device)!r}, {own.dtype})"
            )
        x = axes.time_major(input)
        h, c = self._initial_state(state, x)
        if isinstance(times, Tensor):
            times = self._timespans(times, input, axes)
        if resets is not None:
            resets = axes.time_major(resets.to(input.device, torch.bool))

        if self.step_by_step:
            states, h, c = scan_steps(self.rnn_cell, self.lstm, x, h, c, times, resets)
        else:
            states, h = self._scan(x, h, times, resets)

        if not axes.batched:
            h, c = h[0], None if c is None else c[0]
        return axes.restore(states), (h if c is None else (h, c))

    def _initial_state(self, state: tuple[Tensor, ...], x: Tensor) -> tuple[Tensor, Tensor | None]:
        """h (B, N), and c (B, N) with mixed memory, from checked parts; zeros without."""
        shape = (x.shape[1], self.state_size)
        parts = [part.to(x).reshape(shape) for part in state]
        if not parts:
            parts = [x.new_zeros(shape) for _ in range(1 + self.use_mixed)]
        return parts[0], parts[1] if self.use_mixed else None

    def _timespans(self, timespans: Tensor, input: Tensor, axes: Axes) -> float | Tensor:
        """A float where all are one constant, else (T, B) of the input's dtype."""
        if not (torch.compiler.is_compiling() or timespans.is_meta):  # then there are no values
            check_times(*(float(end) for end in timespans.detach().aminmax()))
            if not timespans.dim() and not timespans.requires_grad:
                return float(timespans)
        return axes.time_major(timespans.to(input).expand(input.shape[:-1]))


def _is_autocast(x: Tensor) -> bool:
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)
