"""The operator of CfC neurons over a sequence, the same for all devices.

`cfc` gives the states and what the backward needs; `cfc_backward` gives the gradients of the heads
and of the backbone's layers. Every weight's gradient follows from those as one flat product over
all steps.

Axes: B batch, T steps, I inputs, N neurons, D heads, L layers of the backbone, U units of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ncp_agents.torch import kernels
from ncp_agents.torch.fused_weights import FusedWeights, Sizes
from ncp_agents.torch.kernels import cfc_cpu
from ncp_agents.torch.kernels.arrays import (
    batch_first,
    flat,
    heads_of,
    new_layers_like,
    new_like,
    ordered,
)
from ncp_agents.torch.kernels.operators import register


def fits(weights: FusedWeights, h: Tensor) -> bool:
    """Return whether the operator takes these weights and this state."""
    return (
        kernels.are_on()
        and weights.mode != "pure"
        and h.dtype == torch.float32
        and all(each.dtype == h.dtype and each.device == h.device for each in weights.tensors)
        and DEVICES.get(h.device.type, _none)(weights)
    )


def _fits_triton(weights: FusedWeights) -> bool:
    from ncp_agents.torch.kernels import cfc_triton

    return cfc_triton.fits(weights)


def _none(weights: FusedWeights) -> bool:
    return False


DEVICES = {"cpu": cfc_cpu.fits, "cuda": _fits_triton}


def run(
    weights: FusedWeights, x: Tensor, h: Tensor, timespans: Tensor | None, resets: Tensor | None
) -> Tensor:
    """Return h after every step, (T, B, N).

    Args:
        weights: that fit.
        x: (T, B, I).
        h: (B, N).
        timespans: (T, B), or None where they are constant and fused into the weights.
        resets: (T, B) bool, or None.
    """
    inputs = [x, h, *weights.tensors] + ([] if timespans is None else [timespans])
    keep = torch.is_grad_enabled() and any(each.requires_grad for each in inputs)
    states, *_ = cfc(x, h, timespans, resets, weights.tensors, *weights.sizes, keep)
    return states


def _cuda(*args: Any) -> tuple[Tensor, ...]:
    from ncp_agents.torch.kernels import cfc_triton

    return cfc_triton.forward(*args)


def _fake(
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
    x = x.contiguous() if x.is_cuda else ordered(x)
    states = new_like(x, h.shape[1])
    if not keep:
        return states, *(x.new_empty(0) for _ in range(3))
    heads = heads_of(timespans)
    if x.is_cuda:
        active, read = heads * h.shape[1], sum(_read(layer_sizes))
    else:
        active, read = cfc_cpu.widths(layer_sizes, depth, heads)
    hidden = new_layers_like(x, depth, weights[0].shape[0]) if depth else x.new_empty(0)
    return states, new_like(x, active), new_like(x, read), hidden


def _read(layer_sizes: list[int]) -> list[int]:
    """Return how much of the state each layer of a wired circuit reads."""
    return [
        size + (layer_sizes[index - 1] if index else 0) for index, size in enumerate(layer_sizes)
    ]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, h, timespans, resets, weights, *sizes, _ = inputs
    ctx.sizes = Sizes(*sizes)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, h, timespans, resets, *output, *weights)


def _backward(ctx: Any, dstates: Tensor | None, *_: None) -> tuple[Any, ...]:
    x, h, timespans, resets, states, activity, sources, hidden, *weights = ctx.saved_tensors
    sizes: Sizes = ctx.sizes
    if dstates is None:
        dstates = torch.zeros_like(states)
    dheads, dhidden, dh, dtimespans = cfc_backward(
        dstates, x, h, timespans, resets, weights, *sizes, states, activity, hidden
    )
    # What each map gave and what it read, flat.
    heads = heads_of(timespans)
    outputs = [flat(layer) for layer in dhidden] if sizes.depth else []
    read = [flat(sources)] if sizes.depth else []
    if sizes.depth:
        outputs.append(flat(dheads))
        read += [flat(layer) for layer in hidden]
    else:
        outputs += flat(dheads).split([heads * size for size in sizes.layer_sizes], 1)
        read += flat(sources).split(_read(sizes.layer_sizes), 1)
    dweights: list[Tensor] = []
    for out, source in zip(outputs, read, strict=True):
        dweight = out.T @ source
        if not dweights:
            inputs = (x.transpose(0, 1) if batch_first(states) else x).reshape(-1, x.shape[2])
            dweight = torch.cat([out.T @ inputs, dweight], 1)
        dweights += [dweight, out.sum(0)]
    dx = None
    if ctx.needs_input_grad[0]:
        dx = (outputs[0] @ weights[0][:, : x.shape[2]]).unflatten(0, _lead(states))
        dx = dx.transpose(0, 1) if batch_first(states) else dx
    no_sizes = (None,) * (len(sizes) + 1)
    return dx, dh, None if timespans is None else dtimespans, None, dweights, *no_sizes


def _lead(values: Tensor) -> tuple[int, int]:
    """Return the lengths of the first two axes in the order of memory."""
    steps, rows, _ = values.shape
    return (rows, steps) if batch_first(values) else (steps, rows)


def _cuda_backward(*args: Any) -> tuple[Tensor, ...]:
    from ncp_agents.torch.kernels import cfc_triton

    return cfc_triton.backward(*args)


def _fake_backward(
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
    return (
        new_like(states, heads_of(timespans) * h.shape[1]),
        torch.empty_like(hidden),
        h.new_empty(h.shape),
        h.new_empty(0) if timespans is None else timespans.new_empty(timespans.shape),
    )


_INPUTS = (
    "Tensor x, Tensor h, Tensor? timespans, Tensor? resets, Tensor[] weights, int[] layer_sizes, "
    "int depth, bool no_gate, bool relu"
)
cfc_backward = register(
    f"cfc_backward(Tensor dstates, {_INPUTS}, Tensor states, Tensor activity, Tensor hidden) -> "
    "(Tensor, Tensor, Tensor, Tensor)",
    {"CPU": cfc_cpu.backward, "CUDA": _cuda_backward},
    _fake_backward,
)
"""Gradients of the heads (T, B, D N), layer after layer, in each head after head; of the backbone's
layers before their activation (L, T, B, U); of h (B, N); of timespans (T, B)."""
cfc = register(
    f"cfc({_INPUTS}, bool keep) -> (Tensor, Tensor, Tensor, Tensor)",
    {"CPU": cfc_cpu.forward, "CUDA": _cuda},
    _fake,
    _backward,
    _setup_context,
)
"""States (T, B, N) and, where `keep`, what the backward needs: the heads' activity, what the maps
read of the state (T, B, ·), and the backbone's activations (L, T, B, U)."""
