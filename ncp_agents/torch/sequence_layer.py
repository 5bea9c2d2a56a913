"""What the sequence layers share: shapes, states, timespans and resets, checked once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ncp_agents.layers.checks import check_times
from ncp_agents.torch.cfc_cell import CfCCell
from ncp_agents.torch.frozen import frozen
from ncp_agents.torch.ltc_cell import LTCCell
from ncp_agents.torch.memory_cell import MemoryCell
from ncp_agents.torch.scan import scan_steps
from ncp_agents.torch.wired_cfc_cell import WiredCfCCell
from ncp_agents.wirings import Wiring

State = Tensor | tuple[Tensor, Tensor]


class SequenceLayer(nn.Module, ABC):
    """A sequence in, a sequence out, around a cell that does one step.

    Axes: B batch, T steps, I inputs, N neurons, M outputs.
    """

    output_size: int
    """M"""

    def __init__(
        self,
        cell: nn.Module,
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
    def read_out(self, states: Tensor) -> Tensor:
        """Outputs (…, M) of the neurons' states (…, N)."""

    @abstractmethod
    def _scan(
        self, x: Tensor, h: Tensor, timespans: float | Tensor, resets: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x (T, B, I), h (B, N), timespans a float or (T, B), resets (T, B) bool or None
        → states (T, B, N), final state (B, N).
        """

    @property
    def step_by_step(self) -> bool:
        """Whether steps must be taken one by one, by the cell itself."""
        return self.lstm is not None

    def frozen(self) -> AbstractContextManager[None]:
        """A context in which the weights do not change, so that single steps without gradient, as
        in a rollout, need not prepare them each time.
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
            resets: (B, T) bool, True where the state is forgotten before that step; time-major if
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
            states = states.select(0 if input.dim() == 2 else self._time_axis, -1)
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
        self._check_kind(input)
        if _is_autocast(input):
            with torch.autocast(input.device.type, enabled=False):
                input = input.to(self._a_weight.dtype)
                return self.states(input, hx, timespans, resets)
        if input.dim() not in (2, 3) or input.shape[-1] != self.input_size:
            raise ValueError(
                f"input has shape {tuple(input.shape)}, expected (B, T, {self.input_size}), time "
                f"first if batch_first=False, or (T, {self.input_size}) unbatched"
            )
        batched = input.dim() == 3
        lead = input.shape[:-1]
        x = self._time_major(input, batched)
        steps, batch, _ = x.shape
        if steps == 0 or batch == 0:
            raise ValueError(
                f"input has shape {tuple(input.shape)}, expected at least one sequence of at least "
                "one step"
            )

        h, c = self._initial_state(hx, x, batched)
        timespans = self._timespans(1.0 if timespans is None else timespans, input, batched)
        if resets is not None:
            if not isinstance(resets, Tensor):
                raise ValueError(f"resets is a {type(resets).__name__}, expected a torch.Tensor")
            if resets.shape != lead:
                raise ValueError(
                    f"resets has shape {tuple(resets.shape)}, expected {tuple(lead)} of bool"
                )
            resets = self._time_major(resets.to(input.device, torch.bool), batched)

        if self.step_by_step:
            states, h, c = scan_steps(self.rnn_cell, self.lstm, x, h, c, timespans, resets)
        else:
            states, h = self._scan(x, h, timespans, resets)

        if not batched:
            states, h, c = states[:, 0], h[0], None if c is None else c[0]
        elif self.batch_first:
            states = states.transpose(0, 1)
        return states, (h if c is None else (h, c))

    def _check_kind(self, input: Tensor) -> None:
        if not isinstance(input, Tensor):
            raise ValueError(f"input is a {type(input).__name__}, expected a torch.Tensor")
        weight = self._a_weight
        if input.device != weight.device:
            raise ValueError(
                f"input is on {input.device}, but the layer on {weight.device}; move one: "
                f"input.to({str(weight.device)!r})"
            )
        if input.dtype != weight.dtype and not _is_autocast(input):
            raise ValueError(
                f"input is {input.dtype}, but the layer {weight.dtype}; convert one: "
                f"input.to({weight.dtype})"
            )

    @property
    def _a_weight(self) -> Tensor:
        """Return a weight whose device and precision are the layer's."""
        cell = self.rnn_cell
        if isinstance(cell, LTCCell):
            return cell.gleak
        first = cell.layer_0 if isinstance(cell, WiredCfCCell) else cell
        return cast(CfCCell, first).ff1.weight

    @property
    def _time_axis(self) -> int:
        return 1 if self.batch_first else 0

    def _time_major(self, values: Tensor, batched: bool) -> Tensor:
        """(B, T, …), (T, B, …) or (T, …) → (T, B, …)."""
        if not batched:
            return values[:, None]
        return values.transpose(0, 1) if self.batch_first else values

    def _timespans(self, timespans: float | Tensor, input: Tensor, batched: bool) -> float | Tensor:
        """→ a float, or (T, B) of the input's dtype."""
        lead = input.shape[:-1]
        if not isinstance(timespans, Tensor):
            if not isinstance(timespans, int | float | np.number):
                raise ValueError(
                    f"timespans is a {type(timespans).__name__}, expected a float or a torch.Tensor"
                )
            check_times(float(timespans), float(timespans))
            return float(timespans)
        if timespans.shape == (*lead, 1):
            timespans = timespans[..., 0]
        if timespans.dim() and timespans.shape != lead:
            raise ValueError(
                f"timespans has shape {tuple(timespans.shape)}, expected a float, "
                f"{tuple(lead)} or {(*lead, 1)}"
            )
        if not (torch.compiler.is_compiling() or timespans.is_meta):  # then there are no values
            check_times(*(float(end) for end in timespans.detach().aminmax()))
            if not timespans.dim() and not timespans.requires_grad:
                return float(timespans)
        return self._time_major(timespans.to(input).expand(lead), batched)

    def _initial_state(
        self, hx: State | None, x: Tensor, batched: bool
    ) -> tuple[Tensor, Tensor | None]:
        """→ h (B, N), and c (B, N) with mixed memory."""
        shape = (x.shape[1], self.state_size)
        if hx is None:
            h = x.new_zeros(shape)
            return h, (torch.zeros_like(h) if self.use_mixed else None)
        kind = type(self).__name__
        if self.use_mixed and isinstance(hx, Tensor):
            raise RuntimeError(
                f"Running a {kind} with mixed_memory=True requires a tuple (h0, c0) to be passed "
                "as state (got torch.Tensor instead)"
            )
        if not self.use_mixed and not isinstance(hx, Tensor):
            raise RuntimeError(
                f"Running a {kind} without mixed memory requires one tensor as state, "
                f"got {type(hx)}"
            )
        expected = shape if batched else shape[1:]
        parts = cast("tuple[Tensor, ...]", hx if self.use_mixed else (hx,))
        if self.use_mixed and len(parts) != 2:
            raise RuntimeError(
                f"Running a {kind} with mixed_memory=True requires a tuple (h0, c0), got "
                f"{len(parts)} of them"
            )
        for part in parts:
            if not isinstance(part, Tensor) or tuple(part.shape) != expected:
                came = tuple(part.shape) if isinstance(part, Tensor) else part
                raise ValueError(f"state has shape {came}, expected {expected}")
        h, *c = (part.to(x) if batched else part.to(x)[None] for part in parts)
        return h, (c[0] if c else None)


def _is_autocast(x: Tensor) -> bool:
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)
