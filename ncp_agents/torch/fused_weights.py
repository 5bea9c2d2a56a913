"""A CfC cell's weights in the form the scan wants: fewer, wider, with the constants folded in.

Everything here is exact algebra on the weights, done once a sequence under autograd:

- all heads are one matrix; with a constant timespan `time_a * dt + time_b` is one head;
- `tanh(z) = 2 sigmoid(2 z) - 1`, so one sigmoid serves all heads (it costs a sixth of a tanh);
- where that saves operations, the scan keeps `p = (h + 1) / 2`, a plain interpolation of sigmoids,
  and the change of variable `h = 2 p - 1` folds into the recurrent weights and the bias (`for_p`);
- the layers of a wired cell can become one block matrix (see `scan.py` for how time is skewed).

Head order: [f1, f2, gate] with a constant timespan, [a, f1, f2, b] with a varying one, where
gate = sigmoid(a * dt + b); pure mode has the single head [f], and keeps h instead of p.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ncp_agents.layers.checks import Mode
from ncp_agents.torch.activations import Activation
from ncp_agents.torch.cfc_cell import CfCCell, absolute
from ncp_agents.torch.heads import Head
from ncp_agents.torch.wired_cfc_cell import WiredCfCCell


@dataclass(frozen=True)
class FusedWeights:
    """A step as a chain of linear maps. Axes: N neurons, n neurons of one layer, D heads, U units
    of a layer of the backbone.

    Without a backbone, map l gives the heads of layer l, (D n), from layer l - 1, now, and layer l,
    one step earlier. With one, its layers come first, the last map gives all heads, (D N), and the
    first reads the state, one step earlier. In both cases the first map also reads the inputs.
    """

    mode: Mode
    layer_sizes: list[int]
    linears: list[tuple[Tensor, Tensor]]
    """Weight (outputs, sources), where the inputs come before the state, and bias (outputs), all
    contiguous."""
    depth: int
    """Layers of the backbone."""
    activation: Activation
    """Of the backbone."""
    pure: tuple[Tensor, Tensor] | None
    """|w_tau| (N,) and A (N,) in pure mode."""
    packed: dict[str, Any] = field(default_factory=dict, repr=False)
    """What kernels made of these weights, for their next call without gradient."""

    @property
    def units(self) -> int:
        return sum(self.layer_sizes)

    @property
    def dtype(self) -> torch.dtype:
        return self.linears[0][0].dtype

    def single(self) -> FusedWeights:
        """The same in single precision."""
        linears = [(weight.float(), bias.float()) for weight, bias in self.linears]
        pure = None if self.pure is None else (self.pure[0].float(), self.pure[1].float())
        return replace(self, linears=linears, pure=pure)

    @property
    def inputs(self) -> int:
        return self.linears[0][0].shape[1] - self.layer_sizes[0]

    @property
    def first(self) -> Tensor:
        """(D n, I) of the first layer, or (U, I) with a backbone: from the inputs."""
        return self.linears[0][0][:, : self.inputs]


@dataclass(frozen=True)
class Blocks:
    """The same as one matrix from the whole state to all heads, or to the backbone."""

    recurrent: Tensor
    """(N, D N), or (N, U) with a backbone."""
    bias: Tensor
    """(D N,), or (U,) with a backbone."""

    @classmethod
    def of(cls, linears: list[tuple[Tensor, Tensor]], layer_sizes: list[int], depth: int) -> Blocks:
        """The arguments are as in `FusedWeights`. The state holds the layers in order, so the
        sources of a layer are neighbours in it, and its weights are one padded slice of all.
        """
        weight, bias = linears[0]
        inputs = weight.shape[1] - layer_sizes[0]
        if depth:
            return cls(weight[:, inputs:].T, bias)
        units, parts, biases = sum(layer_sizes), [], []
        for where, size, (weight, bias) in zip(
            layers(layer_sizes), layer_sizes, linears, strict=True
        ):
            if where.start == 0:
                weight = weight[:, inputs:]
            before = where.stop - weight.shape[1]
            parts.append(F.pad(weight.unflatten(0, (-1, size)), (before, units - where.stop)))
            biases.append(bias.unflatten(0, (-1, size)))
        return cls(torch.cat(parts, 1).flatten(0, 1).T, torch.cat(biases, 1).flatten())

    def for_p(self) -> Blocks:
        """For a scan that keeps p = (h + 1) / 2 instead of h."""
        return Blocks(2 * self.recurrent, self.bias - self.recurrent.sum(0))


def layers(sizes: list[int]) -> list[slice]:
    """Where each layer stands in the state."""
    ends = [*accumulate(sizes)]
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def fuse(cell: CfCCell | WiredCfCCell, timespan: float | None) -> FusedWeights:
    """The fused weights of a cell; `timespan` is the constant one in steps, None if it varies.

    Those of half precision in single precision: there p = (h + 1) / 2 has too few digits near 1/2.
    """
    if isinstance(cell, WiredCfCCell):
        weights = _fuse_chain(cell.cells, timespan)
    elif cell.backbone_layers:
        weights = _fuse_backbone(cell, timespan)
    else:
        weights = _fuse_chain([cell], timespan)
    return weights.single() if weights.dtype.itemsize < 4 else weights


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
    linears = []
    for cell in cells:
        weight, bias = _stacked_heads(cell, timespan)
        linears.append((weight.flatten(0, 1), bias.flatten()))
    pure = None
    if cells[0].mode == "pure":
        pure = (
            torch.cat([absolute(cell.w_tau[0]) for cell in cells]),
            torch.cat([cell.A[0] for cell in cells]),
        )
    sizes = [cell.hidden_size for cell in cells]
    return FusedWeights(cells[0].mode, sizes, linears, 0, cells[0].activation, pure)


def _fuse_backbone(cell: CfCCell, timespan: float | None) -> FusedWeights:
    activation = cell.activation
    backbone = [cast(Head, layer) for layer in cell.backbone.values()]
    linears = [  # weights may come in any order of memory, and the products keep it
        (activation.inner * weight.contiguous(), activation.inner * bias.contiguous())
        for weight, bias in (layer.tensors() for layer in backbone)
    ]
    weight, bias = _stacked_heads(cell, timespan)
    linears.append((weight.flatten(0, 1), bias.flatten()))
    linears[1:] = [  # phi's constants, into the map that reads it
        (activation.outer * weight, bias + activation.offset * weight.sum(1))
        for weight, bias in linears[1:]
    ]
    return FusedWeights(
        mode=cell.mode,
        layer_sizes=[cell.hidden_size],
        linears=linears,
        depth=len(backbone),
        activation=activation,
        pure=(absolute(cell.w_tau[0]), cell.A[0]) if cell.mode == "pure" else None,
    )
