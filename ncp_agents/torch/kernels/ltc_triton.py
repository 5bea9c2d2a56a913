"""The LTC kernel of NVIDIA and AMD GPUs, in Triton: a whole sequence in one launch.

A program takes one row of the batch through all steps and unfolds, with every possible synapse
between two neurons in registers: those that do not exist weigh nothing. What the sensory synapses
do is worked out before, by plain torch, for it does not wait for the step before.

Axes: B batch, T steps, N neurons, U unfolds.
"""

# pyright: reportArgumentType=false, reportCallIssue=false
# Triton takes plain numbers where its annotations say constexpr, and options of its launch.
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ncp_agents.torch.kernels.cfc_triton import _logistic, _padded
from ncp_agents.torch.kernels.operators import register
from ncp_agents.torch.ltc_cell import Membrane, Synapses

MAX_NEURONS = 64  # four values of 64 x 64 synapses, and their gradients, stay on chip
WARPS = 16


def fits(v: Tensor) -> bool:
    """Return whether the kernel takes this state."""
    return v.shape[1] <= MAX_NEURONS


def run(
    membrane: Membrane, x: Tensor, v: Tensor, timespans: float | Tensor, resets: Tensor | None
) -> Tensor:
    """Return v after every step, (T, B, N); the arguments are those of `ltc.run`."""
    conductance, pull = membrane.base(x)
    if not isinstance(timespans, Tensor):
        timespans = v.new_full(x.shape[:2], timespans)
    states, _ = ltc_unfold(
        *(conductance, pull, v, timespans, resets, membrane.cm),
        *(_dense(membrane.internal), membrane.unfolds),
    )
    return states


def _dense(synapses: Synapses) -> Tensor:
    """Return slope, offset, weight and pull from each neuron to each, (4, N, N).

    Zero where no synapse is.
    """
    values = torch.stack([synapses.slope, synapses.offset, synapses.weight, synapses.pull])
    dense = values.new_zeros(4, synapses.neurons, synapses.neurons)
    return dense.index_put(
        (torch.arange(4, device=values.device)[:, None], synapses.source, synapses.target), values
    )


def forward(
    conductance: Tensor,
    pull: Tensor,
    v: Tensor,
    timespans: Tensor,
    resets: Tensor | None,
    cm: Tensor,
    synapses: Tensor,
    unfolds: int,
) -> tuple[Tensor, Tensor]:
    """Return v after every step, and before each unfold, as the operator `ltc_unfold`."""
    steps, rows, neurons = conductance.shape
    states = v.new_empty(steps, rows, neurons)
    unfolded = v.new_empty(steps, unfolds, rows, neurons)
    _forward[(rows,)](
        conductance.contiguous(),
        pull.contiguous(),
        v.contiguous(),
        timespans.contiguous(),
        None if resets is None else resets.contiguous(),
        cm.contiguous(),
        synapses.contiguous(),
        states,
        unfolded,
        steps,
        rows,
        neurons,
        UNFOLDS=unfolds,
        NEURONS=_padded(neurons),
        num_warps=WARPS,
    )
    return states, unfolded


def backward(
    dstates: Tensor,
    conductance: Tensor,
    pull: Tensor,
    timespans: Tensor,
    resets: Tensor | None,
    cm: Tensor,
    synapses: Tensor,
    unfolded: Tensor,
) -> tuple[Tensor, ...]:
    """Return the gradients, as the operator `ltc_unfold_backward`."""
    steps, rows, neurons = conductance.shape
    dconductance, dpull = (torch.empty_like(dstates.contiguous()) for _ in range(2))
    dv, dtimespans = dstates.new_empty(rows, neurons), dstates.new_empty(steps, rows)
    # By row, so that the sum is always the same.
    dcm, dsynapses = cm.new_empty(rows, neurons), cm.new_empty(rows, 4, neurons, neurons)
    _backward[(rows,)](
        conductance.contiguous(),
        pull.contiguous(),
        timespans.contiguous(),
        None if resets is None else resets.contiguous(),
        cm.contiguous(),
        synapses.contiguous(),
        unfolded,
        dstates.contiguous(),
        dconductance,
        dpull,
        dv,
        dtimespans,
        dcm,
        dsynapses,
        steps,
        rows,
        neurons,
        UNFOLDS=unfolded.shape[1],
        NEURONS=_padded(neurons),
        num_warps=WARPS,
    )
    return dconductance, dpull, dv, dtimespans, dcm.sum(0), dsynapses.sum(0)


