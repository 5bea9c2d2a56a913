"""LTC neurons over a sequence on the CPU: `ltc.c` as an operator.

Axes: B batch, T steps, I inputs, N neurons, U unfolds, S synapses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ncp_agents.torch.kernels.arrays import batch_first, in_order_of, new_like, ordered
from ncp_agents.torch.kernels.library import bytes_, ffi, floats, integers, parallel_rows
from ncp_agents.torch.kernels.operators import register
from ncp_agents.torch.kernels.pipeline import KernelCall
from ncp_agents.torch.ltc_cell import Membrane, Synapses

SIGMOID_OPS = 16  # multiplications that take as long as a sigmoid


def parameters(membrane: Membrane) -> tuple[Tensor, Tensor, Tensor]:
    """Return [cm, leak, rest] (3, N), then [slope, offset, weight, pull] (4, S) of the synapses.

    First of the sensory synapses, then of those between neurons.
    """
    neurons = torch.stack([membrane.cm, membrane.leak, membrane.rest])
    return neurons, _stacked(membrane.sensory), _stacked(membrane.internal)


def _stacked(synapses: Synapses) -> Tensor:
    return torch.stack([synapses.slope, synapses.offset, synapses.weight, synapses.pull])


def indices(membrane: Membrane) -> list[Tensor]:
    """Return sources (S,) and first synapse of each neuron (N + 1,) of both kinds, int32."""
    return [
        index
        for synapses in (membrane.sensory, membrane.internal)
        for index in (synapses.source.int(), _first(synapses))
    ]


def _first(synapses: Synapses) -> Tensor:
    neurons = torch.arange(synapses.neurons + 1, device=synapses.target.device)
    return torch.searchsorted(synapses.target, neurons, out_int32=True)


def step_call(membrane: Membrane, x: Tensor, states: Tensor) -> KernelCall:
    """Return one step of x (B, I) to states (B, N); its caller sets `start` and `resets`."""
    own, lists = parameters(membrane), indices(membrane)
    call = _call(
        *(x[None], states, None, None, *own, lists),
        *(1.0, membrane.unfolds, membrane.epsilon),
    )
    call.states = floats(states)
    return KernelCall("ltc_forward", call, (own, lists, x, states))


def forward(
    x: Tensor,
    v: Tensor,
    timespans: Tensor | None,
    resets: Tensor | None,
    neurons: Tensor,
    sensory: Tensor,
    internal: Tensor,
    indices: Sequence[Tensor],
    timespan: float,
    unfolds: int,
    epsilon: float,
    keep: bool,
) -> tuple[Tensor, ...]:
    """Return states, unfolded and divisors, as the operator `ltc`."""
    x, v, timespans, resets = _contiguous(x, v, timespans, resets)
    neurons, sensory, internal = (each.contiguous() for each in (neurons, sensory, internal))
    call = _call(
        *(x, v, timespans, resets, neurons, sensory, internal, indices),
        *(timespan, unfolds, epsilon),
    )
    states = new_like(x, v.shape[1])
    call.states = floats(states)
    kept = [_unfolded(x, v, unfolds) if keep else x.new_empty(0) for _ in range(2)]
    if keep:
        call.unfolded, call.divisors = map(floats, kept)
    _run("ltc_forward", call)
    return states, *kept


def backward(
    dstates: Tensor,
    x: Tensor,
    v: Tensor,
    timespans: Tensor | None,
    resets: Tensor | None,
    neurons: Tensor,
    sensory: Tensor,
    internal: Tensor,
    indices: Sequence[Tensor],
    timespan: float,
    unfolds: int,
    epsilon: float,
    states: Tensor,
    unfolded: Tensor,
    divisors: Tensor,
    needs_dx: bool,
) -> tuple[Tensor, ...]:
    """Return the gradients, as the operator `ltc_backward`."""
    x, v, timespans, resets = _contiguous(x, v, timespans, resets)
    neurons, sensory, internal = (each.contiguous() for each in (neurons, sensory, internal))
    call = _call(
        *(x, v, timespans, resets, neurons, sensory, internal, indices),
        *(timespan, unfolds, epsilon),
    )
    dstates = in_order_of(states, dstates)
    call.states, call.unfolded, call.divisors, call.dstates = map(
        floats, (states, unfolded, divisors, dstates)
    )
    dx = torch.empty_like(x) if needs_dx else x.new_empty(0)
    dv = torch.empty_like(v)
    dtimespans = v.new_empty(0) if timespans is None else torch.empty_like(timespans)
    parts = torch.get_num_threads()
    dneurons, dsensory, dinternal = (
        each.new_zeros(parts, *each.shape) for each in (neurons, sensory, internal)
    )
    call.dstart = floats(dv)
    if needs_dx:
        call.dx = floats(dx)
    if timespans is not None:
        call.dtimespans = floats(dtimespans)
    call.dneurons, call.dsensory, call.dinternal = map(floats, (dneurons, dsensory, dinternal))
    _run("ltc_backward", call)
    return dx, dv, dtimespans, *(each.sum(0) for each in (dneurons, dsensory, dinternal))


def _contiguous(
    x: Tensor, v: Tensor, timespans: Tensor | None, resets: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    return (
        ordered(x),
        v.contiguous(),
        None if timespans is None else timespans.contiguous(),
        None if resets is None else resets.contiguous(),
    )


def _call(
    x: Tensor,
    v: Tensor,
    timespans: Tensor | None,
    resets: Tensor | None,
    neurons: Tensor,
    sensory: Tensor,
    internal: Tensor,
    indices: Sequence[Tensor],
    timespan: float,
    unfolds: int,
    epsilon: float,
) -> Any:
    """Return the kernel's argument. It points into these tensors, which must outlive it."""
    call = ffi.new("LtcCall *")
    steps, rows, inputs = x.shape
    call.steps, call.rows, call.inputs, call.neurons = steps, rows, inputs, v.shape[1]
    call.time_stride, call.row_stride = (1, steps) if batch_first(x) else (rows, 1)
    call.unfolds, call.epsilon, call.timespan = unfolds, epsilon, timespan
    for synapses, values, (source, first) in (
        (call.sensory, sensory, indices[:2]),
        (call.internal, internal, indices[2:]),
    ):
        synapses.count, synapses.source = values.shape[1], integers(source)
        synapses.first = integers(first)
        synapses.slope, synapses.offset, synapses.weight, synapses.pull = map(floats, values)
    call.cm, call.leak, call.rest = map(floats, neurons)
    call.x, call.start, call.timespans = floats(x), floats(v), floats(timespans)
    call.resets = bytes_(resets)
    return call


