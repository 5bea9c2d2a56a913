"""The LTC layer: a sequence in, a sequence out."""

from __future__ import annotations

from typing import Any

import keras

from ncp_agents.keras.ltc_cell import LTCCell
from ncp_agents.keras.ops import Tensor
from ncp_agents.keras.scan import Sequence, scan_ltc
from ncp_agents.keras.sequence_layer import SequenceLayer
from ncp_agents.layers.checks import IOMapping
from ncp_agents.layers.spec import ltc_wiring
from ncp_agents.wirings import Wiring


@keras.saving.register_keras_serializable(package="ncp_agents")
class LTC(SequenceLayer):
    """A recurrent layer of liquid time-constant neurons on a wiring.

    Called on x (B, T, I), or on the pair of x and timespans (B, T) or (B, T, 1), in steps
    → (B, T, M) with return_sequences, else (B, M); the state (B, N) after it with return_state.
    Its cost grows with the synapses that exist, not with N squared.

    Axes: B batch, T steps, I inputs, N neurons, M outputs (motor neurons).

    Args:
        units: a `Wiring`, or N for `FullyConnected(N)`.
        mixed_memory: whether a memory cell (`MixedMemoryRNN`) precedes the neurons in each step.
        input_mapping, output_mapping, ode_unfolds, epsilon, initialization_ranges,
            implicit_param_constraints: see `LTCCell`.
        **kwargs: of `SequenceLayer` and `keras.layers.RNN`.

    Raises:
        ValueError: a size below 1, a wiring that was built for another size, an option that
            `LTCCell` refuses.
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
        *,
        implicit_param_constraints: bool = False,
        **kwargs: Any,
    ) -> None:
        cell = LTCCell(
            ltc_wiring(units),
            input_mapping,
            output_mapping,
            ode_unfolds,
            epsilon,
            initialization_ranges,
            implicit_param_constraints=implicit_param_constraints,
            dtype=kwargs.get("dtype"),
        )
        super().__init__(cell, mixed_memory, **kwargs)

    def scan(self, sequence: Sequence, h: Tensor) -> Tensor:
        """x (T, B, I) in `sequence`, h (B, N) → potentials (T, B, N)."""
        return scan_ltc(self.rnn_cell, sequence, h)

    def read_out(self, states: Tensor) -> Tensor:
        """The neurons' potentials (…, N) → outputs (…, M)."""
        return self.rnn_cell.read_out(states)