def _fake(conductance: Tensor, pull: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    steps, rows, neurons = conductance.shape
    return v.new_empty(steps, rows, neurons), v.new_empty(steps, rest[-1], rows, neurons)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    conductance, pull, _, *others, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(conductance, pull, *others, output[1])


def _gradients(ctx: Any, dstates: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    if dstates is None:
        dstates = torch.zeros_like(ctx.saved_tensors[0])
    *grads, dcm, dsynapses = ltc_unfold_backward(dstates, *ctx.saved_tensors)
    return *grads, None, dcm, dsynapses, None


def _fake_backward(
    dstates: Tensor, conductance: Tensor, pull: Tensor, *rest: Any
) -> tuple[Tensor, ...]:
    timespans, _, cm, synapses, _ = rest
    steps, rows, neurons = conductance.shape
    whole = (steps, rows, neurons)
    shapes = (whole, whole, (rows, neurons), timespans.shape, cm.shape, synapses.shape)
    return tuple(dstates.new_empty(shape) for shape in shapes)


ltc_unfold_backward = register(
    "ltc_unfold_backward(Tensor dstates, Tensor conductance, Tensor pull, Tensor timespans, "
    "Tensor? resets, Tensor cm, Tensor synapses, Tensor unfolded) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    {"CUDA": backward},
    _fake_backward,
)
"""Gradients of conductance, pull, v, timespans, cm and synapses."""
ltc_unfold = register(
    "ltc_unfold(Tensor conductance, Tensor pull, Tensor v, Tensor timespans, Tensor? resets, "
    "Tensor cm, Tensor synapses, int unfolds) -> (Tensor, Tensor)",
    {"CUDA": forward},
    _fake,
    _gradients,
    _setup_context,
)
"""v after every step (T, B, N), and before each unfold (T, U, B, N).

Of conductance and pull of the sensory synapses and the leak (T, B, N), v (B, N), timespans (T, B),
cm (N,), and the neurons' synapses (4, N, N) as `_dense` gives them.
"""


@triton.jit
def _synapses(table, neurons, NEURONS: tl.constexpr):
    """slope, offset, weight and pull, (sources, targets) each, where they are, and which exist."""
    n = tl.arange(0, NEURONS)
    place = n[:, None] * neurons + n[None, :]
    both = (n < neurons)[:, None] & (n < neurons)[None, :]
    size = neurons * neurons
    slope = tl.load(table + place, mask=both, other=0.0)
    offset = tl.load(table + size + place, mask=both, other=0.0)
    weight = tl.load(table + 2 * size + place, mask=both, other=0.0)
    pull = tl.load(table + 3 * size + place, mask=both, other=0.0)
    return slope, offset, weight, pull, place, both


@triton.jit
def _forward(
    conductances,
    pulls,
    start,
    timespans,
    resets,
    cms,
    table,
    states,
    unfolded,
    steps,
    rows,
    neurons,
    UNFOLDS: tl.constexpr,
    NEURONS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, NEURONS)
    inside = n < neurons
    slope, offset, weight, reversal, _, _ = _synapses(table, neurons, NEURONS)
    cm = tl.load(cms + n, mask=inside, other=1.0)
    v = tl.load(start + row * neurons + n, mask=inside, other=0.0)
    for t in range(steps):
        at = t * rows + row
        if resets is not None:
            v = tl.where(tl.load(resets + at) != 0, 0.0, v)
        base_conductance = tl.load(conductances + at * neurons + n, mask=inside, other=0.0)
        base_pull = tl.load(pulls + at * neurons + n, mask=inside, other=0.0)
        dt = tl.load(timespans + at) / UNFOLDS
        for u in range(UNFOLDS):
            place = ((t * UNFOLDS + u) * rows + row) * neurons + n
            tl.store(unfolded + place, v, mask=inside)
            act = _logistic(v[:, None] * slope - offset)
            conductance = base_conductance + tl.sum(act * weight, 0)
            pull = base_pull + tl.sum(act * reversal, 0)
            divisor = tl.where(dt > 0, cm + dt * conductance, 1.0)
            v += dt * (pull - conductance * v) / divisor
        tl.store(states + at * neurons + n, v, mask=inside)


@triton.jit
def _backward(
    conductances,
    pulls,
    timespans,
    resets,
    cms,
    table,
    unfolded,
    dstates,
    dconductances,
    dpulls,
    dstart,
    dtimespans,
    dcms,
    dtable,
    steps,
    rows,
    neurons,
    UNFOLDS: tl.constexpr,
    NEURONS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, NEURONS)
    inside = n < neurons
    slope, offset, weight, reversal, place, both = _synapses(table, neurons, NEURONS)
    cm = tl.load(cms + n, mask=inside, other=1.0)
    dv = tl.zeros((NEURONS,), tl.float32)
    dcm = tl.zeros((NEURONS,), tl.float32)
    dslope = tl.zeros((NEURONS, NEURONS), tl.float32)
    doffset = tl.zeros((NEURONS, NEURONS), tl.float32)
    dweight = tl.zeros((NEURONS, NEURONS), tl.float32)
    dreversal = tl.zeros((NEURONS, NEURONS), tl.float32)
    for back in range(steps):
        t = steps - 1 - back
        at = t * rows + row
        base_conductance = tl.load(conductances + at * neurons + n, mask=inside, other=0.0)
        base_pull = tl.load(pulls + at * neurons + n, mask=inside, other=0.0)
        dt = tl.load(timespans + at) / UNFOLDS
        moves = dt > 0
        dv += tl.load(dstates + at * neurons + n, mask=inside, other=0.0)
        dbase_conductance = tl.zeros((NEURONS,), tl.float32)
        dbase_pull = tl.zeros((NEURONS,), tl.float32)
        dtimestep = tl.zeros((NEURONS,), tl.float32)
        for back_u in range(UNFOLDS):
            u = UNFOLDS - 1 - back_u
            v = tl.load(
                unfolded + ((t * UNFOLDS + u) * rows + row) * neurons + n, mask=inside, other=0.0
            )
            act = _logistic(v[:, None] * slope - offset)
            conductance = base_conductance + tl.sum(act * weight, 0)
            pull = base_pull + tl.sum(act * reversal, 0)
            divisor = tl.where(moves, cm + dt * conductance, 1.0)
            imbalance = pull - conductance * v
            moved = dt * imbalance / divisor
            share = dv / divisor
            dpull = share * dt
            dconductance = -dpull * (v + moved)
            dcm -= tl.where(moves, share * moved, 0.0)
            dtimestep += tl.where(moves, share * cm / divisor, dv / cm) * imbalance
            dbase_conductance += dconductance
            dbase_pull += dpull
            dact = dconductance[None, :] * weight + dpull[None, :] * reversal
            dargument = dact * act * (1.0 - act)
            dslope += dargument * v[:, None]
            doffset -= dargument
            dweight += dconductance[None, :] * act
            dreversal += dpull[None, :] * act
            kept = tl.where(moves, share * cm, dv)
            dv = kept + tl.sum(dargument * slope, 1)
        tl.store(dconductances + at * neurons + n, dbase_conductance, mask=inside)
        tl.store(dpulls + at * neurons + n, dbase_pull, mask=inside)
        tl.store(dtimespans + at, tl.sum(tl.where(inside, dtimestep, 0.0), 0) / UNFOLDS)
        if resets is not None:
            dv = tl.where(tl.load(resets + at) != 0, 0.0, dv)
    tl.store(dstart + row * neurons + n, dv, mask=inside)
    tl.store(dcms + row * neurons + n, dcm, mask=inside)
    size = neurons * neurons
    own = dtable + row * 4 * size + place
    tl.store(own, dslope, mask=both)
    tl.store(own + size, doffset, mask=both)
    tl.store(own + 2 * size, dweight, mask=both)
    tl.store(own + 3 * size, dreversal, mask=both)
