"""The CfC layer: a sequence in, a sequence out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from ncp_agents.keras.cfc_cell import CfCCell
from ncp_agents.keras.ops import Tensor
from ncp_agents.keras.scan import Sequence, scan_cfc
from ncp_agents.keras.sequence_layer import SequenceLayer
from ncp_agents.keras.wired_cfc_cell import WiredCfCCell
from ncp_agents.layers.checks import Mode
from ncp_agents.wirings import Wiring


@keras.saving.register_keras_serializable(package="ncp_agents")
class CfC(SequenceLayer):
    """A recurrent layer of closed-form continuous-time neurons, dense or on a wiring.

    Called on x (B, T, I), or on the pair of x and timespans (B, T) or (B, T, 1), in steps
    → (B, T, M) with return_sequences, else (B, M); the state (B, N) after it with return_state.

    Axes: B batch, T steps, I inputs, N neurons, M outputs (motor neurons, N for a dense layer).

    Args:
        units: N for a dense layer, or a `Wiring`.
        mixed_memory: whether a memory cell (`MixedMemoryRNN`) precedes the neurons in each step.
        mode: "default", "no_gate" or "pure", see `ncp_agents.torch.CfCCell`.
        activation, backbone_units, backbone_layers, backbone_dropout, sparsity_mask: of a dense
            layer, see `CfCCell`. A wired layer ignores them.
        fully_recurrent: of a wired layer, see `WiredCfCCell`. A dense layer ignores it.
        mask_time_gates: whether the time gates are as sparse as the other heads.
        **kwargs: of `SequenceLayer` and `keras.layers.RNN`.

    Raises:
        ValueError: a size below 1, an unknown mode or activation.
    """

    def __init__(
        self,
        units: int | Wiring,
        mixed_memory: bool = False,
        mode: Mode = "default",
        activation: str | Callable[..., Any] = "lecun_tanh",
        backbone_units: int = 128,
        backbone_layers: int = 1,
        backbone_dropout: float = 0.0,
        sparsity_mask: Any = None,
        fully_recurrent: bool = True,
        *,
        mask_time_gates: bool = False,
        **kwargs: Any,
    ) -> None:
        dtype = kwargs.get("dtype")
        if isinstance(units, Wiring):
            cell = WiredCfCCell(
                units, fully_recurrent, mode, mask_time_gates=mask_time_gates, dtype=dtype
            )
        else:
            cell = CfCCell(
                units,
                mode,
                activation,
                backbone_units,
                backbone_layers,
                backbone_dropout,
                sparsity_mask,
                mask_time_gates=mask_time_gates,
                dtype=dtype,
            )
        super().__init__(cell, mixed_memory, **kwargs)

    def scan(self, sequence: Sequence, h: Tensor) -> Tensor:
        """x (T, B, I) in `sequence`, h (B, N) → states (T, B, N)."""
        return scan_cfc(self.rnn_cell, sequence, h)

    def read_out(self, states: Tensor) -> Tensor:
        """The neurons' states (…, N) → outputs (…, M)."""
        cell = self.rnn_cell
        return cell.read_out(states) if isinstance(cell, WiredCfCCell) else states
