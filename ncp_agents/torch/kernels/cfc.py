"""The recurrence of CfC layers by a kernel, as a differentiable function.

A kernel computes the states and, backwards, the gradients of every head; what follows from those
here is the same for all devices: every weight's gradient is one flat product over all steps.

Axes: B batch, T steps, N neurons, D heads, n neurons of one layer, U backbone units.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ncp_agents.torch import kernels
from ncp_agents.torch.fused import FusedWeights, layers


class Plan(NamedTuple):
    """What a kernel needs to know besides tensors."""

    layer_sizes: list[int]
    heads: int
    no_gate: bool
    relu: bool

    @property
    def layers(self) -> list[slice]:
        return layers(self.layer_sizes)


class Inputs(NamedTuple):
    """The tensors that a kernel reads, in the order of `CfcRecurrence`'s arguments."""

    drive: Tensor
    """(T, B, D n0), or (T, B, U) with a backbone: what inputs and biases add."""
    start: Tensor
    """(B, N): h before the first step."""
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
        """The same tensors in one row, as autograd wants them; here contiguous."""
        dense = [t if t is None else t.contiguous() for t in tensors]
        return cls(*dense[:6], hidden=tuple(dense[6:]))  # type: ignore[arg-type]


class Kept(NamedTuple):
    """What the forward keeps for the backward."""

    activity: Tensor
    """(T, B, D N): the heads' sigmoids, layer after layer, in each head after head."""
    backbone: tuple[Tensor, ...]
    """(T, B, U) of each backbone layer: its activations."""


class Gradients(NamedTuple):
    """What the backward's kernel gives."""

    heads: Tensor
    """(T, B, D N), in the order of `Kept.activity`."""
    backbone: tuple[Tensor, ...]
    """(T, B, U) of each backbone layer, before its activation."""
    start: Tensor
    """(B, N)"""
    timespans: Tensor | None
    """(T, B)"""


@cache
def _backend(device: str) -> Any:
    """The module that has the kernel of a type of device, or None."""
    if device == "cpu":
        from ncp_agents.torch.kernels import cfc_cpu

        return cfc_cpu
    if device == "cuda" and find_spec("triton"):
        from ncp_agents.torch.kernels import cfc_gpu

        return cfc_gpu
    return None


def fits(weights: FusedWeights, h: Tensor) -> bool:
    """Whether there is a kernel for these weights and this state."""
    backend = _backend(h.device.type)
    return (
        kernels.are_on()
        and backend is not None
        and h.dtype == weights.recurrent.dtype == torch.float32
        and weights.mode != "pure"
        and backend.fits(weights)
    )


def run(
    weights: FusedWeights, x: Tensor, h: Tensor, timespans: Tensor | None, resets: Tensor | None
) -> Tensor:
    """x (T, B, I), h (B, N), timespans (T, B) or None, resets (T, B) bool or None
    → h after every step, (T, B, N)."""
    drive = F.linear(x, weights.first, weights.first_bias).to(h.dtype)
    plan = Plan(
        weights.layer_sizes,
        heads=3 if timespans is None else 4,
        no_gate=weights.mode == "no_gate",
        relu=weights.activation.phi is torch.relu,
    )
    hidden = [tensor for pair in weights.hidden for tensor in pair]
    tensors = [drive, h, weights.recurrent, weights.bias, timespans, resets, *hidden]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        states = CfcRecurrence.apply(plan, *tensors)
        assert isinstance(states, Tensor)
        return states
    return _backend(h.device.type).forward(plan, Inputs.of(tensors), keep=False)[0]


class CfcRecurrence(torch.autograd.Function):
    """The tensors of `Inputs` → h after every step, (T, B, N)."""

    @staticmethod
    def forward(ctx, plan: Plan, *tensors: Tensor | None) -> Tensor:
        inputs = Inputs.of(tensors)
        states, kept = _backend(inputs.start.device.type).forward(plan, inputs, keep=True)
        assert kept is not None
        ctx.plan, ctx.depth = plan, len(kept.backbone)
        ctx.save_for_backward(states, kept.activity, *kept.backbone, *inputs[:6], *inputs.hidden)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs: Tensor):
        plan: Plan = ctx.plan
        states, activity, *rest = ctx.saved_tensors
        kept, inputs = Kept(activity, tuple(rest[: ctx.depth])), Inputs.of(rest[ctx.depth :])
        dstates = grad_outputs[0].contiguous()
        grads: Gradients = _backend(states.device.type).backward(
            plan, inputs, states, kept, dstates
        )

        before = torch.cat([inputs.start[None], states[:-1]])
        if inputs.resets is not None:
            before.masked_fill_(inputs.resets[..., None], 0.0)
        before, after, flat = before.flatten(0, 1), states.flatten(0, 1), grads.heads.flatten(0, 1)
        if kept.backbone:
            ddrive = grads.backbone[0]
            drecurrent, dbias = before.T @ ddrive.flatten(0, 1), None
            dhidden = []
            following = [*grads.backbone[1:], grads.heads]
            for layer, dz in zip(kept.backbone, following, strict=True):
                dz = dz.flatten(0, 1)
                dhidden += [layer.flatten(0, 1).T @ dz, dz.sum(0)]
            return (
                *(None, ddrive, grads.start, drecurrent, dbias, grads.timespans, None),
                *dhidden,
            )

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
        ddrive = grads.heads[..., : plan.heads * plan.layer_sizes[0]]
        return None, ddrive, grads.start, drecurrent, dbias, grads.timespans, None
