"""What the sequence layers share: all that a `keras.layers.RNN` does, and timespans."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Self

import keras

from ncp_agents.keras.inputs import input_size, is_pair, split_timespans
from ncp_agents.keras.memory_cell import MixedMemoryRNN
from ncp_agents.keras.ops import Tensor, ops
from ncp_agents.keras.scan import Sequence, scan_mixed_memory
from ncp_agents.layers import weights
from ncp_agents.layers.spec import WiredCfCSpec
from ncp_agents.wirings import wiring_from_config


class SequenceLayer(keras.layers.RNN):
    """A sequence in, a sequence out, around a cell that does one step.

    Called on x (B, T, I), or on the pair of x and timespans (B, T) or (B, T, 1), the time since the
    previous input in steps. Everything else is as in `keras.layers.RNN`: `mask`, `initial_state`,
    `return_sequences`, `return_state`, `go_backwards`, `stateful`, `unroll`,
    `zero_output_for_mask`. The state is h (B, N), with mixed memory h and c.

    Axes: B batch, T steps, I inputs, N neurons, M outputs.

    Second derivatives, as of a gradient penalty, need `keras.layers.RNN(layer.cell)`. Mixed memory
    under XLA on TensorFlow needs unroll=True.
    """

    def __init__(self, cell: Any, mixed_memory: bool, **kwargs: Any) -> None:
        if mixed_memory:
            cell = MixedMemoryRNN(cell, dtype=cell.dtype_policy)
        super().__init__(cell, **kwargs)
        self.use_mixed = mixed_memory

    @property
    def rnn_cell(self) -> Any:
        """The cell, without the memory that may precede it."""
        return self.cell.rnn_cell if self.use_mixed else self.cell

    @abstractmethod
    def scan(self, sequence: Sequence, h: Tensor) -> Tensor:
        """States (T, B, N) from the state h (B, N)."""

    @abstractmethod
    def read_out(self, states: Tensor) -> Tensor:
        """Outputs (…, M) of the neurons' states (…, N)."""

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        """Make the weights for sequences of that shape, or pair of shapes."""
        self.input_size = input_size(sequences_shape)
        super().build(_of_x(sequences_shape))

    def compute_output_shape(self, sequences_shape: Any, initial_state_shape: Any = None) -> Any:
        """Return the output's shape, and with return_state the states'."""
        return super().compute_output_shape(_of_x(sequences_shape))

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        """One batch of sequences, see the class."""
        x, timespans = split_timespans(sequences)
        if x.shape[-1] != self.input_size:
            raise ValueError(
                f"input has shape {tuple(x.shape)}, expected (B, T, {self.input_size})"
            )
        if isinstance(mask, (list, tuple)):
            mask = mask[0]
        if timespans is not None:
            x = ops.concatenate([x, timespans], axis=-1)  # split again by `inner_loop`
        return super().call(x, initial_state, mask, bool(training))

    def inner_loop(
        self, sequences: Tensor, initial_state: Any, mask: Any, training: bool = False
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """x (B, T, I), or (B, T, I + 1) with timespans last → last output, outputs, states."""
        x = self._time_major(sequences)
        if mask is not None:
            mask = ops.cast(ops.reshape(mask, ops.shape(sequences)[:2]), x.dtype)
            mask = self._time_major(mask)[..., None]
        varies = x.shape[-1] > self.input_size
        sequence = Sequence(
            x[..., : self.input_size] if varies else x,
            x[..., self.input_size :] if varies else None,
            mask,
            training,
            self.unroll,
        )
        if self.use_mixed:
            states, memories = scan_mixed_memory(self.cell, sequence, *initial_state)
            last = [states[-1], memories[-1]]
        else:
            states = self.scan(sequence, initial_state[0])
            last = [states[-1]]

        if not self.return_sequences:
            states = states[-1:]
        outputs = self.read_out(states)
        if mask is not None:
            # As in every Keras RNN, before the first step that counts the output is 0.
            shown = mask if self.zero_output_for_mask else ops.cumsum(mask, axis=0)
            if not self.return_sequences:
                shown = shown[-1:]
            outputs = ops.where(shown > 0, outputs, ops.zeros_like(outputs))
        return outputs[-1], ops.swapaxes(outputs, 0, 1), last

    def _time_major(self, values: Tensor) -> Tensor:
        values = ops.swapaxes(values, 0, 1)
        return ops.flip(values, axis=0) if self.go_backwards else values

    def named_weights(self) -> dict[str, Any]:
        """Return the variables of the built layer by their names in torch's state dict."""
        cell, prefixes = self.rnn_cell, {"": self.rnn_cell}
        if isinstance(cell.spec, WiredCfCSpec):
            prefixes = {f"{layer.name}/": layer for layer in cell.cells}
        by_name = {p + v.name: v for p, layer in prefixes.items() for v in layer.weights}
        names = {f"rnn_cell.{k}": by_name[v] for k, v in weights.cell_names(cell.spec).items()}
        if self.use_mixed:
            names |= {k: getattr(self.cell, v) for k, v in weights.MEMORY.items()}
        return names

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer, and of the cell in it, as plain data."""
        config, own = super().get_config(), self.rnn_cell.get_config()
        del config["cell"], own["name"], own["trainable"], own["dtype"]  # made from the arguments
        own["units"] = own.pop("wiring", None) or own["units"]
        return {**config, **own, "mixed_memory": self.use_mixed}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Make the layer that `get_config` described."""
        units = config["units"]
        if isinstance(units, dict):
            units = wiring_from_config(units)
        return cls(**{**config, "units": units})


def _of_x(shape: Any) -> Any:
    return shape[0] if is_pair(shape) else shape
