"""CfC neurons over a sequence on the CPU: how `cfc.c` is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ncp_agents.torch.fused_weights import FusedWeights
from ncp_agents.torch.kernels.arrays import (
    batch_first,
    flat,
    heads_of,
    in_order_of,
    new_layers_like,
    new_like,
    ordered,
)
from ncp_agents.torch.kernels.library import (
    available,
    bytes_,
    constant,
    ffi,
    floats,
    library,
    padded,
    parallel_rows,
)
from ncp_agents.torch.kernels.pipeline import KernelCall


def fits(weights: FusedWeights) -> bool:
    """Return whether the kernel takes these weights."""
    return (
        bool(weights.activation.kernel)
        and available()
        and len(weights.linears) <= constant("MAX_LAYERS")
    )


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
    """Return states, activity, sources and hidden, as the operator `cfc`."""
    x, h, timespans, resets, weights = _contiguous(x, h, timespans, resets, weights)
    call = _call(x, weights, layer_sizes, depth, no_gate, relu, heads=heads_of(timespans))
    states, drive = new_like(x, h.shape[1]), None
    _read(call, x, h, timespans, resets)
    if keep or x.shape[0] > 1:
        drive = _drive(x, weights[0], layer_sizes, depth)
        call.drive = floats(drive)
    else:
        call.x = floats(x)
    call.states = floats(states)
    kept = [x.new_empty(0) for _ in range(3)]
    if keep:
        active, read = widths(layer_sizes, depth, call.heads)
        kept[:2] = new_like(x, active), new_like(x, read)
        call.activity, call.sources = map(floats, kept[:2])
        if depth:
            kept[2] = new_layers_like(x, depth, weights[0].shape[0])
            call.backbone[0:depth] = [floats(layer) for layer in kept[2]]
    packed = _pack(call, x, backward=False)
    _run("cfc_forward", call, weights)
    del packed  # which the kernel has read until here
    return states, *kept


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
    x, h, timespans, resets, weights = _contiguous(x, h, timespans, resets, weights)
    call = _call(x, weights, layer_sizes, depth, no_gate, relu, heads=heads_of(timespans))
    dstates = in_order_of(states, dstates)
    dheads, dh = new_like(x, call.heads * h.shape[1]), torch.empty_like(h)
    dhidden = new_layers_like(x, depth, weights[0].shape[0]) if depth else torch.empty_like(hidden)
    dtimespans = h.new_empty(0) if timespans is None else torch.empty_like(timespans)
    _read(call, x, h, timespans, resets)
    call.states, call.activity, call.dstates = map(floats, (states, activity, dstates))
    call.dheads, call.dstart = floats(dheads), floats(dh)
    if timespans is not None:
        call.dtimespans = floats(dtimespans)
    if depth:
        call.backbone[0:depth] = [floats(layer) for layer in hidden]
        call.dbackbone[0:depth] = [floats(layer) for layer in dhidden]
    packed = _pack(call, x, backward=True)
    _run("cfc_backward", call, weights)
    del packed
    return dheads, dhidden, dh, dtimespans


def frozen_forward(
    weights: FusedWeights, x: Tensor, h: Tensor, timespans: Tensor | None, resets: Tensor | None
) -> Tensor:
    """Return the states of frozen weights, which are packed once: a rollout's single steps."""
    x, h, timespans, resets, _ = _contiguous(x, h, timespans, resets, ())
    states = new_like(x, h.shape[1])
    drive = None
    if x.shape[0] > 1:
        drive = _drive(x, weights.tensors[0], weights.sizes.layer_sizes, weights.depth)
    call = _packed_call(weights, x, drive, heads=heads_of(timespans))
    _read(call, x, h, timespans, resets)
    call.states, call.drive = floats(states), floats(drive)
    _run("cfc_forward", call, weights.tensors)
    return states


