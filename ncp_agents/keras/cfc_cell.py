"""One step of a closed-form continuous-time (CfC) neuron layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from ncp_agents.keras.activations import ACTIVATIONS, name_of
from ncp_agents.keras.inputs import input_size, single_state, split_timespans
from ncp_agents.keras.ops import Tensor, ops
from ncp_agents.layers.checks import Mode
from ncp_agents.layers.spec import CfCSpec


@keras.saving.register_keras_serializable(package="ncp_agents")
class CfCCell(keras.layers.Layer):
    """One step of a closed-form continuous-time (CfC) neuron layer.

    The equation and the arguments are those of `ncp_agents.torch.CfCCell`, except that the inputs'
    size comes with `build`, that `activation` may be Keras's function of such a name, and that
    `backbone_dropout` is 0.1 unless given. Called on inputs (B, I), or the pair of them and
    timespans (B,) or (B, 1) in steps, and a state (B, N) or [(B, N)] → output (B, N), [(B, N)].

    On JAX, a `keras.layers.RNN` of this cell must have `unroll=True` for other activations to be
    dropped in each batch; `CfC` does not need it.
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
        self.spec = CfCSpec(
            units,
            mode,
            name_of(activation),
            backbone_units,
            backbone_layers,
            backbone_dropout,
            sparsity_mask,
            mask_time_gates,
        )
        self.state_size = self.output_size = self.spec.units
        self.activation = ACTIVATIONS[self.spec.activation]
        self.seed_generator = keras.random.SeedGenerator()

    def build(  # pyright: ignore[reportIncompatibleMethodOverride]  # named after those of call
        self, inputs_shape: Any, states_shape: Any = None
    ) -> None:
        """Make the weights for inputs of that shape."""
        spec = self.spec
        *widths, width = spec.widths(input_size(inputs_shape))
        self.backbone = [
            self._linear(f"backbone_{k}", sources, spec.backbone_units)
            for k, sources in enumerate(widths)
        ]
        self.heads = {name: self._linear(name, width, spec.units) for name in spec.heads}
        if spec.mode == "pure":
            self.w_tau = self.add_weight(name="w_tau", shape=(1, spec.units), initializer="zeros")
            self.A = self.add_weight(name="A", shape=(1, spec.units), initializer="ones")
        self.built = True

    def _linear(self, name: str, inputs: int, outputs: int) -> tuple[Any, Any]:
        """Kernel (inputs, outputs) and bias (outputs,)."""
        kernel = self.add_weight(
            name=f"{name}_kernel", shape=(inputs, outputs), initializer="glorot_uniform"
        )
        return kernel, self.add_weight(name=f"{name}_bias", shape=(outputs,), initializer="zeros")

    def masked_heads(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return each head's kernel, masked, and bias."""
        heads = {}
        for name, linear in self.heads.items():
            kernel, bias = map(ops.convert_to_tensor, linear)
            if self.spec.is_masked(name):
                kernel = kernel * ops.cast(self.spec.sparsity_mask, kernel.dtype)
            heads[name] = kernel, bias
        return heads

    def dropout_masks(self, lead: tuple[Any, ...], dtype: str) -> list[Tensor]:
        """Sample what multiplies the activations (*lead, U) of each backbone layer in training."""
        rate = self.spec.backbone_dropout
        ones = ops.ones((*lead, self.spec.backbone_units), dtype=dtype)
        return [
            keras.random.dropout(ones, rate, seed=self.seed_generator)
            for _ in range(self.spec.backbone_layers if rate else 0)
        ]

    def step(self, x: Tensor, h: Tensor, timespan: Tensor | None, dropout: list[Tensor]) -> Tensor:
        """x (B, I), h (B, N), timespan (B, 1) or None for 1, `dropout_masks` or [] → h' (B, N)."""
        z = ops.concatenate([x, h], axis=-1)
        for k, (kernel, bias) in enumerate(self.backbone):
            z = self.activation.function(ops.matmul(z, kernel) + bias)
            z = z * dropout[k] if dropout else z
        linear = {name: ops.matmul(z, w) + b for name, (w, b) in self.masked_heads().items()}
        dt = 1.0 if timespan is None else timespan
        f1 = linear["ff1"]
        if self.spec.mode == "pure":
            amplitude = ops.convert_to_tensor(self.A)
            decay = ops.exp(-dt * (absolute(self.w_tau) + ops.abs(f1)))
            return amplitude - amplitude * decay * f1
        f1, f2 = ops.tanh(f1), ops.tanh(linear["ff2"])
        gate = ops.sigmoid(linear["time_a"] * dt + linear["time_b"])
        return f1 + gate * f2 if self.spec.mode == "no_gate" else f1 + gate * (f2 - f1)

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Tensor, list[Tensor]]:
        """One step, see the class."""
        x, timespan = split_timespans(inputs)
        dropout = self.dropout_masks((ops.shape(x)[0],), x.dtype) if training else []
        h = self.step(x, single_state(states), timespan, dropout)
        return h, [h]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments as plain data."""
        mask = self.spec.sparsity_mask
        mask = None if mask is None else mask.astype(int).tolist()
        return {**super().get_config(), **self.spec.settings(), "sparsity_mask": mask}


def absolute(w: Tensor) -> Tensor:
    """|w| whose slope at 0 is +1, so that a w_tau that starts at zero can move."""
    w = ops.convert_to_tensor(w)
    return ops.where(w < 0, -w, w)
