"""The CfC kernel of NVIDIA and AMD GPUs, in Triton: a whole sequence in one launch.

A program takes ROWS rows of the batch through all steps and keeps their state and the recurrent
weights on chip, so that a step costs one latency of a matrix product and nothing is launched again.

Time is skewed: at wave k, layer 0 is at step k, layer 1 at step k - 1, layer 2 at step k - 2. All
of them read only what wave k - 1 left, so one block matrix product advances every layer, and a
circuit of L layers takes T + L - 1 waves. A layer that has not begun, or is done, keeps its state.
"""

# pyright: reportArgumentType=false
# Triton takes plain numbers where its annotations say constexpr.
from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from ncp_agents.torch.fused_weights import FusedWeights
from ncp_agents.torch.kernels.arrays import heads_of

ROWS = 16  # the fewest that tl.dot takes
MAX_NEURONS = 64  # three heads of 64 x 64 weights, in float32, stay on chip


def fits(weights: FusedWeights) -> bool:
    """Return whether the kernel takes these weights."""
    return not weights.depth and sum(weights.layer_sizes) <= MAX_NEURONS


def forward(
    x: Tensor,
    h: Tensor,
    timespans: Tensor | None,
    resets: Tensor | None,
    weights: Sequence[Tensor],
    layer_sizes: list[int],
    depth: int,
    no_gate: bool,
    relu: bool,
    keep: bool,
) -> tuple[Tensor, ...]:
    """Return states, activity, sources and hidden, as the operator `cfc`; all time first."""
    x, heads = x.contiguous(), heads_of(timespans)
    steps, rows, inputs = x.shape
    neurons = h.shape[1]
    if resets is not None:  # also a state that is NaN
        h = h.masked_fill(resets[0][:, None], 0.0)
    blocks = Blocks.of(weights, layer_sizes)
    states = x.new_empty(steps, rows, neurons)
    activity = x.new_empty(steps, rows, heads * neurons) if keep else None
    _forward[(triton.cdiv(rows, ROWS),)](
        F.linear(x, weights[0][:, :inputs], weights[1]),
        h.contiguous(),
        blocks.recurrent.contiguous(),
        blocks.bias,
        None if timespans is None else timespans.contiguous(),
        None if resets is None else resets.contiguous(),
        _layer_table(layer_sizes, heads, h.device),
        states,
        activity,
        steps,
        rows,
        neurons,
        first=layer_sizes[0],
        LAYERS=len(layer_sizes),
        HEADS=heads,
        NO_GATE=no_gate,
        ROWS=ROWS,
        NEURONS=_padded(neurons),
    )
    if activity is None:
        return states, *(x.new_empty(0) for _ in range(3))
    before = torch.cat([h[None], states[:-1]])
    if resets is not None:
        before = before.masked_fill(resets[..., None], 0.0)
    layers = _slices(layer_sizes)
    sources = [before[..., layers[0]]]
    for above, own in pairwise(layers):
        sources += [states[..., above], before[..., own]]
    return states, activity, torch.cat(sources, -1), x.new_empty(0)


