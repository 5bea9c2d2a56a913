"""The CfC kernel of the CPU: how `cfc.c` is called."""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_void_p

import torch
from torch import Tensor

from ncp_agents.torch.fused import FusedWeights
from ncp_agents.torch.kernels.cfc import Gradients, Inputs, Kept, Plan
from ncp_agents.torch.kernels.compiled import address, by_rows, library

MOST_LAYERS = 16


class _Cfc(ctypes.Structure):
    """`Cfc` of cfc.c."""

    _fields_ = (
        ("steps", c_int32),
        ("rows", c_int32),
        ("heads", c_int32),
        ("no_gate", c_int32),
        ("layers", c_int32),
        ("depth", c_int32),
        ("relu", c_int32),
        ("sizes", c_int32 * MOST_LAYERS),
        ("widths", c_int32 * MOST_LAYERS),
        ("drive", c_void_p),
        ("start", c_void_p),
        ("recurrent", c_void_p),
        ("bias", c_void_p),
        ("hidden", c_void_p * MOST_LAYERS),
        ("hidden_bias", c_void_p * MOST_LAYERS),
        ("timespans", c_void_p),
        ("resets", c_void_p),
        ("states", c_void_p),
        ("activity", c_void_p),
        ("backbone", c_void_p * MOST_LAYERS),
        ("dstates", c_void_p),
        ("dheads", c_void_p),
        ("dbackbone", c_void_p * MOST_LAYERS),
        ("dstart", c_void_p),
        ("dtimespans", c_void_p),
    )


def fits(weights: FusedWeights) -> bool:
    return (
        weights.activation.phi in (torch.sigmoid, torch.relu)
        and max(len(weights.layer_sizes), len(weights.hidden)) <= MOST_LAYERS
        and library() is not None
    )


def forward(plan: Plan, inputs: Inputs, keep: bool) -> tuple[Tensor, Kept | None]:
    """→ states (T, B, N) and, if wanted, what the backward needs."""
    call = _call(plan, inputs)
    steps, rows, neurons = call.steps, call.rows, inputs.start.shape[1]
    states = inputs.start.new_empty(steps, rows, neurons)
    call.states = address(states)
    kept = None
    if keep:
        widths = [plan.heads * neurons, *(weight.shape[0] for weight in inputs.hidden[::2])]
        activity, *backbone = (inputs.start.new_empty(steps, rows, width) for width in widths)
        kept = Kept(activity, tuple(backbone))
        call.activity = address(activity)
        call.backbone[: call.depth] = [*map(address, backbone)]
    _run("cfc_forward", call, inputs)
    return states, kept


def backward(plan: Plan, inputs: Inputs, states: Tensor, kept: Kept, dstates: Tensor) -> Gradients:
    call = _call(plan, inputs)
    grads = Gradients(
        heads=torch.empty_like(kept.activity),
        backbone=tuple(torch.empty_like(layer) for layer in kept.backbone),
        start=torch.empty_like(inputs.start),
        timespans=None if inputs.timespans is None else torch.empty_like(inputs.timespans),
    )
    call.states, call.activity, call.dstates = map(address, (states, kept.activity, dstates))
    call.dheads, call.dstart, call.dtimespans = map(
        address, (grads.heads, grads.start, grads.timespans)
    )
    call.backbone[: call.depth] = [*map(address, kept.backbone)]
    call.dbackbone[: call.depth] = [*map(address, grads.backbone)]
    _run("cfc_backward", call, inputs)
    return grads


def _call(plan: Plan, inputs: Inputs) -> _Cfc:
    """The kernel's argument. It points into the tensors, which must outlive it."""
    steps, rows, _ = inputs.drive.shape
    depth = len(inputs.hidden) // 2
    call = _Cfc(
        steps=steps,
        rows=rows,
        heads=plan.heads,
        no_gate=plan.no_gate,
        layers=len(plan.layer_sizes),
        depth=depth,
        relu=plan.relu,
        drive=address(inputs.drive),
        start=address(inputs.start),
        recurrent=address(inputs.recurrent),
        bias=address(inputs.bias),
        timespans=address(inputs.timespans),
        resets=address(inputs.resets),
    )
    call.sizes[: len(plan.layer_sizes)] = plan.layer_sizes
    if depth:
        call.widths[:depth] = [weight.shape[0] for weight in inputs.hidden[::2]]
        call.hidden[:depth] = [address(weight) for weight in inputs.hidden[::2]]
        call.hidden_bias[:depth] = [address(bias) for bias in inputs.hidden[1::2]]
    return call


def _run(name: str, call: _Cfc, inputs: Inputs) -> None:
    weights = inputs.recurrent.numel() + sum(weight.numel() for weight in inputs.hidden[::2])
    by_rows(name, call, call.rows, operations=float(call.steps) * call.rows * weights)
