"""The memory cell that "mixed memory" puts in front of a circuit."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ncp_agents.keras.inputs import input_size, split_timespans
from ncp_agents.keras.ops import Tensor, ops


@keras.saving.register_keras_serializable(package="ncp_agents")
class MixedMemoryRNN(keras.layers.Layer):
    """One step of a cell behind a long short-term memory whose hidden state is the cell's own.

        i, ig, fg, og = input_map(x) + recurrent_map(h)
        c' = c * sigmoid(fg + forget_gate_bias) + tanh(i) * sigmoid(ig)
        h' = rnn_cell(x, tanh(c') * sigmoid(og))

    Axes: B batch, I inputs, N neurons.

    Args:
        rnn_cell: the cell, with one state (B, N).
        forget_gate_bias: as above.

    Source: Lechner & Hasani 2020, "Learning long-term dependencies in irregularly-sampled time
    series", arXiv:2006.04418.
    """

    def __init__(self, rnn_cell: Any, forget_gate_bias: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rnn_cell = rnn_cell
        self.forget_gate_bias = forget_gate_bias

    @property
    def state_size(self) -> list[int]:
        return [self.rnn_cell.state_size] * 2

    @property
    def output_size(self) -> int:
        return self.rnn_cell.output_size

    def build(self, inputs_shape: Any, states_shape: Any = None) -> None:
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

    def remember(self, projected: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """input_map(x) (B, 4 N), h and c (B, N) → what the cell gets for its state, and c'."""
        z = projected + ops.matmul(h, self.recurrent_kernel)
        i, input_gate, forget_gate, output_gate = ops.split(z, 4, axis=-1)
        kept = c * ops.sigmoid(forget_gate + self.forget_gate_bias)
        c = kept + ops.tanh(i) * ops.sigmoid(input_gate)
        return ops.tanh(c) * ops.sigmoid(output_gate), c

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Tensor, list[Tensor]]:
        """inputs (B, I), or the pair of it and timespans (B,) or (B, 1) in steps; states h and c
        (B, N) each → output, [h', c'].
        """
        x, _ = split_timespans(inputs)
        if not isinstance(states, (list, tuple)) or len(states) != 2:
            raise ValueError(
                "Running a cell with mixed memory requires a pair (h, c) to be passed as states"
            )
        h, c = states
        h, c = self.remember(self.project(x), h, c)
        output, (h,) = self.rnn_cell(inputs, [h], training=training)
        return output, [h, c]

    def torch_names(self) -> dict[str, Any]:
        """The variables by their names in the torch port's state dict of the layer."""
        return {
            "lstm.input_map.weight": self.input_kernel,
            "lstm.input_map.bias": self.input_bias,
            "lstm.recurrent_map.weight": self.recurrent_kernel,
        } | {f"rnn_cell.{name}": value for name, value in self.rnn_cell.torch_names().items()}

    def torch_buffers(self) -> dict[str, np.ndarray]:
        """What the torch port's state dict holds besides the variables."""
        return {f"rnn_cell.{name}": value for name, value in self.rnn_cell.torch_buffers().items()}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rnn_cell": keras.saving.serialize_keras_object(self.rnn_cell),
            "forget_gate_bias": self.forget_gate_bias,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MixedMemoryRNN:
        cell = keras.saving.deserialize_keras_object(config["rnn_cell"])
        return cls(**{**config, "rnn_cell": cell})
