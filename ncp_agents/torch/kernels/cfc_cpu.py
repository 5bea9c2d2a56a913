"""The recurrence of CfC layers on the CPU, in C: `cfc.c` as a differentiable function.

Axes: B batch, T steps, N neurons, D heads, n neurons of one layer, U backbone units.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int32, c_void_p
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ncp_agents.torch import kernels
from ncp_agents.torch.fused import FusedWeights, layers
from ncp_agents.torch.kernels.library import address, by_rows, library

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


class Plan(NamedTuple):
    """What the kernel needs to know besides tensors."""

    layer_sizes: list[int]
    heads: int
    no_gate: bool
    relu: bool

    @property
    def layers(self) -> list[slice]:
        return layers(self.layer_sizes)


class Inputs(NamedTuple):
    """The tensors that the kernel reads, in the order of `CfcRecurrence`'s arguments."""

    drive: Tensor
    """(T, B, D n0), or (T, B, U) with a backbone: what inputs and biases add."""
    p0: Tensor
    """(B, N)"""
    recurrent: Tensor
    """(N, D N), or (N, U) with a backbone."""
    bias: Tensor
    """(D N), or (U) with a backbone."""
    timespans: Tensor | None
    """(T, B)"""
    resets: Tensor | None
    """(T, B) bool"""
    hidden: tuple[Tensor, ...]
    """For each backbone layer the weight and bias that follow it."""

    @classmethod
    def of(cls, tensors: Sequence[Tensor | None]) -> Inputs:
        """The same tensors in one row, as autograd wants them."""
        inputs = cls(*tensors[:6], hidden=tuple(tensors[6:]))  # type: ignore[arg-type]
        return cls(
            *(t if t is None else t.contiguous() for t in inputs[:6]),  # type: ignore[arg-type]
            hidden=tuple(t.contiguous() for t in inputs.hidden),
        )

    def call(self, plan: Plan) -> _Cfc:
        """The kernel's argument. It points into these tensors, which must outlive it."""
        steps, rows, _ = self.drive.shape
        depth = len(self.hidden) // 2
        call = _Cfc(
            steps=steps,
            rows=rows,
            heads=plan.heads,
            no_gate=plan.no_gate,
            layers=len(plan.layer_sizes),
            depth=depth,
            relu=plan.relu,
            drive=address(self.drive),
            start=address(self.p0),
            recurrent=address(self.recurrent),
            bias=address(self.bias),
            timespans=address(self.timespans),
            resets=address(self.resets),
        )
        call.sizes[: len(plan.layer_sizes)] = plan.layer_sizes
        call.widths[:depth] = [weight.shape[0] for weight in self.hidden[::2]]
        call.hidden[:depth] = [address(weight) for weight in self.hidden[::2]]
        call.hidden_bias[:depth] = [address(bias) for bias in self.hidden[1::2]]
        return call

    def run(self, name: str, call: _Cfc) -> None:
        kernel, pointer = getattr(library(), name), ctypes.byref(call)
        weights = self.recurrent.numel() + sum(weight.numel() for weight in self.hidden[::2])
        by_rows(
            lambda begin, end: kernel(pointer, begin, end),
            call.rows,
            operations=float(call.steps) * call.rows * weights,
        )


def fits(weights: FusedWeights, h: Tensor) -> bool:
    return (
        kernels.are_on()
        and h.device.type == "cpu"
        and h.dtype == weights.recurrent.dtype == torch.float32
        and weights.mode != "pure"
        and weights.activation.phi in (torch.sigmoid, torch.relu)
        and max(len(weights.layer_sizes), len(weights.hidden)) <= MOST_LAYERS
        and not torch.compiler.is_compiling()
        and library() is not None
    )


def run(
    weights: FusedWeights,
    x: Tensor,
    p0: Tensor,
    timespans: Tensor | None,
    resets: Tensor | None,
) -> Tensor:
    """x (T, B, I), p0 (B, N), timespans (T, B) or None, resets (T, B) bool or None
    → p after every step, (T, B, N)."""
    bias = weights.bias
    if not weights.hidden:
        bias = bias.unflatten(0, (-1, weights.units))[:, : weights.layer_sizes[0]].flatten()
    drive = F.linear(x, weights.first, bias).to(p0.dtype)
    plan = Plan(
        weights.layer_sizes,
        heads=3 if timespans is None else 4,
        no_gate=weights.mode == "no_gate",
        relu=weights.activation.phi is torch.relu,
    )
    hidden = [tensor for pair in weights.hidden for tensor in pair]
    tensors = [drive, p0, weights.recurrent, weights.bias, timespans, resets, *hidden]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        p = CfcRecurrence.apply(plan, *tensors)
        assert isinstance(p, Tensor)
        return p
    return _forward(plan, Inputs.of(tensors), keep=False)[0]


