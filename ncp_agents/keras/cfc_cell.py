"""One step of a closed-form continuous-time (CfC) neuron layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from ncp_agents.keras.activations import find_activation, name_of
from ncp_agents.keras.inputs import input_size, single_state, split_timespans
from ncp_agents.keras.ops import Tensor, ops
from ncp_agents.layers.checks import Mode, check_cfc, check_mask
from ncp_agents.validation import check_integer

DropoutRNNCell: Any = next(
    kind for kind in keras.layers.GRUCell.__mro__ if kind.__name__ == "DropoutRNNCell"
)
"""What `keras.layers.RNN` asks to draw its dropout before the loop; in the loop JAX cannot."""


@keras.saving.register_keras_serializable(package="ncp_agents")
class CfCCell(DropoutRNNCell, keras.layers.Layer):
    """One step of a closed-form continuous-time (CfC) neuron layer.

        z  = backbone([x, h])
        g  = sigmoid(time_a(z) * dt + time_b(z))
        h' = (1 - g) * tanh(ff1(z)) + g * tanh(ff2(z))

    Axes: B batch, I inputs, N neurons.

    Args:
        units: N.
        mode: "default" (above), "no_gate" (without the factor 1 - g), or
            "pure" (h' = A - A * exp(-dt * (|w_tau| + |ff1(z)|)) * ff1(z)).
        activation: of the backbone: "lecun_tanh", "tanh", "relu", "silu" or "gelu", or Keras's
            function of such a name.
        backbone_units: width of each backbone layer; 0 means no backbone.
        backbone_layers: number of backbone layers; 0 means no backbone.
        backbone_dropout: probability with which a backbone activation is dropped in training; in a
            `keras.layers.RNN` the same ones at all steps of a sequence.
        sparsity_mask: (I + N, N) of zeros and non-zeros, row = source, column = target, or None.
            Limits ff1 and ff2; needs backbone_units=0.
        mask_time_gates: whether the mask limits time_a and time_b as well.

    Raises:
        ValueError: unknown mode or activation, a size below 1, a dropout outside [0, 1), a mask of
            another shape, or a mask together with a backbone.

    Source: Hasani et al. 2022, Nature Machine Intelligence, "Closed-form continuous-time neural
    networks", arXiv:2106.13898.
    """

    def __init__(
        self,
        units: int,
        mode: Mode = "default",
        activation: str | Callable[..., Any] = "lecun_tanh",
        backbone_units: int = 128,
        backbone_layers: int = 1,
        backbone_dropout: float = 0.1,
        sparsity_mask: Any = None,
        *,
        mask_time_gates: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backbone_units, self.backbone_layers = check_cfc(
            mode, backbone_units, backbone_layers, backbone_dropout, sparsity_mask is not None
        )
        self.units = check_integer("units", units, 1)
        self.mode: Mode = mode
        self.activation_name = name_of(activation)
        self.activation = find_activation(self.activation_name)
        self.backbone_dropout = backbone_dropout
        self.mask_time_gates = mask_time_gates
        self.sparsity_mask = None if sparsity_mask is None else np.asarray(sparsity_mask) != 0
        self.dropout = backbone_dropout if self.backbone_layers else 0.0
        self.recurrent_dropout = 0.0
        self.state_size = self.output_size = self.units
        self.seed_generator = keras.random.SeedGenerator()

    @property
    def head_names(self) -> tuple[str, ...]:
        return ("ff1",) if self.mode == "pure" else ("ff1", "ff2", "time_a", "time_b")

    def build(self, inputs_shape: Any, states_shape: Any = None) -> None:
        inputs = input_size(inputs_shape)
        if self.sparsity_mask is not None:
            check_mask(self.sparsity_mask, inputs, self.units)
        width = inputs + self.units
        self.backbone = []
        for k in range(self.backbone_layers):
            self.backbone.append(self._linear(f"backbone_{k}", width, self.backbone_units))
            width = self.backbone_units
        self.heads = {name: self._linear(name, width, self.units) for name in self.head_names}
        if self.mode == "pure":
            self.w_tau = self.add_weight(name="w_tau", shape=(1, self.units), initializer="zeros")
            self.A = self.add_weight(name="A", shape=(1, self.units), initializer="ones")
        self.built = True

    def _linear(self, name: str, inputs: int, outputs: int) -> tuple[Any, Any]:
        """Kernel (inputs, outputs) and bias (outputs,)."""
        kernel = self.add_weight(
            name=f"{name}_kernel", shape=(inputs, outputs), initializer="glorot_uniform"
        )
        return kernel, self.add_weight(name=f"{name}_bias", shape=(outputs,), initializer="zeros")

    def masked_heads(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Each head's kernel, masked, and bias."""
        heads = {
            name: tuple(map(ops.convert_to_tensor, linear)) for name, linear in self.heads.items()
        }
        if self.sparsity_mask is not None:
            for name, (kernel, bias) in heads.items():
                if self.mask_time_gates or name.startswith("ff"):
                    heads[name] = kernel * ops.cast(self.sparsity_mask, kernel.dtype), bias
        return heads

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Tensor, list[Tensor]]:
        """inputs (B, I), or the pair of it and timespans (B,) or (B, 1) in steps; states (B, N) or
        [(B, N)] → output (B, N), new states [(B, N)].
        """
        x, timespan = split_timespans(inputs)
        z = ops.concatenate([x, single_state(states)], axis=-1)
        masks: list[Any] = [1.0] * self.backbone_layers
        if training and self.dropout:
            masks = getattr(self, "_dropout_mask", None) or self._create_dropout_mask(
                x, self.dropout
            )
        for (kernel, bias), mask in zip(self.backbone, masks, strict=True):
            z = self.activation.function(ops.matmul(z, kernel) + bias) * mask
        linear = {name: ops.matmul(z, w) + b for name, (w, b) in self.masked_heads().items()}
        dt = 1.0 if timespan is None else timespan
        f1 = linear["ff1"]
        if self.mode == "pure":
            amplitude = ops.convert_to_tensor(self.A)
            decay = ops.exp(-dt * (absolute(self.w_tau) + ops.abs(f1)))
            h = amplitude - amplitude * decay * f1
        else:
            f1, f2 = ops.tanh(f1), ops.tanh(linear["ff2"])
            gate = ops.sigmoid(linear["time_a"] * dt + linear["time_b"])
            h = f1 + gate * f2 if self.mode == "no_gate" else f1 + gate * (f2 - f1)
        return h, [h]

    def _create_dropout_mask(self, step_input: Tensor, dropout_rate: float) -> list[Tensor]:
        """For an input (B, I) what multiplies the activations (B, U) of each backbone layer."""
        ones = ops.ones((ops.shape(step_input)[0], self.backbone_units), dtype=step_input.dtype)
        return [
            keras.random.dropout(ones, dropout_rate, seed=self.seed_generator)
            for _ in range(self.backbone_layers)
        ]

    def torch_names(self) -> dict[str, Any]:
        """The variables by their names in the torch port's state dict."""
        # There, dropout and activations have places of their own.
        stride = 3 if self.backbone_dropout > 0 else 2
        linears = {
            f"backbone.{0 if k == 0 else 2 + stride * (k - 1)}": linear
            for k, linear in enumerate(self.backbone)
        }
        linears |= self.heads
        names = {f"{name}.weight": kernel for name, (kernel, _) in linears.items()}
        names |= {f"{name}.bias": bias for name, (_, bias) in linears.items()}
        return names | ({"w_tau": self.w_tau, "A": self.A} if self.mode == "pure" else {})

    def torch_buffers(self) -> dict[str, np.ndarray]:
        """What the torch port's state dict holds besides the variables."""
        if self.sparsity_mask is None:
            return {}
        return {"sparsity_mask": np.ascontiguousarray(self.sparsity_mask.T, np.float32)}

    def get_config(self) -> dict[str, Any]:
        mask = self.sparsity_mask
        return {
            **super().get_config(),
            "units": self.units,
            "mode": self.mode,
            "activation": self.activation_name,
            "backbone_units": self.backbone_units,
            "backbone_layers": self.backbone_layers,
            "backbone_dropout": self.backbone_dropout,
            "sparsity_mask": None if mask is None else mask.astype(int).tolist(),
            "mask_time_gates": self.mask_time_gates,
        }


def absolute(w: Tensor) -> Tensor:
    """|w| whose slope at 0 is +1, so that a w_tau that starts at zero can move."""
    w = ops.convert_to_tensor(w)
    return ops.where(w < 0, -w, w)
