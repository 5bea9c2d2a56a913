"""One step of a closed-form continuous-time (CfC) neuron layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, get_args

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.nn.init import orthogonal

from ncp_agents import registry
from ncp_agents.layers.checks import Init, Mode, check_cfc, check_mask, check_step, renamed
from ncp_agents.mlx.activations import ACTIVATIONS
from ncp_agents.mlx.heads import head
from ncp_agents.mlx.masks import freeze_masks
from ncp_agents.validation import check_integer


class FusedCfC(NamedTuple):
    """A CfC cell's weights as a step reads them: all heads are one matrix.

    Head order: [f1, f2, gate] where the timespan is constant, since time_a * dt + time_b is then
    one head; [f1, f2, a, b] where it varies; [f] in pure mode.

    Axes: B batch, I inputs, N neurons, D heads, U outputs of the first map (D N, or the width of
    the backbone).
    """

    mode: Mode
    from_inputs: mx.array
    """(I, U)"""
    recurrent: mx.array
    """(N, U)"""
    bias: mx.array
    """(U,)"""
    following: list[tuple[mx.array, mx.array]]
    """Weight (sources, outputs) and bias (outputs,) after each layer of the backbone."""
    activation: Callable[[mx.array], mx.array]
    """Of the backbone."""
    dropout: float
    """Of the backbone, 0 outside training."""
    pure: tuple[mx.array, ...]
    """|w_tau| and A, (1, N) each, in pure mode."""

    def project(self, x: mx.array) -> mx.array:
        """x (…, I) → what the inputs add to the first map (…, U)."""
        return mx.addmm(self.bias, x, self.from_inputs)

    def step(self, projected: mx.array, h: mx.array, timespan: float | mx.array) -> mx.array:
        """projected (B, U), h (B, N), timespan a float or (B, 1) → h' (B, N)."""
        z = mx.addmm(projected, h, self.recurrent)
        for weight, bias in self.following:
            z = self.activation(z)
            if self.dropout:
                kept = mx.random.bernoulli(1.0 - self.dropout, z.shape)
                z = mx.where(kept, z / (1.0 - self.dropout), 0.0)
            z = mx.addmm(bias, z, weight)
        return self.mix(z, timespan)

    def mix(self, z: mx.array, timespan: float | mx.array) -> mx.array:
        """Heads z (…, D N), timespan a float or (…, 1) → h' (…, N)."""
        if self.mode == "pure":
            return decay(z, mx.array(timespan, z.dtype), *self.pure)
        f1, f2, *gate = mx.split(z, z.shape[-1] // self.recurrent.shape[0], -1)
        time = gate[0] if len(gate) == 1 else gate[0] * timespan + gate[1]
        return (add_gated if self.mode == "no_gate" else interpolate)(f1, f2, time)


@partial(mx.compile, shapeless=True)
def interpolate(f1: mx.array, f2: mx.array, time: mx.array) -> mx.array:
    """H' of mode "default"."""
    f1 = mx.tanh(f1)
    return f1 + mx.sigmoid(time) * (mx.tanh(f2) - f1)


@partial(mx.compile, shapeless=True)
def add_gated(f1: mx.array, f2: mx.array, time: mx.array) -> mx.array:
    """H' of mode "no_gate"."""
    return mx.tanh(f1) + mx.sigmoid(time) * mx.tanh(f2)


@partial(mx.compile, shapeless=True)
def decay(f: mx.array, timespan: mx.array, rate: mx.array, amplitude: mx.array) -> mx.array:
    """H' of mode "pure"."""
    return amplitude - amplitude * mx.exp(-timespan * (rate + mx.abs(f))) * f


class CfCCell(nn.Module):
    """One step of a closed-form continuous-time (CfC) neuron layer.

        z  = backbone([x, h])
        g  = sigmoid(time_a(z) * dt + time_b(z))
        h' = (1 - g) * tanh(ff1(z)) + g * tanh(ff2(z))

    Axes: B batch, I inputs, N neurons.

    Args:
        input_size: I.
        units: N; `hidden_size` is accepted as its older name.
        mode: "default" (above), "no_gate" (without the factor 1 - g), or
            "pure" (h' = A - A * exp(-dt * (|w_tau| + |ff1(z)|)) * ff1(z)).
        activation: of the backbone: "lecun_tanh", "tanh", "relu", "silu" or "gelu";
            `backbone_activation` is accepted as its older name.
        backbone_units: width of each backbone layer; 0 means no backbone.
        backbone_layers: number of backbone layers; 0 means no backbone.
        backbone_dropout: probability with which a backbone activation is dropped in training.
        sparsity_mask: (I + N, N) of zeros and non-zeros, row = source, column = target, or None.
            Limits ff1 and ff2; needs backbone_units=0.
        mask_time_gates: whether the mask limits time_a and time_b as well.
        init: "xavier" as in ncps, or "balanced" (`balance`), which keeps the signal of sparse
            layers at full size.

    Raises:
        ValueError: unknown mode or activation, a size below 1, a dropout outside [0, 1), a mask of
            another shape, or a mask together with a backbone.

    Source: Hasani et al. 2022, Nature Machine Intelligence, "Closed-form continuous-time neural
    networks", arXiv:2106.13898.
    """

    def __init__(
        self,
        input_size: int,
        units: int | None = None,
        mode: Mode = "default",
        activation: str = "lecun_tanh",
        backbone_units: int = 128,
        backbone_layers: int = 1,
        backbone_dropout: float = 0.0,
        sparsity_mask: np.ndarray | mx.array | None = None,
        *,
        mask_time_gates: bool = False,
        init: Init = "xavier",
        hidden_size: int | None = None,
        backbone_activation: str | None = None,
    ) -> None:
        super().__init__()
        input_size = check_integer("input_size", input_size, 1)
        units = check_integer("units", renamed("units", units, "hidden_size", hidden_size), 1)
        backbone_units, self.backbone_layers = check_cfc(
            mode, backbone_units, backbone_layers, backbone_dropout, sparsity_mask is not None
        )
        self.input_size = input_size
        self.hidden_size = units
        self.mode: Mode = mode
        self.activation_name = renamed(
            "activation", activation, "backbone_activation", backbone_activation, "lecun_tanh"
        )
        registry.get("activation", self.activation_name, ACTIVATIONS)
        self.backbone_dropout = backbone_dropout
        self.mask_time_gates = mask_time_gates

        if sparsity_mask is not None:
            self.sparsity_mask = self._checked_mask(sparsity_mask)
            freeze_masks(self)

        # The layers keep the places of ncps's nn.Sequential, whose names count what stands between:
        # linear, activation, then linear, activation[, dropout] for each further layer.
        between = [nn.Identity()] * (2 if backbone_dropout > 0 else 1)
        width = input_size + units
        if self.backbone_layers:
            self.backbone: list[nn.Module] = []
        for layer in range(self.backbone_layers):
            if layer:
                self.backbone += between if layer > 1 else between[:1]
            self.backbone.append(head(width, backbone_units))
            width = backbone_units

        self.ff1 = head(width, units)
        if mode == "pure":
            self.w_tau = mx.zeros((1, units))
            self.A = mx.ones((1, units))
        else:
            self.ff2 = head(width, units)
            self.time_a = head(width, units)
            self.time_b = head(width, units)
        if registry.get("init", init, get_args(Init)) == "balanced":
            self.balance()

    def balance(self) -> None:
        """Initialise the heads anew by the synapses that exist, for layers that follow one another.

        Each neuron's input weights get variance gain^2 / (its number of synapses), gain 2 for ff1
        and ff2, which makes up for the mean of two tanh, and 1 for the gates; recurrent weights
        are orthogonal and biases zero.
        """
        if self.backbone_layers:
            raise ValueError("init 'balanced' needs a cell without a backbone; use 'xavier'")
        inputs, units = self.input_size, self.hidden_size
        synapses = mx.full((units, 1), float(inputs))
        if "sparsity_mask" in self:
            synapses = mx.maximum(self.sparsity_mask[:, :inputs].sum(1, keepdims=True), 1.0)
        for name in self._head_names:
            gate = name.startswith("time")
            sources = float(inputs) if gate and not self.mask_time_gates else synapses
            scale = (1.0 if gate else 2.0) * mx.rsqrt(mx.array(sources))
            recurrent = orthogonal()(mx.zeros((units, units)))
            drawn = [scale * mx.random.normal((units, inputs)), recurrent]
            self[name].weight = mx.concatenate(drawn, 1)
            self[name].bias = mx.zeros(units)

    def fuse(self, timespan: float | None) -> FusedCfC:
        """The weights as steps read them; `timespan` is the constant one, None if it varies."""
        weights, biases = map(list, zip(*self._heads(timespan), strict=True))
        maps = [(layer.weight, layer.bias) for layer in self._backbone()]
        maps.append((mx.concatenate(weights), mx.concatenate(biases)))
        # Contiguous, since the CPU's matrix products are twice as fast so.
        (first, bias), *following = [(mx.contiguous(weight.T), bias) for weight, bias in maps]
        pure = ()
        if self.mode == "pure":  # the slope at 0 is +1, so that a w_tau that starts at 0 can move
            pure = (mx.where(self.w_tau < 0, -self.w_tau, self.w_tau), self.A)
        return FusedCfC(
            mode=self.mode,
            from_inputs=first[: self.input_size],
            recurrent=first[self.input_size :],
            bias=bias,
            following=following,
            activation=ACTIVATIONS[self.activation_name],
            dropout=self.backbone_dropout if self.training else 0.0,
            pure=pure,
        )

    def __call__(
        self, x: mx.array, h: mx.array, timespan: float | mx.array = 1.0
    ) -> tuple[mx.array, mx.array]:
        """x (B, I), h (B, N), timespan a float, (B,) or (B, 1), in steps → output and state (B, N).

        Raises:
            ValueError: another shape.
        """
        timespan = check_step(x, h, timespan, self.input_size, self.hidden_size)
        if isinstance(timespan, mx.array):
            timespan = timespan.astype(x.dtype)
        fused = self.fuse(None if isinstance(timespan, mx.array) else timespan)
        h = fused.step(fused.project(x), h, timespan)
        return h, h

    @property
    def _head_names(self) -> tuple[str, ...]:
        return ("ff1",) if self.mode == "pure" else ("ff1", "ff2", "time_a", "time_b")

    def _heads(self, timespan: float | None) -> Iterator[tuple[mx.array, mx.array]]:
        """Weight (N, sources) and bias (N,) of each head of `FusedCfC`."""
        heads = []
        for name in self._head_names:
            weight, bias = self[name].weight, self[name].bias
            if "sparsity_mask" in self and (self.mask_time_gates or name.startswith("ff")):
                weight = weight * self.sparsity_mask
            heads.append((weight, bias))
        if len(heads) > 1 and timespan is not None:
            *ff, a, b = heads
            heads = [*ff, tuple(p * timespan + q for p, q in zip(a, b, strict=True))]
        yield from heads

    def _backbone(self) -> Iterator[nn.Linear]:
        for layer in self.get("backbone", []):
            if isinstance(layer, nn.Linear):
                yield layer

    def _checked_mask(self, mask: np.ndarray | mx.array) -> mx.array:
        """(I + N, N) of any sign → (N, I + N) of 0.0 and 1.0."""
        exists = check_mask(mask, self.input_size, self.hidden_size)
        return mx.array(exists.T.astype(np.float32))