def _forward(plan: Plan, inputs: Inputs, keep: bool) -> tuple[Tensor, list[Tensor]]:
    """→ states (T, B, N) and, if they are to be kept for the backward, the heads' sigmoids
    (T, B, D N), layer after layer, and the activations of each backbone layer, (T, B, U)."""
    call = inputs.call(plan)
    steps, rows, neurons = call.steps, call.rows, inputs.p0.shape[1]
    states = inputs.p0.new_empty(steps, rows, neurons)
    call.states = address(states)
    kept = []
    if keep:
        widths = [plan.heads * neurons, *(weight.shape[0] for weight in inputs.hidden[::2])]
        kept = [inputs.p0.new_empty(steps, rows, width) for width in widths]
        call.activity, call.backbone[: call.depth] = address(kept[0]), [*map(address, kept[1:])]
    inputs.run("cfc_forward", call)
    return states, kept


class CfcRecurrence(torch.autograd.Function):
    """The tensors of `Inputs` → p after every step, (T, B, N)."""

    @staticmethod
    def forward(ctx, plan: Plan, *tensors: Tensor | None) -> Tensor:
        inputs = Inputs.of(tensors)
        states, kept = _forward(plan, inputs, keep=True)
        ctx.plan = plan
        ctx.save_for_backward(states, *kept, *inputs[:6], *inputs.hidden)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs: Tensor):
        plan: Plan = ctx.plan
        depth = (len(ctx.saved_tensors) - 8) // 3
        states, activity, *rest = ctx.saved_tensors
        backbone, inputs = rest[:depth], Inputs.of(rest[depth:])
        dstates = grad_outputs[0].contiguous()
        dheads, dp0 = torch.empty_like(activity), torch.empty_like(inputs.p0)
        dbackbone = [torch.empty_like(layer) for layer in backbone]
        dtimespans = None if inputs.timespans is None else torch.empty_like(inputs.timespans)
        call = inputs.call(plan)
        call.states, call.activity, call.dstates = map(address, (states, activity, dstates))
        call.dheads, call.dstart, call.dtimespans = map(address, (dheads, dp0, dtimespans))
        call.backbone[:depth] = [*map(address, backbone)]
        call.dbackbone[:depth] = [*map(address, dbackbone)]
        inputs.run("cfc_backward", call)

        # Every weight's gradient is one flat product over all steps.
        before = torch.cat([inputs.p0[None], states[:-1]])
        if inputs.resets is not None:
            before.masked_fill_(inputs.resets[..., None], 0.5)
        before, after, flat = before.flatten(0, 1), states.flatten(0, 1), dheads.flatten(0, 1)
        if depth:
            ddrive = dbackbone[0]
            drecurrent, dbias = before.T @ ddrive.flatten(0, 1), None
            dhidden = []
            for layer, following in zip(backbone, [*dbackbone[1:], dheads], strict=True):
                dz = following.flatten(0, 1)
                dhidden += [layer.flatten(0, 1).T @ dz, dz.sum(0)]
            return None, ddrive, dp0, drecurrent, dbias, dtimespans, None, *dhidden

        drecurrent, dbias = torch.zeros_like(inputs.recurrent), torch.zeros_like(inputs.bias)
        neurons = states.shape[-1]
        by_head = drecurrent.view(neurons, -1, neurons)
        bias_by_head = dbias.view(-1, neurons)
        for index, (where, size) in enumerate(zip(plan.layers, plan.layer_sizes, strict=True)):
            dz = flat[:, plan.heads * where.start : plan.heads * where.stop]
            by_head[where, :, where] = (before[:, where].T @ dz).view(size, -1, size)
            if index:
                source = plan.layers[index - 1]
                by_head[source, :, where] = (after[:, source].T @ dz).view(-1, plan.heads, size)
                bias_by_head[:, where] = dz.sum(0).view(-1, size)
        ddrive = dheads[..., : plan.heads * plan.layer_sizes[0]]
        return None, ddrive, dp0, drecurrent, dbias, dtimespans, None
