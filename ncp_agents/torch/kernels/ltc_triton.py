"""The LTC kernel of NVIDIA and AMD GPUs, in Triton: a whole sequence in one launch.

A program takes one row of the batch through all steps and unfolds, with every possible synapse
between two neurons in registers: those that do not exist weigh nothing. What the sensory synapses
do is worked out before, by plain torch, for it does not wait for the step before.

Axes: B batch, T steps, N neurons, U unfolds.
"""

# pyright: reportArgumentType=false, reportCallIssue=false
# Triton takes plain numbers where its annotations say constexpr, and options of its launch.
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ncp_agents.torch.autograd import written_by_hand
from ncp_agents.torch.kernels.cfc_triton import _logistic, _padded
from ncp_agents.torch.ltc_cell import Membrane, Synapses

MAX_NEURONS = 64  # four values of 64 x 64 synapses, and their gradients, stay on chip
WARPS = 16


def fits(membrane: Membrane, v: Tensor) -> bool:
    return v.shape[1] <= MAX_NEURONS


def run(
    membrane: Membrane, x: Tensor, v: Tensor, timespans: float | Tensor, resets: Tensor | None
) -> Tensor:
    """x (T, B, I), v (B, N), timespans a float or (T, B), resets (T, B) bool or None
    → v after every step, (T, B, N).
    """
    conductance, pull = membrane.base(x.to(v.dtype))
    if not isinstance(timespans, Tensor):
        timespans = v.new_full(x.shape[:2], timespans)
    states = LtcRecurrence.apply(
        membrane.unfolds,
        None if resets is None else resets.contiguous(),
        conductance.contiguous(),
        pull.contiguous(),
        v.contiguous(),
        timespans.contiguous(),
        membrane.cm,
        _dense(membrane.internal),
    )
    assert isinstance(states, Tensor)
    return states


def _dense(synapses: Synapses) -> Tensor:
    """Slope, offset, weight and pull from each neuron to each, (4, N, N); zero where no synapse
    is.
    """
    values = torch.stack([synapses.slope, synapses.offset, synapses.weight, synapses.pull])
    dense = values.new_zeros(4, synapses.neurons, synapses.neurons)
    dense[:, synapses.source, synapses.target] = values
    return dense


class LtcRecurrence(torch.autograd.Function):
    """Conductance and pull of the sensory synapses and the leak (T, B, N), v (B, N), timespans
    (T, B), cm (N,), the neurons' synapses as `_dense` gives them → v after every step (T, B, N).
    """

    @staticmethod
    def forward(ctx, unfolds: int, resets: Tensor | None, *tensors: Tensor) -> Tensor:
        conductance, pull, v, timespans, cm, synapses = tensors
        steps, rows, neurons = conductance.shape
        states = torch.empty_like(conductance)
        unfolded = v.new_empty(steps, unfolds, rows, neurons)
        _forward[(rows,)](
            conductance,
            pull,
            v,
            timespans,
            resets,
            cm,
            synapses,
            states,
            unfolded,
            steps,
            rows,
            neurons,
            UNFOLDS=unfolds,
            NEURONS=_padded(neurons),
            num_warps=WARPS,
        )
        ctx.unfolds = unfolds
        ctx.save_for_backward(resets, unfolded, *tensors)
        return states

    @staticmethod
    @written_by_hand
    def backward(ctx, *grad_outputs: Tensor):
        resets, unfolded, conductance, pull, v, timespans, cm, synapses = ctx.saved_tensors
        steps, rows, neurons = conductance.shape
        dconductance, dpull = torch.empty_like(conductance), torch.empty_like(pull)
        dv, dtimespans = torch.empty_like(v), torch.empty_like(timespans)
        # By row, so that the sum is always the same.
        dcm, dsynapses = cm.new_empty(rows, neurons), cm.new_empty(rows, 4, neurons, neurons)
        _backward[(rows,)](
            conductance,
            pull,
            timespans,
            resets,
            cm,
            synapses,
            unfolded,
            grad_outputs[0].contiguous(),
            dconductance,
            dpull,
            dv,
            dtimespans,
            dcm,
            dsynapses,
            steps,
            rows,
            neurons,
            UNFOLDS=ctx.unfolds,
            NEURONS=_padded(neurons),
            num_warps=WARPS,
        )
        return None, None, dconductance, dpull, dv, dtimespans, dcm.sum(0), dsynapses.sum(0)


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
            moved = dt * (pull - conductance * v) / divisor
            share = dv / divisor
            dpull = share * dt
            dconductance = -dpull * (v + moved)
            dcm -= tl.where(moves, share * moved, 0.0)
            dtimestep += tl.where(moves, share * moved * cm / tl.where(moves, dt, 1.0), 0.0)
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