def backward(
    dstates: Tensor,
    x: Tensor,
    h: Tensor,
    timespans: Tensor | None,
    resets: Tensor | None,
    weights: Sequence[Tensor],
    layer_sizes: list[int],
    depth: int,
    no_gate: bool,
    relu: bool,
    states: Tensor,
    activity: Tensor,
    hidden: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients, as the operator `cfc_backward`."""
    steps, rows, neurons = states.shape
    heads = heads_of(timespans)
    dheads, dh = torch.empty_like(activity), torch.empty_like(h)
    # Layers reach a step at different waves, and add up.
    dtimespans = None if timespans is None else torch.zeros_like(timespans.contiguous())
    _backward[(triton.cdiv(rows, ROWS),)](
        Blocks.of(weights, layer_sizes).recurrent.contiguous(),
        None if timespans is None else timespans.contiguous(),
        None if resets is None else resets.contiguous(),
        _layer_table(layer_sizes, heads, states.device),
        activity,
        dstates.contiguous(),
        dheads,
        dh,
        dtimespans,
        steps,
        rows,
        neurons,
        LAYERS=len(layer_sizes),
        HEADS=heads,
        NO_GATE=no_gate,
        ROWS=ROWS,
        NEURONS=_padded(neurons),
    )
    dtimespans = h.new_empty(0) if dtimespans is None else dtimespans
    return dheads, torch.empty_like(hidden), dh, dtimespans


class Blocks(NamedTuple):
    """The linear maps of a chain of layers as one matrix from the whole state to all heads."""

    recurrent: Tensor
    """(N, D N)"""
    bias: Tensor
    """(D N,)"""

    @classmethod
    def of(cls, weights: Sequence[Tensor], layer_sizes: list[int]) -> Blocks:
        """Return the blocks of the weights that the operator takes.

        The state holds the layers in order, so the sources of a layer are neighbours in it, and its
        weights are one padded slice of all.
        """
        units, parts, biases = sum(layer_sizes), [], []
        for index, (own, size) in enumerate(zip(_slices(layer_sizes), layer_sizes, strict=True)):
            weight, bias = weights[2 * index], weights[2 * index + 1]
            if index == 0:
                weight = weight[:, weight.shape[1] - size :]
            before = own.stop - weight.shape[1]
            parts.append(F.pad(weight.unflatten(0, (-1, size)), (before, units - own.stop)))
            biases.append(bias.unflatten(0, (-1, size)))
        return cls(torch.cat(parts, 1).flatten(0, 1).T, torch.cat(biases, 1).flatten())


def _slices(sizes: list[int]) -> list[slice]:
    """Return where each layer is in the state."""
    ends = accumulate(sizes)
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _padded(neurons: int) -> int:
    return max(16, triton.next_power_of_2(neurons))


def _layer_table(layer_sizes: list[int], heads: int, device: torch.device) -> Tensor:
    """Return for every neuron its layer, that layer's size, and its place in `activity`, (3, N).

    The place is that of head 0 in a row.
    """
    table = [
        (index, size, heads * own.start + j)
        for index, (own, size) in enumerate(zip(_slices(layer_sizes), layer_sizes, strict=True))
        for j in range(size)
    ]
    return torch.tensor(table, dtype=torch.int32, device=device).T.contiguous()


@triton.jit
def _logistic(z):
    return 1.0 / (1.0 + tl.exp(-z))


@triton.jit
def _lanes(rows, neurons, ROWS: tl.constexpr, NEURONS: tl.constexpr):
    """This program's rows, the neurons, and which neurons, and which of both, there are."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    n = tl.arange(0, NEURONS)
    inside = n < neurons
    return row, n, inside, (row < rows)[:, None] & inside[None, :]


@triton.jit
def _layers(table, neurons, n, inside):
    """Each neuron's column of `_layer_table`."""
    layer = tl.load(table + n, mask=inside, other=0)
    size = tl.load(table + neurons + n, mask=inside, other=0)
    return layer, size, tl.load(table + 2 * neurons + n, mask=inside, other=0)


@triton.jit
def _head(recurrent, head, neurons, layer, source, inside, HEADS: tl.constexpr):
    """The weights (sources, targets) of one head, and which of them stay within a layer."""
    weights = tl.load(
        recurrent + source[:, None] * (HEADS * neurons) + head * neurons + source[None, :],
        mask=inside[:, None] & inside[None, :],
        other=0.0,
    )
    return weights, layer[:, None] == layer[None, :]


@triton.jit
def _forward(
    drive,
    start,
    recurrent,
    bias,
    timespans,
    resets,
    table,
    states,
    activity,
    steps,
    rows,
    neurons,
    first,
    LAYERS: tl.constexpr,
    HEADS: tl.constexpr,
    NO_GATE: tl.constexpr,
    ROWS: tl.constexpr,
    NEURONS: tl.constexpr,
):
    row, n, inside, both = _lanes(rows, neurons, ROWS, NEURONS)
    layer, size, place = _layers(table, neurons, n, inside)
    is_first = both & (layer == 0)[None, :]

    w1, within = _head(recurrent, HEADS - 3, neurons, layer, n, inside, HEADS)
    w2, _ = _head(recurrent, HEADS - 2, neurons, layer, n, inside, HEADS)
    w3, _ = _head(recurrent, HEADS - 1, neurons, layer, n, inside, HEADS)
    b1 = tl.load(bias + (HEADS - 3) * neurons + n, mask=inside & (layer > 0), other=0.0)
    b2 = tl.load(bias + (HEADS - 2) * neurons + n, mask=inside & (layer > 0), other=0.0)
    b3 = tl.load(bias + (HEADS - 1) * neurons + n, mask=inside & (layer > 0), other=0.0)
    w0, b0 = w1, b1
    if HEADS == 4:
        w0, _ = _head(recurrent, 0, neurons, layer, n, inside, HEADS)
        b0 = tl.load(bias + n, mask=inside & (layer > 0), other=0.0)

    h = tl.load(start + row[:, None] * neurons + n[None, :], mask=both, other=0.0)
    for wave in range(steps + LAYERS - 1):
        step = wave - layer
        active = both & ((step >= 0) & (step < steps))[None, :]
        at = step[None, :].to(tl.int64) * rows + row[:, None]  # row of a (T * B, …) array
        begins = is_first & active
        u = drive + at * (HEADS * first) + n[None, :]
        z1 = b1[None, :] + tl.load(u + (HEADS - 3) * first, mask=begins, other=0.0)
        z2 = b2[None, :] + tl.load(u + (HEADS - 2) * first, mask=begins, other=0.0)
        z3 = b3[None, :] + tl.load(u + (HEADS - 1) * first, mask=begins, other=0.0)
        z0 = z1
        if HEADS == 4:
            z0 = b0[None, :] + tl.load(u, mask=begins, other=0.0)
        if resets is None:
            z1 = tl.dot(h, w1, acc=z1, input_precision="ieee")
            z2 = tl.dot(h, w2, acc=z2, input_precision="ieee")
            z3 = tl.dot(h, w3, acc=z3, input_precision="ieee")
            if HEADS == 4:
                z0 = tl.dot(h, w0, acc=z0, input_precision="ieee")
        else:
            # A reset clears the layer's own state, not what the layer before it did in this step.
            reset = tl.load(resets + at, mask=active, other=0) != 0
            own = tl.where(reset, 0.0, h)
            z1 = tl.dot(own, tl.where(within, w1, 0.0), acc=z1, input_precision="ieee")
            z2 = tl.dot(own, tl.where(within, w2, 0.0), acc=z2, input_precision="ieee")
            z3 = tl.dot(own, tl.where(within, w3, 0.0), acc=z3, input_precision="ieee")
            z1 = tl.dot(h, tl.where(within, 0.0, w1), acc=z1, input_precision="ieee")
            z2 = tl.dot(h, tl.where(within, 0.0, w2), acc=z2, input_precision="ieee")
            z3 = tl.dot(h, tl.where(within, 0.0, w3), acc=z3, input_precision="ieee")
            if HEADS == 4:
                z0 = tl.dot(own, tl.where(within, w0, 0.0), acc=z0, input_precision="ieee")
                z0 = tl.dot(h, tl.where(within, 0.0, w0), acc=z0, input_precision="ieee")
        if HEADS == 4:
            z3 += z0 * tl.load(timespans + at, mask=active, other=0.0)
        s1, s2, gate = _logistic(z1), _logistic(z2), _logistic(z3)
        if NO_GATE:
            new = 2.0 * (s1 + gate * (s2 - 0.5)) - 1.0
        else:
            new = 2.0 * (s1 + gate * (s2 - s1)) - 1.0
        h = tl.where(active, new, h)
        tl.store(states + at * neurons + n[None, :], h, mask=active)
        if activity is not None:
            to = activity + at * (HEADS * neurons) + place[None, :]
            tl.store(to + (HEADS - 3) * size[None, :], s1, mask=active)
            tl.store(to + (HEADS - 2) * size[None, :], s2, mask=active)
            tl.store(to + (HEADS - 1) * size[None, :], gate, mask=active)
            if HEADS == 4:
                tl.store(to, z0, mask=active)


@triton.jit
def _backward(
    recurrent,
    timespans,
    resets,
    table,
    activity,
    dstates,
    dheads,
    dstart,
    dtimespans,
    steps,
    rows,
    neurons,
    LAYERS: tl.constexpr,
    HEADS: tl.constexpr,
    NO_GATE: tl.constexpr,
    ROWS: tl.constexpr,
    NEURONS: tl.constexpr,
):
    row, n, inside, both = _lanes(rows, neurons, ROWS, NEURONS)
    layer, size, place = _layers(table, neurons, n, inside)

    w1, within = _head(recurrent, HEADS - 3, neurons, layer, n, inside, HEADS)
    w2, _ = _head(recurrent, HEADS - 2, neurons, layer, n, inside, HEADS)
    w3, _ = _head(recurrent, HEADS - 1, neurons, layer, n, inside, HEADS)
    w1, w2, w3, within = tl.trans(w1), tl.trans(w2), tl.trans(w3), tl.trans(within)
    w0 = w1
    if HEADS == 4:
        w0, _ = _head(recurrent, 0, neurons, layer, n, inside, HEADS)
        w0 = tl.trans(w0)

    dh = tl.zeros((ROWS, NEURONS), dtype=tl.float32)
    waves = steps + LAYERS - 1
    for back in range(waves):
        step = waves - 1 - back - layer
        active = both & ((step >= 0) & (step < steps))[None, :]
        at = step[None, :].to(tl.int64) * rows + row[:, None]
        dh += tl.load(dstates + at * neurons + n[None, :], mask=active, other=0.0)
        s = activity + at * (HEADS * neurons) + place[None, :]
        s1 = tl.load(s + (HEADS - 3) * size[None, :], mask=active, other=0.0)
        s2 = tl.load(s + (HEADS - 2) * size[None, :], mask=active, other=0.0)
        gate = tl.load(s + (HEADS - 1) * size[None, :], mask=active, other=0.0)
        grad = tl.where(active, 2.0 * dh, 0.0)
        if NO_GATE:
            d1 = grad * s1 * (1.0 - s1)
            d3 = grad * gate * (1.0 - gate) * (s2 - 0.5)
        else:
            d1 = grad * s1 * (1.0 - s1) * (1.0 - gate)
            d3 = grad * gate * (1.0 - gate) * (s2 - s1)
        d2 = grad * gate * s2 * (1.0 - s2)
        to = dheads + at * (HEADS * neurons) + place[None, :]
        tl.store(to + (HEADS - 3) * size[None, :], d1, mask=active)
        tl.store(to + (HEADS - 2) * size[None, :], d2, mask=active)
        tl.store(to + (HEADS - 1) * size[None, :], d3, mask=active)
        d0 = d3
        if HEADS == 4:
            d0 = d3 * tl.load(timespans + at, mask=active, other=0.0)
            tl.store(to, d0, mask=active)
            tl.atomic_add(dtimespans + at, d3 * tl.load(s, mask=active, other=0.0), mask=active)

        dh = tl.where(active, 0.0, dh)
        if resets is None:
            dh = tl.dot(d1, w1, acc=dh, input_precision="ieee")
            dh = tl.dot(d2, w2, acc=dh, input_precision="ieee")
            dh = tl.dot(d3, w3, acc=dh, input_precision="ieee")
            if HEADS == 4:
                dh = tl.dot(d0, w0, acc=dh, input_precision="ieee")
        else:
            reset = tl.load(resets + at, mask=active, other=0) != 0
            own = tl.dot(d1, tl.where(within, w1, 0.0), input_precision="ieee")
            own = tl.dot(d2, tl.where(within, w2, 0.0), acc=own, input_precision="ieee")
            own = tl.dot(d3, tl.where(within, w3, 0.0), acc=own, input_precision="ieee")
            dh = tl.dot(d1, tl.where(within, 0.0, w1), acc=dh, input_precision="ieee")
            dh = tl.dot(d2, tl.where(within, 0.0, w2), acc=dh, input_precision="ieee")
            dh = tl.dot(d3, tl.where(within, 0.0, w3), acc=dh, input_precision="ieee")
            if HEADS == 4:
                own = tl.dot(d0, tl.where(within, w0, 0.0), acc=own, input_precision="ieee")
                dh = tl.dot(d0, tl.where(within, 0.0, w0), acc=dh, input_precision="ieee")
            dh += tl.where(reset, 0.0, own)
    tl.store(dstart + row[:, None] * neurons + n[None, :], dh, mask=both)
