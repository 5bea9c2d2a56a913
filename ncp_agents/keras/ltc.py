"""The LTC layer: a sequence in, a sequence out."""

from __future__ import annotations

from typing import Any

import keras

from ncp_agents.keras.ltc_cell import LTCCell
from ncp_agents.keras.ops import Tensor
from ncp_agents.keras.scan import Sequence, scan_ltc
from ncp_agents.keras.sequence_layer import SequenceLayer
from ncp_agents.layers.checks import IOMapping
from ncp_agents.wirings import FullyConnected, Wiring
from ncp_agents.wirings.base import number_of_neurons


@keras.saving.register_keras_serializable(package="ncp_agents")
class LTC(SequenceLayer):
    """A recurrent layer of liquid time-constant neurons on a wiring.

    Called on x (B, T, I), or on the pair of x and timespans (B, T) or (B, T, 1), in steps
    → (B, T, M) with return_sequences, else (B, M); the state (B, N) after it with return_state.

    Axes: B batch, T steps, I inputs, N neurons, M outputs (motor neurons).

    Args:
        units: a `Wiring`, or N for `FullyConnected(N)`.
        mixed_memory: whether a memory cell (`MixedMemoryRNN`) precedes the neurons in each step.
        input_mapping, output_mapping, ode_unfolds, epsilon, initialization_ranges,
            implicit_param_constraints: see `LTCCell`.
        return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask: as in
            `keras.layers.RNN`. Mixed memory under XLA on TensorFlow needs unroll=True.

    Its cost grows with the synapses that exist, not with N squared.

    Raises:
        ValueError: a size below 1, a wiring that was built for another size, and what `LTCCell`
            refuses.

    Source: Hasani et al. 2021, "Liquid time-constant networks", AAAI, arXiv:2006.04439.
    """

    def __init__(
        self,
        units: int | Wiring,
        mixed_memory: bool = False,
        input_mapping: IOMapping = "affine",
        output_mapping: IOMapping = "affine",
        ode_unfolds: int = 6,
        epsilon: float = 1e-8,
        initialization_ranges: dict[str, tuple[float, float]] | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        *,
        implicit_param_constraints: bool = False,
        **kwargs: Any,
    ) -> None:
        cell = LTCCell(
            units if isinstance(units, Wiring) else FullyConnected(number_of_neurons(units)),
            input_mapping,
            output_mapping,
            ode_unfolds,
            epsilon,
            initialization_ranges,
            implicit_param_constraints=implicit_param_constraints,
            dtype=kwargs.get("dtype"),
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
        return scan_ltc(self.rnn_cell, sequence, h)

    def read_out(self, states: Tensor) -> Tensor:
        return self.rnn_cell.read_out(states)

    def get_config(self) -> dict[str, Any]:
        of_cell = self.rnn_cell.get_config()
        del of_cell["name"], of_cell["trainable"], of_cell["dtype"]
        return {**super().get_config(), "units": of_cell.pop("wiring"), **of_cell}
