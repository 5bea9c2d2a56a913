"""The CfC kernel of the CPU: how `cfc.c` is called."""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_void_p
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ncp_agents.torch.fused_weights import FusedWeights
from ncp_agents.torch.kernels.arrays import batch_first, flat, ordered
from ncp_agents.torch.kernels.cfc import Gradients, Inputs, Kept, Plan
from ncp_agents.torch.kernels.library import address, library, padded, parallel_rows
from ncp_agents.torch.kernels.pipeline import KernelCall

__all__ = ["backward", "fits", "forward", "forward_and_keep", "link", "ordered"]

MAX_LAYERS = 16


class _Linear(ctypes.Structure):
    """`Linear` of cfc.c."""

    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("groups", c_int32),
        ("n", c_int32),
        ("skip", c_int32),
        ("sources", c_int32),
    )


class _Cfc(ctypes.Structure):
    """`Cfc` of cfc.c."""

    _fields_ = (
        ("steps", c_int32),
        ("rows", c_int32),
        ("time_stride", c_int32),
        ("row_stride", c_int32),
        ("heads", c_int32),
        ("no_gate", c_int32),
        ("layers", c_int32),
        ("depth", c_int32),
        ("relu", c_int32),
        ("linears", _Linear * MAX_LAYERS),
        ("packed", c_void_p),
        ("x", c_void_p),
        ("drive", c_void_p),
        ("start", c_void_p),
        ("timespans", c_void_p),
        ("resets", c_void_p),
        ("states", c_void_p),
        ("activity", c_void_p),
        ("sources", c_void_p),
        ("backbone", c_void_p * MAX_LAYERS),
        ("dstates", c_void_p),
        ("dheads", c_void_p),
        ("dbackbone", c_void_p * MAX_LAYERS),
        ("dstart", c_void_p),
        ("dtimespans", c_void_p),
    )


def fits(weights: FusedWeights) -> bool:
    return (
        weights.activation.phi in (torch.sigmoid, torch.relu)
        and len(weights.linears) <= MAX_LAYERS
        and library() is not None
    )


def forward(plan: Plan, inputs: Inputs, packed: dict[str, Any]) -> Tensor:
    """→ states (T, B, N); `packed` keeps what can be used again with the same weights."""
    states = inputs.new(inputs.start.shape[1])
    drive = _drive(plan, inputs) if inputs.x.shape[0] > 1 else None
    _run("cfc_forward", _ready(plan, inputs, packed, states, drive), inputs)
    return states


def link(weights: FusedWeights, x: Tensor, states: Tensor) -> KernelCall:
    """One step of x (B, I) to states (B, N); who runs it sets `start` and `resets`."""
    inputs = Inputs(x[None], states, None, None, weights.linears)
    call = _ready(Plan.of(weights, heads=3), inputs, weights.packed, states[None], None)
    return KernelCall("cfc_forward", call, (weights, x, states))


def _ready(
    plan: Plan, inputs: Inputs, packed: dict[str, Any], states: Tensor, drive: Tensor | None
) -> _Cfc:
    """The kernel's argument, without gradient; with `drive` the product with x is done already."""
    x = inputs.x if drive is None else None
    key = f"cpu {plan.heads} {x is None}"
    if key not in packed:
        call = _call(plan, inputs)
        call.x = address(x)
        packed[key] = call, _pack(call, inputs, backward=False)
    call = _Cfc.from_buffer_copy(packed[key][0])
    _point(call, inputs)
    call.states, call.x, call.drive = address(states), address(x), address(drive)
    return call


