"""The recurrence of CfC layers by a kernel, as a differentiable function.

A kernel computes the states and, backwards, the gradients of what every linear map gives; what
follows from those here is the same for all devices: every weight's gradient is one flat product
over all steps.

Axes: B batch, T steps, I inputs, N neurons, D heads, n neurons of one layer, U backbone units.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ncp_agents.torch import kernels
from ncp_agents.torch.autograd import written_by_hand
from ncp_agents.torch.fused_weights import FusedWeights, layers
from ncp_agents.torch.kernels.arrays import flat, in_order_of, new_like


class Plan(NamedTuple):
    """What a kernel needs to know besides tensors."""

    layer_sizes: list[int]
    heads: int
    depth: int
    """Layers of the backbone."""
    no_gate: bool
    relu: bool

    @classmethod
    def of(cls, weights: FusedWeights, heads: int) -> Plan:
        no_gate, relu = weights.mode == "no_gate", weights.activation.phi is torch.relu
        return cls(weights.layer_sizes, heads, weights.depth, no_gate, relu)

    @property
    def layers(self) -> list[slice]:
        return layers(self.layer_sizes)


class Inputs(NamedTuple):
    """The tensors that a kernel reads."""

    x: Tensor
    """(T, B, I), in an order of memory that the kernel takes."""
    start: Tensor
    """(B, N): h before the first step."""
    timespans: Tensor | None
    """(T, B)"""
    resets: Tensor | None
    """(T, B) bool"""
    linears: list[tuple[Tensor, Tensor]]
    """As in `FusedWeights`."""

    @property
    def first(self) -> Tensor:
        """(outputs of the first map, I)"""
        return self.linears[0][0][:, : self.x.shape[2]]

    def new(self, width: int) -> Tensor:
        """An empty (T, B, width) in the order of x."""
        return new_like(self.x, width)


class Kept(NamedTuple):
    """What the forward keeps for the backward."""

    activity: Tensor
    """The heads' sigmoids, as the kernel likes them."""
    sources: tuple[Tensor, ...]
    """(T, B, ·) of each layer without a backbone: what it read of the state; (T, B, N) with one."""
    backbone: tuple[Tensor, ...]
    """(T, B, U) of each backbone layer: its activations."""


class Gradients(NamedTuple):
    """What the backward's kernel gives."""

    heads: Tensor
    """(T, B, D N): layer after layer, in each head after head."""
    backbone: tuple[Tensor, ...]
    """(T, B, U) of each backbone layer, before its activation."""
    start: Tensor
    """(B, N)"""
    timespans: Tensor | None
    """(T, B)"""


def fits(weights: FusedWeights, h: Tensor) -> bool:
    """Whether there is a kernel for these weights and this state."""
    backend = kernels.backend("cfc", h.device.type)
    tensors = (tensor for pair in weights.linears for tensor in pair)
    return (
        kernels.are_on()
        and backend is not None
        and h.dtype == torch.float32
        and all(tensor.dtype == h.dtype and tensor.device == h.device for tensor in tensors)
        and weights.mode != "pure"
        and backend.fits(weights)
    )


def run(
    weights: FusedWeights, x: Tensor, h: Tensor, timespans: Tensor | None, resets: Tensor | None
) -> Tensor:
    """x (T, B, I), h (B, N), timespans (T, B) or None, resets (T, B) bool or None
    → h after every step, (T, B, N).
    """
    plan = Plan.of(weights, heads=3 if timespans is None else 4)
    backend = kernels.backend("cfc", h.device.type)
    x, h = backend.ordered(x.to(h.dtype)), h.contiguous()
    if resets is not None and h.is_cuda:  # also a state that is no number
        h = h.masked_fill(resets[0][:, None], 0.0)
    timespans = None if timespans is None else timespans.contiguous()
    resets = None if resets is None else resets.contiguous()
    if torch.is_grad_enabled():
        linears = [tensor.contiguous() for pair in weights.linears for tensor in pair]
        states = CfcRecurrence.apply(plan, x, h, timespans, resets, *linears)
        assert isinstance(states, Tensor)
        return states
    inputs = Inputs(x, h, timespans, resets, weights.linears)
    return backend.forward(plan, inputs, weights.packed)


class CfcRecurrence(torch.autograd.Function):
    """The tensors of `Inputs` → h after every step, (T, B, N)."""

    @staticmethod
    def forward(
        ctx,
        plan: Plan,
        x: Tensor,
        start: Tensor,
        timespans: Tensor | None,
        resets: Tensor | None,
        *linears: Tensor,
    ) -> Tensor:
        pairs = list(zip(linears[::2], linears[1::2], strict=True))
        inputs = Inputs(x, start, timespans, resets, pairs)
        states, kept = kernels.backend("cfc", start.device.type).forward_and_keep(plan, inputs)
        ctx.plan = plan
        ctx.save_for_backward(
            x, start, timespans, resets, states, kept.activity, *kept.backbone, *kept.sources,
            *linears,
        )  # fmt: skip
        return states

    @staticmethod
    @written_by_hand
    def backward(ctx, *grad_outputs: Tensor):
        plan: Plan = ctx.plan
        x, start, timespans, resets, states, activity, *rest = ctx.saved_tensors
        split = plan.depth + len(plan.layer_sizes)
        kept = Kept(activity, tuple(rest[plan.depth : split]), tuple(rest[: plan.depth]))
        pairs = list(zip(rest[split::2], rest[split + 1 :: 2], strict=True))
        inputs = Inputs(x, start, timespans, resets, pairs)
        dstates = in_order_of(states, grad_outputs[0])
        grads: Gradients = kernels.backend("cfc", states.device.type).backward(
            plan, inputs, states, kept, dstates
        )

        # What each map gave and what it read, flat.
        heads = flat(grads.heads)
        outputs = [flat(layer) for layer in grads.backbone]
        if plan.depth:
            outputs.append(heads)
        else:
            outputs += heads.split([plan.heads * size for size in plan.layer_sizes], 1)
        sources = [flat(read) for read in (*kept.sources, *kept.backbone)]
        bias = torch.cat([out.sum(0) for out in outputs]) if plan.depth else heads.sum(0)
        biases = bias.split([out.shape[1] for out in outputs])
        dlinears: list[Tensor] = []
        for out, read, dbias in zip(outputs, sources, biases, strict=True):
            dweight = out.T @ read
            if not dlinears:
                dweight = torch.cat([out.T @ flat(x), dweight], 1)
            dlinears += [dweight, dbias]
        dx = None
        if ctx.needs_input_grad[1]:
            dx = inputs.new(x.shape[2])
            torch.mm(outputs[0], inputs.first, out=flat(dx))
        return None, dx, grads.start, grads.timespans, None, *dlinears