def _unfolded(x: Tensor, v: Tensor, unfolds: int) -> Tensor:
    """Return an empty (T, U, N, B)."""
    return x.new_empty(x.shape[0], unfolds, v.shape[1], v.shape[0])


def _run(kernel: str, call: Any) -> None:
    sigmoids = call.sensory.count + call.unfolds * call.internal.count
    parallel_rows(kernel, call, call.rows, float(call.steps) * call.rows * sigmoids * SIGMOID_OPS)


def _fake(x: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    unfolds, keep = rest[-3], rest[-1]
    kept = (_unfolded(x, v, unfolds) if keep else x.new_empty(0) for _ in range(2))
    return new_like(ordered(x), v.shape[1]), *kept


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, v, timespans, resets, *parameters, indices, timespan, unfolds, epsilon, _ = inputs
    ctx.constants = timespan, unfolds, epsilon
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output, x, v, timespans, resets, *parameters, *indices)


def _backward(ctx: Any, dstates: Tensor | None, *_: None) -> tuple[Any, ...]:
    states, unfolded, divisors, *inputs = ctx.saved_tensors
    if dstates is None:
        dstates = torch.zeros_like(states)
    dx, dv, dtimespans, *dparameters = ltc_backward(
        *(dstates, *inputs[:7], inputs[7:], *ctx.constants, states, unfolded, divisors),
        ctx.needs_input_grad[0],
    )
    dx = dx if ctx.needs_input_grad[0] else None
    dtimespans = None if inputs[2] is None else dtimespans
    return dx, dv, dtimespans, None, *dparameters, [None] * 4, *(None,) * 4


def _fake_backward(dstates: Tensor, x: Tensor, v: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    timespans, _, *parameters = rest[:5]
    return (
        torch.empty_like(ordered(x)) if rest[-1] else x.new_empty(0),
        v.new_empty(v.shape),
        v.new_empty(0) if timespans is None else timespans.new_empty(timespans.shape),
        *(each.new_empty(each.shape) for each in parameters),
    )


_INPUTS = (
    "Tensor x, Tensor v, Tensor? timespans, Tensor? resets, Tensor neurons, Tensor sensory, "
    "Tensor internal, Tensor[] indices, float timespan, int unfolds, float epsilon"
)
ltc_backward = register(
    f"ltc_backward(Tensor dstates, {_INPUTS}, Tensor states, Tensor unfolded, Tensor divisors, "
    "bool needs_dx) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    {"CPU": backward},
    _fake_backward,
)
"""Gradients of x, v, timespans, neurons, sensory and internal synapses."""
ltc = register(
    f"ltc({_INPUTS}, bool keep) -> (Tensor, Tensor, Tensor)",
    {"CPU": forward},
    _fake,
    _backward,
    _setup_context,
)
"""v after every step (T, B, N) and, where `keep`, v before each unfold and what it was divided by,
(T, U, N, B) each."""
