"""What the sequence layers share: shapes, states, timespans and resets, checked once."""

from __future__ import annotations

from abc import abstractmethod

import mlx.core as mx
import numpy as np
from mlx import nn

from ncp_agents.layers.checks import check_times
from ncp_agents.mlx.cfc_cell import CfCCell
from ncp_agents.mlx.ltc_cell import LTCCell
from ncp_agents.mlx.memory_cell import MemoryCell
from ncp_agents.mlx.scan import scan
from ncp_agents.mlx.wired_cfc_cell import WiredCfCCell
from ncp_agents.wirings import Wiring

State = mx.array | tuple[mx.array, mx.array]


class SequenceLayer(nn.Module):
    """A sequence in, a sequence out, around a cell that does one step.

    Axes: B batch, T steps, I inputs, N neurons, M outputs.
    """

    output_size: int
    """M"""

    def __init__(
        self,
        cell: CfCCell | WiredCfCCell | LTCCell,
        input_size: int,
        state_size: int,
        return_sequences: bool,
        batch_first: bool,
        mixed_memory: bool,
    ) -> None:
        super().__init__()
        self.rnn_cell = cell
        self.input_size = input_size
        self.state_size = state_size
        self.return_sequences = return_sequences
        self.batch_first = batch_first
        self.use_mixed = mixed_memory
        self.lstm = MemoryCell(input_size, state_size) if mixed_memory else None

    @property
    @abstractmethod
    def wiring(self) -> Wiring | None:
        """None for a dense layer."""

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

        Args:
            input: (B, T, I), (T, B, I) if not batch_first, or (T, I) unbatched.
            hx: state (B, N), zeros if None; with mixed memory the pair (h, c); without B unbatched.
            timespans: time since the previous input, in steps, at least 0: a float (None = 1.0), or
                an array (B, T) or (B, T, 1), time-major if the input is, without B unbatched. The
                values of an array are not checked, which would make MLX evaluate it.
            resets: (B, T) bool, True where the state is forgotten before that step; time-major if
                the input is, without B unbatched.

        Returns:
            Output (B, T, M), or (B, M) without return_sequences, and the state after the last step.

        Raises:
            ValueError: a shape that is none of these, another dtype than the layer's, a float
                timespan below 0 or not finite.
            RuntimeError: a state that is not of the layer's kind.
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
        self._check_kind(input)
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            raise ValueError(
                f"input has shape {input.shape}, expected (B, T, {self.input_size}), time "
                f"first if batch_first=False, or (T, {self.input_size}) unbatched"
            )
        batched = input.ndim == 3
        lead = input.shape[:-1]
        if 0 in lead:
            raise ValueError(
                f"input has shape {input.shape}, expected at least one sequence of at least one "
                "step"
            )
        x = self._time_major(input, batched)
        h, c = self._initial_state(hx, x, batched)
        timespans = self._timespans(1.0 if timespans is None else timespans, lead, batched)
        if resets is not None:
            if not isinstance(resets, mx.array):
                raise ValueError(f"resets is a {type(resets).__name__}, expected an mlx.core.array")
            if resets.shape != lead:
                raise ValueError(f"resets has shape {resets.shape}, expected {lead} of bool")
            resets = self._time_major(resets.astype(mx.bool_), batched)

        states, h, c = scan(self.rnn_cell, self.lstm, x, h, c, timespans, resets)
        if not batched:
            states, h, c = states[:, 0], h[0], None if c is None else c[0]
        elif self.batch_first:
            states = states.swapaxes(0, 1)
        return states, (h if c is None else (h, c))

    def _check_kind(self, input: mx.array) -> None:
        if not isinstance(input, mx.array):
            raise ValueError(f"input is a {type(input).__name__}, expected an mlx.core.array")
        if input.dtype != self._dtype:
            raise ValueError(
                f"input is {input.dtype}, but the layer {self._dtype}; convert one: "
                f"input.astype({self._dtype})"
            )

    @property
    def _dtype(self) -> mx.Dtype:
        cell = self.rnn_cell
        cell = cell.cells[0] if isinstance(cell, WiredCfCCell) else cell
        return cell.gleak.dtype if isinstance(cell, LTCCell) else cell.ff1.weight.dtype

    def _time_major(self, values: mx.array, batched: bool) -> mx.array:
        """(B, T, …), (T, B, …) or (T, …) → (T, B, …)."""
        if not batched:
            return values[:, None]
        return values.swapaxes(0, 1) if self.batch_first else values

    def _timespans(
        self, timespans: float | mx.array, lead: tuple[int, ...], batched: bool
    ) -> float | mx.array:
        """→ a float or (T, B)."""
        if not isinstance(timespans, mx.array):
            if not isinstance(timespans, int | float | np.number):
                raise ValueError(
                    f"timespans is a {type(timespans).__name__}, expected a float or an "
                    "mlx.core.array"
                )
            check_times(float(timespans), float(timespans))
            return float(timespans)
        if timespans.shape == (*lead, 1):
            timespans = timespans[..., 0]
        if timespans.ndim and timespans.shape != lead:
            raise ValueError(
                f"timespans has shape {timespans.shape}, expected a float, {lead} or {(*lead, 1)}"
            )
        timespans = mx.broadcast_to(timespans.astype(self._dtype), lead)
        return self._time_major(timespans, batched)

    def _initial_state(
        self, hx: State | None, x: mx.array, batched: bool
    ) -> tuple[mx.array, mx.array | None]:
        """→ h (B, N), and c (B, N) with mixed memory."""
        shape = (x.shape[1], self.state_size)
        if hx is None:
            h = mx.zeros(shape, x.dtype)
            return h, (mx.zeros_like(h) if self.use_mixed else None)
        kind = type(self).__name__
        if self.use_mixed and isinstance(hx, mx.array):
            raise RuntimeError(
                f"Running a {kind} with mixed_memory=True requires a tuple (h0, c0) to be passed "
                "as state (got mlx.core.array instead)"
            )
        if not self.use_mixed and not isinstance(hx, mx.array):
            raise RuntimeError(
                f"Running a {kind} without mixed memory requires one array as state, got {type(hx)}"
            )
        expected = shape if batched else shape[1:]
        parts = [hx] if isinstance(hx, mx.array) else [*hx]
        if self.use_mixed and len(parts) != 2:
            raise RuntimeError(
                f"Running a {kind} with mixed_memory=True requires a tuple (h0, c0), got "
                f"{len(parts)} of them"
            )
        for part in parts:
            if getattr(part, "shape", None) != expected:
                came = getattr(part, "shape", part)
                raise ValueError(f"state has shape {came}, expected {expected}")
        h, *c = (part.astype(x.dtype).reshape(shape) for part in parts)
        return h, (c[0] if c else None)
