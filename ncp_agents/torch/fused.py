"""A CfC cell's weights in the form the scan wants: fewer, wider, with the constants folded in.

Everything here is exact algebra on the weights, done once a sequence under autograd:

- all heads are one matrix; with a constant timespan `time_a * dt + time_b` is one head;
- `tanh(z) = 2 sigmoid(2 z) - 1`, so one sigmoid serves all heads (it costs a sixth of a tanh);
- where that saves operations, the scan keeps `p = (h + 1) / 2`, a plain interpolation of sigmoids,
  and the change of variable `h = 2 p - 1` folds into the recurrent weights and the bias (`for_p`);
- the layers of a wired cell become one block matrix (see `scan.py` for how time is skewed).

Head order: [f1, f2, gate] with a constant timespan, [a, f1, f2, b] with a varying one, where
gate = sigmoid(a * dt + b); pure mode has the single head [f], and keeps h instead of p.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ncp_agents.torch.activations import Activation
from ncp_agents.torch.cfc_cell import CfCCell, Mode, absolute
from ncp_agents.torch.heads import Head
from ncp_agents.torch.wired_cfc_cell import WiredCfCCell


@dataclass(frozen=True)
class FusedWeights:
    """Axes: I inputs, N neurons, D heads, N0 neurons of the first layer, U backbone units."""

    mode: Mode
    layer_sizes: list[int]
    first: Tensor
    """(D * N0, I), or (U, I) with a backbone: from the inputs."""
    recurrent: Tensor
    """(N, D * N), or (N, U) with a backbone: from the state h, one step earlier."""
    bias: Tensor
    """(D * N,), or (U,) with a backbone."""
    hidden: list[tuple[Tensor, Tensor]]
    """After each backbone layer, the weight (inputs, outputs) and bias that follow it."""
    activation: Activation
    pure: tuple[Tensor, Tensor] | None
    """|w_tau| (N,) and A (N,) in pure mode."""

    @property
    def units(self) -> int:
        return sum(self.layer_sizes)

    @cached_property
    def first_bias(self) -> Tensor:
        """What the inputs' product adds: the bias of layer 0 (D * N0,), or of the backbone (U,)."""
        if self.hidden:
            return self.bias
        return self.bias.unflatten(0, (-1, self.units))[:, : self.layer_sizes[0]].flatten()

    def for_p(self) -> FusedWeights:
        """The same for a scan that keeps p = (h + 1) / 2 instead of h; pure mode keeps h."""
        if self.mode == "pure":
            return self
        bias = self.bias - self.recurrent.sum(0)
        return replace(self, recurrent=2 * self.recurrent, bias=bias)

    def to_p(self, h: Tensor) -> Tensor:
        return h if self.mode == "pure" else 0.5 * h + 0.5

    def from_p(self, p: Tensor) -> Tensor:
        return p if self.mode == "pure" else 2 * p - 1


def layers(sizes: list[int]) -> list[slice]:
    """Where each layer stands in the state."""
    ends = [*accumulate(sizes)]
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def fuse(cell: CfCCell | WiredCfCCell, timespan: float | None) -> FusedWeights:
    """The fused weights of a cell; `timespan` is the constant one in steps, None if it varies."""
    if isinstance(cell, WiredCfCCell):
        return _fuse_chain(cell.cells, timespan)
    if cell.backbone_layers:
        return _fuse_backbone(cell, timespan)
    return _fuse_chain([cell], timespan)


def _stacked_heads(cell: CfCCell, timespan: float | None) -> tuple[Tensor, Tensor]:
    """Weight (D, N, inputs) and bias (D, N), scaled for one sigmoid over all heads."""
    weights, biases = zip(*cell.heads(), strict=True)
    return _merge_heads(weights, timespan), _merge_heads(biases, timespan)


def _merge_heads(heads: tuple[Tensor, ...], timespan: float | None) -> Tensor:
    if len(heads) == 1:
        return heads[0][None]
    f1, f2, a, b = heads
    if timespan is None:
        return torch.stack([a, 2 * f1, 2 * f2, b])
    return torch.stack([2 * f1, 2 * f2, torch.add(b, a, alpha=timespan)])


def _fuse_chain(cells: list[CfCCell], timespan: float | None) -> FusedWeights:
    """Layers that read the one before them and themselves → one block matrix.

    The state holds the layers in order, so the sources of a layer, the layer before it and itself,
    are neighbours in it, and each layer's weights are one padded slice of the whole.
    """
    sizes = [cell.hidden_size for cell in cells]
    units, inputs = sum(sizes), cells[0].input_size
    blocks, biases = [], []
    start = 0
    for index, cell in enumerate(cells):
        weight, bias = _stacked_heads(cell, timespan)
        biases.append(bias)
        if index == 0:
            first, weight = weight[..., :inputs], weight[..., inputs:]
        before = start - (cell.input_size if index else 0)
        start += cell.hidden_size
        blocks.append(F.pad(weight, (before, units - start)))
    recurrent = torch.cat(blocks, 1).flatten(0, 1).T
    bias = torch.cat(biases, 1).flatten()
    cell = cells[0]
    pure = None
    if cell.mode == "pure":
        pure = (
            torch.cat([absolute(c.w_tau[0]) for c in cells]),
            torch.cat([c.A[0] for c in cells]),
        )
    return FusedWeights(
        mode=cell.mode,
        layer_sizes=sizes,
        first=first.flatten(0, 1),
        recurrent=recurrent,
        bias=bias,
        hidden=[],
        activation=cell.activation,
        pure=pure,
    )


def _fuse_backbone(cell: CfCCell, timespan: float | None) -> FusedWeights:
    activation = cell.activation
    backbone = [cast(Head, layer) for layer in cell.backbone.values()]
    weight = activation.inner * backbone[0].weight
    first, recurrent = weight[:, : cell.input_size], weight[:, cell.input_size :].T
    bias = activation.inner * backbone[0].bias
    heads, heads_bias = _stacked_heads(cell, timespan)
    following = [(activation.inner * b.weight, activation.inner * b.bias) for b in backbone[1:]]
    following.append((heads.flatten(0, 1), heads_bias.flatten()))
    hidden = [(activation.outer * w.T, b + activation.offset * w.sum(1)) for w, b in following]
    return FusedWeights(
        mode=cell.mode,
        layer_sizes=[cell.hidden_size],
        first=first,
        recurrent=recurrent,
        bias=bias,
        hidden=hidden,
        activation=activation,
        pure=(absolute(cell.w_tau[0]), cell.A[0]) if cell.mode == "pure" else None,
    )
