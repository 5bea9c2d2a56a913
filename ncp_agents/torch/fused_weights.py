"""A CfC cell's weights as a scan reads them: fewer, wider, with the constants folded in.

Everything here is exact algebra on the weights, done once a sequence under autograd:

- all heads are one matrix; with a constant timespan `time_a * dt + time_b` is one head;
- `tanh(z) = 2 sigmoid(2 z) - 1`, so one sigmoid serves all heads (it costs a sixth of a tanh);
- the constants of the backbone's activation fold into the neighbouring weights.

Head order: [f1, f2, gate] with a constant timespan, [a, f1, f2, b] with a varying one, where
gate = sigmoid(a * dt + b); pure mode has the single head [f].

Axes: N neurons, n neurons of one layer, D heads, U units of a layer of the backbone, I inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from ncp_agents.layers.checks import Mode
from ncp_agents.torch.activations import Activation
from ncp_agents.torch.cfc_cell import CfCCell, absolute
from ncp_agents.torch.heads import Head
from ncp_agents.torch.wired_cfc_cell import WiredCfCCell


class Sizes(NamedTuple):
    """What a kernel takes besides tensors."""

    layer_sizes: list[int]
    depth: int
    """Layers of the backbone."""
    no_gate: bool
    relu: bool
    """Whether the backbone's layers apply ReLU, else the logistic function."""


@dataclass(frozen=True)
class FusedWeights:
    """A step as a chain of linear maps.

    Without a backbone, map l gives the heads of layer l, (D n), from layer l - 1, now, and layer l,
    one step earlier. With one, its layers come first, the last map gives all heads, (D N), and the
    first reads the state, one step earlier. In both cases the first map also reads the inputs.
    """

    mode: Mode
    layer_sizes: list[int]
    linears: list[tuple[Tensor, Tensor]]
    """Weight (outputs, sources), where the inputs come before the state, and bias (outputs)."""
    depth: int
    """Layers of the backbone."""
    activation: Activation
    """Of the backbone."""
    pure: list[tuple[Tensor, Tensor]]
    """|w_tau| (n,) and A (n,) of each layer in pure mode."""
    packed: dict[str, Any] = field(default_factory=dict, repr=False)
    """What kernels made of these weights, for their next call without gradient."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision of the weights."""
        return self.linears[0][0].dtype

    @property
    def tensors(self) -> list[Tensor]:
        """Return weight and bias of each map, one after another."""
        return [tensor for pair in self.linears for tensor in pair]

    @property
    def sizes(self) -> Sizes:
        """Return what a kernel takes besides these tensors."""
        relu = self.activation.kernel == "relu"
        return Sizes(self.layer_sizes, self.depth, self.mode == "no_gate", relu)


def fuse(cell: CfCCell | WiredCfCCell, timespan: float | None) -> FusedWeights:
    """Return the fused weights of a cell, those of half precision in single precision.

    Args:
        cell: dense or wired.
        timespan: the constant one in steps, None if it varies.
    """
    cells = cell.cells if isinstance(cell, WiredCfCCell) else [cell]
    first = cells[0]
    inner, outer, offset = first.activation.inner, first.activation.outer, first.activation.offset
    linears = [  # weights may come in any order of memory, and the products keep it
        (inner * weight.contiguous(), inner * bias.contiguous())
        for weight, bias in (cast(Head, layer).tensors() for layer in first.backbone.values())
    ]
    depth = len(linears)
    linears += [_heads(each, timespan) for each in cells]
    if depth:  # the activation's constants, into the map that reads it
        linears[1:] = [
            (outer * weight, bias + offset * weight.sum(1)) for weight, bias in linears[1:]
        ]
    pure = []
    if first.mode == "pure":
        pure = [(absolute(each.w_tau[0]), each.A[0]) for each in cells]
    if linears[0][0].dtype.itemsize < 4:
        linears = [(weight.float(), bias.float()) for weight, bias in linears]
        pure = [(w_tau.float(), amplitude.float()) for w_tau, amplitude in pure]
    sizes = [each.hidden_size for each in cells]
    return FusedWeights(first.mode, sizes, linears, depth, first.activation, pure)


def _heads(cell: CfCCell, timespan: float | None) -> tuple[Tensor, Tensor]:
    """Return weight (D n, inputs) and bias (D n), scaled for one sigmoid over all heads."""
    weights, biases = zip(*cell.heads(), strict=True)
    return _merged(weights, timespan), _merged(biases, timespan)


def _merged(heads: tuple[Tensor, ...], timespan: float | None) -> Tensor:
    if len(heads) == 1:
        return heads[0]
    f1, f2, a, b = heads
    if timespan is None:
        return torch.cat([a, 2 * f1, 2 * f2, b])
    return torch.cat([2 * f1, 2 * f2, torch.add(b, a, alpha=timespan)])
