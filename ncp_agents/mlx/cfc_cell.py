"""One step of a closed-form continuous-time (CfC) neuron layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, get_args

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.nn.init import orthogonal

from ncp_agents import registry
from ncp_agents.layers.checks import Init, Mode, check_step
from ncp_agents.layers.spec import CfCSpec
from ncp_agents.mlx.activations import ACTIVATIONS
from ncp_agents.mlx.heads import head
from ncp_agents.mlx.masks import MASKS, Masked
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
        """x (…, I) → the inputs' part of the first map (…, U)."""
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
    """Return h' of mode "default"."""
    f1 = mx.tanh(f1)
    return f1 + mx.sigmoid(time) * (mx.tanh(f2) - f1)


@partial(mx.compile, shapeless=True)
def add_gated(f1: mx.array, f2: mx.array, time: mx.array) -> mx.array:
    """Return h' of mode "no_gate"."""
    return mx.tanh(f1) + mx.sigmoid(time) * mx.tanh(f2)


@partial(mx.compile, shapeless=True)
def decay(f: mx.array, timespan: mx.array, rate: mx.array, amplitude: mx.array) -> mx.array:
    """Return h' of mode "pure"."""
    return amplitude - amplitude * mx.exp(-timespan * (rate + mx.abs(f))) * f


class CfCCell(Masked):
    """One step of a closed-form continuous-time (CfC) neuron layer.

    The equation and the arguments are those of `ncp_agents.torch.CfCCell`. Called on x (B, I),
    h (B, N) and a timespan, in steps → output and state (B, N).
    """

    ff1: Any
    sparsity_mask: mx.array
    w_tau: mx.array  # (1, N), in pure mode
    A: mx.array  # (1, N), in pure mode

    def __init__(
        self,
        input_size: int,
        units: int,
        mode: Mode = "default",
        activation: str = "lecun_tanh",
        backbone_units: int = 128,
        backbone_layers: int = 1,
        backbone_dropout: float = 0.0,
        sparsity_mask: np.ndarray | mx.array | None = None,
        *,
        mask_time_gates: bool = False,
        init: Init = "xavier",
    ) -> None:
        super().__init__()
        self.spec = spec = CfCSpec(
            units,
            mode,
            activation,
            backbone_units,
            backbone_layers,
            backbone_dropout,
            None if sparsity_mask is None else np.array(sparsity_mask),
            mask_time_gates,
        )
        self.input_size = input_size = check_integer("input_size", input_size, 1)
        self.state_size = self.output_size = units = spec.units
        self.output_slice, self.wiring = slice(0, units), None
        *widths, width = spec.widths(input_size)
        for name, mask in spec.masks().items():
            self[name] = mx.array(mask)
        self.freeze(keys=MASKS)
        if spec.backbone:  # a list whose gaps are the activations and dropout of ncps
            self.backbone: list[Any] = [nn.Identity() for _ in range(int(spec.backbone[-1]) + 1)]
            for place, sources in zip(spec.backbone, widths, strict=True):
                self.backbone[int(place)] = head(sources, spec.backbone_units)
        for name in spec.heads:
            self[name] = head(width, units)
        if mode == "pure":
            self.w_tau = mx.zeros((1, units))
            self.A = mx.ones((1, units))
        if registry.get("init", init, get_args(Init)) == "balanced":
            self.balance()

    def balance(self) -> None:
        """Initialise the heads again as `CfCSpec.balanced` says, for layers in a chain."""
        shape = (self.state_size, self.input_size)
        for name, scale in self.spec.balanced(self.input_size).items():
            inputs = mx.array(scale) * mx.random.normal(shape)
            recurrent = orthogonal()(mx.zeros((self.state_size, self.state_size)))
            self[name].weight = mx.concatenate([inputs, recurrent], 1)
            self[name].bias = mx.zeros(self.state_size)

    @property
    def any_parameter(self) -> mx.array:
        """One parameter; all have its dtype."""
        return self.ff1.bias

    def fuse(self, timespan: float | None) -> FusedCfC:
        """Return the weights as steps read them, for one constant timespan or None for several."""
        spec, maps = self.spec, [self.backbone[int(place)] for place in self.spec.backbone]
        weights, biases = map(list, zip(*self._heads(timespan), strict=True))
        linears = [(linear.weight, linear.bias) for linear in maps]
        linears.append((mx.concatenate(weights), mx.concatenate(biases)))
        # Contiguous, since the CPU's matrix products are twice as fast so.
        (first, bias), *following = [(mx.contiguous(weight.T), bias) for weight, bias in linears]
        pure = ()
        if spec.mode == "pure":  # the slope at 0 is +1, so that a w_tau that starts at 0 can move
            pure = (mx.where(self.w_tau < 0, -self.w_tau, self.w_tau), self.A)
        return FusedCfC(
            mode=spec.mode,
            from_inputs=first[: self.input_size],
            recurrent=first[self.input_size :],
            bias=bias,
            following=following,
            activation=ACTIVATIONS[spec.activation],
            dropout=spec.backbone_dropout if self.training else 0.0,
            pure=pure,
        )

    def __call__(
        self, x: mx.array, h: mx.array, timespan: float | mx.array = 1.0
    ) -> tuple[mx.array, mx.array]:
        """One step, see the class; timespan is a float, (B,) or (B, 1)."""
        h = one_step(self, x, h, timespan)
        return h, h

    def _heads(self, timespan: float | None) -> list[tuple[mx.array, mx.array]]:
        """Weight (N, sources) and bias (N,) of each head of `FusedCfC`."""
        heads = []
        for name in self.spec.heads:
            weight = self[name].weight
            if self.spec.is_masked(name):
                weight = mx.where(self.sparsity_mask != 0, weight, 0.0)
            heads.append((weight, self[name].bias))
        if len(heads) == 1 or timespan is None:
            return heads
        *ff, a, b = heads
        return [*ff, (a[0] * timespan + b[0], a[1] * timespan + b[1])]


def one_step(cell: Any, x: mx.array, h: mx.array, timespan: float | mx.array) -> mx.array:
    """One step of any cell by its fused weights: x (B, I), h (B, N) → h' (B, N)."""
    timespan = check_step(x, h, timespan, cell.input_size, cell.state_size)
    if isinstance(timespan, mx.array):
        timespan = timespan.astype(x.dtype)
    fused = cell.fuse(None if isinstance(timespan, mx.array) else timespan)
    return fused.step(fused.project(x), h, timespan)
