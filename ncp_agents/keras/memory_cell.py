"""The memory cell that "mixed memory" puts in front of a circuit."""

from __future__ import annotations

from typing import Any

import keras

from ncp_agents.keras.inputs import input_size, split_timespans
from ncp_agents.keras.ops import Tensor, ops


@keras.saving.register_keras_serializable(package="ncp_agents")
class MixedMemoryRNN(keras.layers.Layer):
    """One step of a cell behind a long short-term memory whose hidden state is the cell's own.

        h', c' = memory(x, h, c),   output, h'' = rnn_cell(x, h')

    with the memory of `ncp_agents.torch.memory_cell.MemoryCell`. Called on inputs (B, I), or the
    pair of them and timespans (B,) or (B, 1) in steps, and the states [h, c], (B, N) each
    → output (B, M), [h'', c'].

    Axes: B batch, I inputs, N neurons.

    Args:
        rnn_cell: the cell, with one state (B, N).
        forget_gate_bias: added to the forget gate before its sigmoid.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: in a call, states other than a pair.
    """

    def __init__(self, rnn_cell: Any, forget_gate_bias: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rnn_cell = rnn_cell
        self.forget_gate_bias = forget_gate_bias
        self.state_size = [rnn_cell.state_size] * 2
        self.output_size = rnn_cell.output_size

    def build(  # pyright: ignore[reportIncompatibleMethodOverride]  # named after those of call
        self, inputs_shape: Any, states_shape: Any = None
    ) -> None:
        """Make the weights for inputs of that shape."""
        if not self.rnn_cell.built:
            self.rnn_cell.build(inputs_shape)
        inputs, units = input_size(inputs_shape), self.rnn_cell.state_size
        self.input_kernel = self.add_weight(
            name="input_kernel", shape=(inputs, 4 * units), initializer="glorot_uniform"
        )
        self.input_bias = self.add_weight(
            name="input_bias",
            shape=(4 * units,),
            initializer=keras.initializers.RandomUniform(-0.1, 0.1),
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(units, 4 * units), initializer="orthogonal"
        )
        self.built = True

    def project(self, x: Tensor) -> Tensor:
        """input_map of x (…, I) → (…, 4 N)."""
        return ops.matmul(x, self.input_kernel) + self.input_bias

    def memory_step(self, projected: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """input_map(x) (B, 4 N), h and c (B, N) → what the cell gets for its state, and c'."""
        z = projected + ops.matmul(h, self.recurrent_kernel)
        i, input_gate, forget_gate, output_gate = ops.split(z, 4, axis=-1)
        kept = c * ops.sigmoid(forget_gate + self.forget_gate_bias)
        c = kept + ops.tanh(i) * ops.sigmoid(input_gate)
        return ops.tanh(c) * ops.sigmoid(output_gate), c

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Tensor, list[Tensor]]:
        """One step, see the class."""
        x, _ = split_timespans(inputs)
        if not isinstance(states, (list, tuple)) or len(states) != 2:
            raise ValueError("a cell with mixed memory requires the pair (h, c) as states")
        h, c = states
        h, c = self.memory_step(self.project(x), h, c)
        output, (h,) = self.rnn_cell(inputs, [h], training=training)
        return output, [h, c]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments as plain data."""
        return {
            **super().get_config(),
            "rnn_cell": keras.saving.serialize_keras_object(self.rnn_cell),
            "forget_gate_bias": self.forget_gate_bias,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MixedMemoryRNN:
        """Make the cell that `get_config` described."""
        cell = keras.saving.deserialize_keras_object(config["rnn_cell"])
        return cls(**{**config, "rnn_cell": cell})
