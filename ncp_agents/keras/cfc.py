"""The CfC layer: a sequence in, a sequence out."""

from __future__ import annotations

from typing import Any

import keras

from ncp_agents.keras.cfc_cell import CfCCell
from ncp_agents.keras.ops import Tensor
from ncp_agents.keras.scan import Sequence, scan_cfc
from ncp_agents.keras.sequence_layer import SequenceLayer
from ncp_agents.keras.wired_cfc_cell import WiredCfCCell
from ncp_agents.layers.checks import Mode, check_dense, check_wired
from ncp_agents.wirings import Wiring, wiring_to_config
from ncp_agents.wirings.base import number_of_neurons


@keras.saving.register_keras_serializable(package="ncp_agents")
class CfC(SequenceLayer):
    """A recurrent layer of closed-form continuous-time neurons, dense or on a wiring.

    Called on x (B, T, I), or on the pair of x and timespans (B, T) or (B, T, 1), in steps
    → (B, T, M) with return_sequences, else (B, M); the state (B, N) after it with return_state.

    Axes: B batch, T steps, I inputs, N neurons, M outputs (motor neurons, N for a dense layer).

    Args:
        units: N for a dense layer, or a `Wiring`.
        mixed_memory: whether a memory cell (`MixedMemoryRNN`) precedes the neurons in each step.
        mode: "default", "no_gate" or "pure", see `CfCCell`.
        activation: of the backbone, see `CfCCell`.
        backbone_units, backbone_layers, backbone_dropout: of a dense layer, see `CfCCell`
            (default 128, 1, 0.0); a wired one has no backbone.
        sparsity_mask: of a dense layer, see `CfCCell`; needs backbone_units=0.
        fully_recurrent: of a wired layer, see `WiredCfCCell`.
        return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask: as in
            `keras.layers.RNN`. Mixed memory under XLA on TensorFlow needs unroll=True.
        mask_time_gates: whether the time gates are as sparse as the other heads.

    Raises:
        ValueError: a size below 1, an unknown mode or activation, an option of a dense layer
            with a wiring or one of a wired layer without.

    Source: Hasani et al. 2022, "Closed-form continuous-time neural networks", arXiv:2106.13898.
    """

    def __init__(
        self,
        units: int | Wiring,
        mixed_memory: bool = False,
        mode: Mode = "default",
        activation: str = "lecun_tanh",
        backbone_units: int | None = None,
        backbone_layers: int | None = None,
        backbone_dropout: float | None = None,
        sparsity_mask: Any = None,
        fully_recurrent: bool = True,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        *,
        mask_time_gates: bool = False,
        **kwargs: Any,
    ) -> None:
        dtype = kwargs.get("dtype")
        if isinstance(units, Wiring):
            check_wired(
                backbone_units=backbone_units,
                backbone_layers=backbone_layers,
                backbone_dropout=backbone_dropout,
                sparsity_mask=sparsity_mask,
            )
            cell = WiredCfCCell(
                units,
                fully_recurrent,
                mode,
                activation,
                mask_time_gates=mask_time_gates,
                dtype=dtype,
            )
        else:
            check_dense(
                mask_time_gates=True if mask_time_gates and sparsity_mask is None else None,
                fully_recurrent=None if fully_recurrent else False,
            )
            cell = CfCCell(
                number_of_neurons(units),
                mode,
                activation,
                128 if backbone_units is None else backbone_units,
                1 if backbone_layers is None else backbone_layers,
                0.0 if backbone_dropout is None else backbone_dropout,
                sparsity_mask,
                mask_time_gates=mask_time_gates,
                dtype=dtype,
            )
        super().__init__(
            cell,
            mixed_memory,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            **kwargs,
        )

    def scan(self, sequence: Sequence, h: Tensor) -> Tensor:
        return scan_cfc(self.rnn_cell, sequence, h)

    def read_out(self, states: Tensor) -> Tensor:
        cell = self.rnn_cell
        return cell.read_out(states) if isinstance(cell, WiredCfCCell) else states

    def get_config(self) -> dict[str, Any]:
        cell = self.rnn_cell
        config = {**super().get_config(), "mode": cell.mode}
        config["mask_time_gates"] = cell.mask_time_gates
        if isinstance(cell, WiredCfCCell):
            own = {"units": wiring_to_config(cell.wiring), "fully_recurrent": cell.fully_recurrent}
            return config | own
        of_cell = cell.get_config()
        names = ("units", "activation", "backbone_units", "backbone_layers", "backbone_dropout")
        return config | {name: of_cell[name] for name in (*names, "sparsity_mask")}