def step_call(weights: FusedWeights, x: Tensor, states: Tensor) -> KernelCall:
    """Return one step of x (B, I) to states (B, N); its caller sets `start` and `resets`."""
    call = _packed_call(weights, x[None], None, heads=3)
    _read(call, x[None], states, None, None)
    call.states = floats(states)
    return KernelCall("cfc_forward", call, (weights, x, states))


def widths(layer_sizes: list[int], depth: int, heads: int) -> tuple[int, int]:
    """Return the last axis of `activity`, in whole vectors, and of `sources`."""
    active = heads * sum(map(padded, layer_sizes))
    return active, sum(layer_sizes) + (0 if depth else sum(layer_sizes[:-1]))


def _contiguous(
    x: Tensor,
    h: Tensor,
    timespans: Tensor | None,
    resets: Tensor | None,
    weights: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, list[Tensor]]:
    return (
        ordered(x),
        h.contiguous(),
        None if timespans is None else timespans.contiguous(),
        None if resets is None else resets.contiguous(),
        [weight.contiguous() for weight in weights],
    )


def _packed_call(weights: FusedWeights, x: Tensor, drive: Tensor | None, heads: int) -> Any:
    """Return a call whose weights are packed, from what was packed before if there is such."""
    key = f"cpu {heads} {drive is None}"
    if key not in weights.packed:
        call = _call(x, weights.tensors, *weights.sizes, heads=heads)
        call.x = floats(x if drive is None else None)
        weights.packed[key] = call, _pack(call, x, backward=False)
    call = ffi.new("CfcCall *", weights.packed[key][0][0])
    call.x = floats(x if drive is None else None)
    return call


def _call(
    x: Tensor,
    weights: Sequence[Tensor],
    layer_sizes: list[int],
    depth: int,
    no_gate: bool,
    relu: bool,
    heads: int,
) -> Any:
    """Return the kernel's argument. It points into the weights, which must outlive it."""
    call = ffi.new("CfcCall *")
    call.heads, call.no_gate, call.layers = heads, no_gate, len(layer_sizes)
    call.depth, call.relu = depth, relu
    for index, (weight, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        outputs, sources = weight.shape
        skip = 0 if index else x.shape[2]
        groups = 1 if index < depth else heads
        call.linears[index] = (
            floats(weight),
            floats(bias),
            groups,
            outputs // groups,
            skip,
            sources - skip,
        )
    return call


def _read(call: Any, x: Tensor, h: Tensor, timespans: Tensor | None, resets: Tensor | None) -> None:
    """Let the kernel read these inputs."""
    steps, rows, _ = x.shape
    call.steps, call.rows = steps, rows
    call.time_stride, call.row_stride = (1, steps) if batch_first(x) else (rows, 1)
    call.start, call.timespans, call.resets = floats(h), floats(timespans), bytes_(resets)


def _drive(x: Tensor, first: Tensor, layer_sizes: list[int], depth: int) -> Tensor:
    """Return the first map's weights times x, (T, B, ·), each head in whole vectors."""
    first = first[:, : x.shape[2]]
    neurons = first.shape[0] if depth else layer_sizes[0]
    first = F.pad(first.unflatten(0, (-1, neurons)), (0, 0, 0, padded(neurons) - neurons))
    drive = new_like(x, first.shape[0] * first.shape[1])
    torch.mm(flat(x), first.flatten(0, 1).T, out=flat(drive))
    return drive


def _pack(call: Any, x: Tensor, backward: bool) -> Tensor:
    """Return the weights as the kernel reads them."""
    compiled = library()
    packed = x.new_empty(compiled.cfc_packed_size(call, backward))
    call.packed = floats(packed)
    compiled.cfc_pack(call, backward)
    return packed


def _run(kernel: str, call: Any, weights: Sequence[Tensor]) -> None:
    operations = float(call.steps) * call.rows * sum(weight.numel() for weight in weights[::2])
    parallel_rows(kernel, call, call.rows, operations)