def forward_and_keep(plan: Plan, inputs: Inputs) -> tuple[Tensor, Kept]:
    """→ states (T, B, N) and what the backward needs."""
    call = _call(plan, inputs)
    states, drive = inputs.new(inputs.start.shape[1]), _drive(plan, inputs)
    maps = call.linears[plan.depth : plan.depth + len(plan.layer_sizes)]
    read = [states.shape[2]] if plan.depth else [m.sources for m in maps]
    sources = inputs.new(sum(read))
    kept = Kept(
        activity=inputs.new(sum(m.groups * padded(m.n) for m in maps)),
        sources=sources.split(read, -1),
        backbone=tuple(inputs.new(m.n) for m in call.linears[: plan.depth]),
    )
    call.states, call.drive = address(states), address(drive)
    call.activity, call.sources = address(kept.activity), address(sources)
    call.backbone[: plan.depth] = [address(layer) for layer in kept.backbone]
    weights = _pack(call, inputs, backward=False)
    _run("cfc_forward", call, inputs)
    del weights  # until here the kernel has read them
    return states, kept


def backward(plan: Plan, inputs: Inputs, states: Tensor, kept: Kept, dstates: Tensor) -> Gradients:
    call = _call(plan, inputs)
    grads = Gradients(
        heads=inputs.new(plan.heads * states.shape[2]),
        backbone=tuple(torch.empty_like(layer) for layer in kept.backbone),
        start=torch.empty_like(inputs.start),
        timespans=None if inputs.timespans is None else torch.empty_like(inputs.timespans),
    )
    call.states, call.activity, call.dstates = map(address, (states, kept.activity, dstates))
    call.dheads, call.dstart, call.dtimespans = map(
        address, (grads.heads, grads.start, grads.timespans)
    )
    call.backbone[: plan.depth] = [address(layer) for layer in kept.backbone]
    call.dbackbone[: plan.depth] = [address(layer) for layer in grads.backbone]
    weights = _pack(call, inputs, backward=True)
    _run("cfc_backward", call, inputs)
    del weights
    return grads


def _drive(plan: Plan, inputs: Inputs) -> Tensor:
    """(T, B, ·): the first map's weights times x, each head in whole vectors."""
    first = inputs.first
    neurons = first.shape[0] if plan.depth else plan.layer_sizes[0]
    first = F.pad(first.unflatten(0, (-1, neurons)), (0, 0, 0, padded(neurons) - neurons))
    drive = inputs.new(first.shape[0] * first.shape[1])
    return torch.mm(flat(inputs.x), first.flatten(0, 1).T, out=flat(drive))


def _call(plan: Plan, inputs: Inputs) -> _Cfc:
    """The kernel's argument. It points into the tensors, which must outlive it."""
    call = _Cfc(
        heads=plan.heads,
        no_gate=plan.no_gate,
        layers=len(plan.layer_sizes),
        depth=plan.depth,
        relu=plan.relu,
    )
    features = inputs.x.shape[2]
    for index, (weight, bias) in enumerate(inputs.linears):
        outputs, sources = weight.shape
        skip = 0 if index else features
        groups = 1 if index < plan.depth else plan.heads
        call.linears[index] = _Linear(
            address(weight), address(bias), groups, outputs // groups, skip, sources - skip
        )
    _point(call, inputs)
    return call


def _point(call: _Cfc, inputs: Inputs) -> None:
    """Let the kernel read these inputs."""
    call.steps, call.rows, _ = inputs.x.shape
    call.time_stride, call.row_stride = (1, call.steps) if batch_first(inputs.x) else (call.rows, 1)
    call.start = inputs.start.data_ptr()
    call.timespans, call.resets = address(inputs.timespans), address(inputs.resets)


def _pack(call: _Cfc, inputs: Inputs, backward: bool) -> Tensor:
    """The weights as the kernel reads them."""
    compiled, pointer = library(), ctypes.byref(call)
    assert compiled is not None
    packed = inputs.start.new_empty(compiled.cfc_packed_size(pointer, backward))
    call.packed = packed.data_ptr()
    compiled.cfc_pack(pointer, backward)
    return packed


def _run(name: str, call: _Cfc, inputs: Inputs) -> None:
    weights = sum(weight.numel() for weight, _ in inputs.linears)
    parallel_rows(name, call, call.rows, operations=float(call.steps) * call.rows * weights)
