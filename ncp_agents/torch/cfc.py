"""The CfC layer: a sequence in, a sequence out."""

from __future__ import annotations

from torch import Tensor, nn

from ncp_agents.layers.checks import Init, Mode
from ncp_agents.torch.cfc_cell import CfCCell
from ncp_agents.torch.scan import scan
from ncp_agents.torch.sequence_layer import SequenceLayer
from ncp_agents.torch.wired_cfc_cell import WiredCfCCell
from ncp_agents.validation import check_integer
from ncp_agents.wirings import Wiring


class CfC(SequenceLayer):
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
        activation, backbone_units, backbone_layers, backbone_dropout: of the backbone, see
            `CfCCell`. A wired layer has none and ignores them.
        mask_time_gates: whether a wired layer's time gates are as sparse as its other heads.
            A dense layer ignores it.
        init: "xavier" as in ncps, or "balanced", see `CfCCell`.

    Raises:
        ValueError: a size below 1, an unknown mode or activation, a wiring that was built for
            another size.

    Source: Hasani et al. 2022, "Closed-form continuous-time neural networks", arXiv:2106.13898;
    resets inside the sequence and timespans a row are additions.
    """

    rnn_cell: CfCCell | WiredCfCCell

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
        backbone_units: int = 128,
        backbone_layers: int = 1,
        backbone_dropout: float = 0.0,
        *,
        mask_time_gates: bool = False,
        init: Init = "xavier",
    ) -> None:
        if isinstance(units, Wiring):
            cell = WiredCfCCell(input_size, units, mode, mask_time_gates=mask_time_gates, init=init)
        else:
            cell = CfCCell(
                input_size,
                units,
                mode,
                activation,
                backbone_units,
                backbone_layers,
                backbone_dropout,
                init=init,
            )
        super().__init__(cell, input_size, return_sequences, batch_first, mixed_memory)
        self.output_slice = cell.output_slice
        self.output_size = cell.output_size
        self.proj_size = None if proj_size is None else check_integer("proj_size", proj_size, 1)
        self.fc = nn.Identity() if proj_size is None else nn.Linear(self.output_size, proj_size)

    def read_out(self, states: Tensor) -> Tensor:
        """The neurons' states (…, N) → outputs (…, M)."""
        outputs = states[..., self.output_slice]
        if self.proj_size is not None:
            return self.fc(outputs)
        return outputs.clone()  # may be changed in place; states may not: the backward needs them

    @property
    def step_by_step(self) -> bool:
        """Whether steps are taken one by one: with mixed memory, and where dropout acts."""
        cell = self.rnn_cell
        drops = self.training and isinstance(cell, CfCCell) and cell.backbone_dropout > 0
        return drops or self.lstm is not None

    def _scan(
        self, x: Tensor, h: Tensor, timespans: float | Tensor, resets: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return scan(self.rnn_cell, x, h, timespans, resets)
