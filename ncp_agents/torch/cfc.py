"""The CfC layer: a sequence in, a sequence out."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import cast

import torch
from torch import Tensor, nn

from ncp_agents.torch.cfc_cell import CfCCell, Init, Mode
from ncp_agents.torch.memory_cell import MemoryCell
from ncp_agents.torch.scan import frozen, scan, scan_steps
from ncp_agents.torch.wired_cfc_cell import WiredCfCCell
from ncp_agents.wirings import Wiring

State = Tensor | tuple[Tensor, Tensor]


class CfC(nn.Module):
    """A recurrent layer of closed-form continuous-time neurons, dense or on a wiring.

    Axes: B batch, T steps, I inputs, N neurons, M outputs (motor neurons, or proj_size).

    Args:
        input_size: I.
        units: N for a dense layer, or a `Wiring`.
        proj_size: size of a linear read-out after the neurons, or None for none.
        return_sequences: whether the output has all steps or only the last.
        batch_first: whether inputs are (B, T, I) or (T, B, I).
        mixed_memory: whether a memory cell (`MemoryCell`) precedes the neurons in each step.
        mode: "default", "no_gate" or "pure", see `CfCCell`.
        activation: of the backbone, see `CfCCell`.
        backbone_units, backbone_layers, backbone_dropout: of a dense layer, see `CfCCell`
            (default 128, 1, 0.0); a wired one has no backbone.
        mask_time_gates: whether a wired layer's time gates are as sparse as its other heads.
        init: "xavier" as in ncps, or "balanced", see `CfCCell`.

    Raises:
        ValueError: a size below 1, an unknown mode or activation, a backbone with a wiring.

    Source: Hasani et al. 2022, "Closed-form continuous-time neural networks", arXiv:2106.13898;
    resets inside the sequence and timespans a row are additions.
    """

    def __init__(
        self,
        input_size: int,
        units: int | Wiring,
        proj_size: int | None = None,
        return_sequences: bool = True,
        batch_first: bool = True,
        mixed_memory: bool = False,
        mode: Mode = "default",
        activation: str = "lecun_tanh",
        backbone_units: int | None = None,
        backbone_layers: int | None = None,
        backbone_dropout: float | None = None,
        *,
        mask_time_gates: bool = False,
        init: Init = "xavier",
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.proj_size = proj_size
        self.return_sequences = return_sequences
        self.batch_first = batch_first
        self.use_mixed = mixed_memory
        if isinstance(units, Wiring):
            given = {
                "backbone_units": backbone_units,
                "backbone_layers": backbone_layers,
                "backbone_dropout": backbone_dropout,
            }
            for name, value in given.items():
                if value is not None:
                    raise ValueError(
                        f"{name}={value} does not go with a wiring: it has no backbone"
                    )
            self.rnn_cell = WiredCfCCell(
                input_size, units, mode, mask_time_gates=mask_time_gates, init=init
            )
            self.state_size = self.rnn_cell.state_size
            self.output_size = self.rnn_cell.motor_size
            self.output_slice = self.rnn_cell.output_slice
        else:
            self.rnn_cell = CfCCell(
                input_size,
                units,
                mode,
                activation,
                128 if backbone_units is None else backbone_units,
                1 if backbone_layers is None else backbone_layers,
                0.0 if backbone_dropout is None else backbone_dropout,
                init=init,
            )
            self.state_size = self.output_size = units
            self.output_slice = slice(0, units)
        self.lstm = MemoryCell(input_size, self.state_size) if mixed_memory else None
        self.fc = nn.Identity() if proj_size is None else nn.Linear(self.output_size, proj_size)

    @property
    def wiring(self) -> Wiring | None:
        return self.rnn_cell.wiring if isinstance(self.rnn_cell, WiredCfCCell) else None

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
            timespans: time since the previous input, in steps: a float (None = 1.0), or a tensor
                (B, T) or (B, T, 1), time-major if the input is, without B unbatched.
            resets: (B, T) bool, True where the state is forgotten before that step; time-major if
                the input is, without B unbatched.

        Returns:
            Output (B, T, M), or (B, M) without return_sequences, and the state after the last step.

        Raises:
            ValueError: a shape that is none of these.
            RuntimeError: a state that is not of the layer's kind.
        """
        states, hx = self.states(input, hx, timespans, resets)
        outputs = states[..., self.output_slice]
        if not self.return_sequences:
            outputs = outputs.select(0 if input.dim() == 2 else self._time_axis, -1)
        return self.fc(outputs), hx

    def states(
        self,
        input: Tensor,
        hx: State | None = None,
        timespans: float | Tensor | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Like `forward`, but the states of all neurons at every step, (B, T, N), not projected."""
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
            raise ValueError(f"input has shape {tuple(input.shape)}, expected at least one step")

        h, c = self._initial_state(hx, x, batched)
        if timespans is None:
            timespans = 1.0
        if isinstance(timespans, Tensor):
            timespans = self._timespans(timespans, lead, batched)
        if resets is not None:
            if resets.shape != lead:
                raise ValueError(
                    f"resets has shape {tuple(resets.shape)}, expected {tuple(lead)} of bool"
                )
            resets = self._time_major(resets.bool(), batched)

        cell = self.rnn_cell
        dropping = self.training and isinstance(cell, CfCCell) and cell.backbone_dropout > 0
        if self.lstm is not None or dropping:
            states, h, c = scan_steps(cell, self.lstm, x, h, c, timespans, resets)
        else:
            states, h = scan(cell, x, h, timespans, resets)

        if not batched:
            states, h, c = states[:, 0], h[0], None if c is None else c[0]
        elif self.batch_first:
            states = states.transpose(0, 1)
        return states, (h if c is None else (h, c))

    def frozen(self) -> AbstractContextManager[None]:
        """A context in which the weights do not change, so that single steps without gradient, as
        in a rollout, need not prepare them each time."""
        return frozen(self.rnn_cell)

    @property
    def _time_axis(self) -> int:
        return 1 if self.batch_first else 0

    def _time_major(self, values: Tensor, batched: bool) -> Tensor:
        """(B, T, …), (T, B, …) or (T, …) → (T, B, …)."""
        if not batched:
            return values[:, None]
        return values.transpose(0, 1) if self.batch_first else values

    def _timespans(self, timespans: Tensor, lead: torch.Size, batched: bool) -> float | Tensor:
        if timespans.dim() == 0:
            return float(timespans)
        if timespans.shape == (*lead, 1):
            timespans = timespans[..., 0]
        if timespans.shape != lead:
            raise ValueError(
                f"timespans has shape {tuple(timespans.shape)}, expected a float, "
                f"{tuple(lead)} or {(*lead, 1)}"
            )
        return self._time_major(timespans, batched)

    def _initial_state(
        self, hx: State | None, x: Tensor, batched: bool
    ) -> tuple[Tensor, Tensor | None]:
        """→ h (B, N), and c (B, N) with mixed memory."""
        shape = (x.shape[1], self.state_size)
        if hx is None:
            h = x.new_zeros(shape)
            return h, (torch.zeros_like(h) if self.use_mixed else None)
        if self.use_mixed and isinstance(hx, Tensor):
            raise RuntimeError(
                "Running a CfC with mixed_memory=True requires a tuple (h0, c0) to be passed as "
                "state (got torch.Tensor instead)"
            )
        if not self.use_mixed and not isinstance(hx, Tensor):
            raise RuntimeError(
                f"Running a CfC without mixed memory requires one tensor as state, got {type(hx)}"
            )
        expected = shape if batched else shape[1:]
        parts = cast("tuple[Tensor, ...]", hx if self.use_mixed else (hx,))
        for part in parts:
            if tuple(part.shape) != expected:
                raise ValueError(f"state has shape {tuple(part.shape)}, expected {expected}")
        h, c = (part.to(x) if batched else part.to(x)[None] for part in (*parts, parts[0])[:2])
        return h, (c if self.use_mixed else None)
