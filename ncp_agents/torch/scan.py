"""The only time loops of the layers: a whole sequence in, the states of all neurons out.

Where a kernel fits (`kernels/`), it takes the whole sequence. Otherwise plain torch does, and what
makes it fast for CfC layers is, each point exact up to float rounding:

1. The input projection of all steps is one matrix product before the loop.
2. A step is three operations: matrix product, sigmoid, interpolation (`fused.py` folds the rest
   into the weights; `recurrence.py` holds the loop and its hand-written backward).
3. **Skewed time.** The layers of a wired circuit feed forward within a step. At wave k the scan
   computes layer 0 of step k, layer 1 of step k - 1, layer 2 of step k - 2, ...: all of them read
   only what wave k - 1 left, so one block matrix product advances every layer, and a circuit of L
   layers takes T + L - 1 waves instead of L * T steps.

Axes: B batch, T steps, L layers, K = T + L - 1 waves, I inputs, N neurons.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch.nn import Module

from ncp_agents.torch import kernels
from ncp_agents.torch.autograd import is_followed
from ncp_agents.torch.cfc_cell import CfCCell
from ncp_agents.torch.frozen import prepared
from ncp_agents.torch.fused_weights import Blocks, FusedWeights, fuse
from ncp_agents.torch.kernels import cfc, cfc_cpu, ltc_cpu
from ncp_agents.torch.kernels.pipeline import KernelCall
from ncp_agents.torch.ltc_cell import LTCCell
from ncp_agents.torch.memory_cell import MemoryCell
from ncp_agents.torch.recurrence import Plan, Recurrence
from ncp_agents.torch.wired_cfc_cell import WiredCfCCell

Function = TypeVar("Function", bound=Callable[..., Any])


def _whole(scan: Function) -> Function:
    """A scan that takes the steps one after another where each operation is followed, and that
    torch.compile goes round: the kernels are faster than what it makes of the plain path.
    """

    def run(cell: Module, x: Tensor, h: Tensor, *rest: Any) -> Any:
        if not is_followed(x):
            return scan(cell, x, h, *rest)
        states, h, _ = scan_steps(cell, None, x, h, None, *rest)
        return states, h

    # Always disabled, it would take a third of a single step. It loads Triton, which ends a process
    # that has loaded TensorFlow before; torch.compile would, too.
    alone = "triton" in sys.modules or not sys.modules.get("tensorflow")
    disabled = torch.compiler.disable(run) if alone else run

    @wraps(scan)
    def wrapper(*args: Any) -> Any:
        # Traced itself, or called from what torch.compile leaves as it is: it would trace `run`.
        compiles = torch.compiler.is_compiling() or get_eval_frame_callback() is not None
        return disabled(*args) if compiles and not torch.compiler.is_exporting() else run(*args)

    return cast(Function, wrapper)


@_whole
def scan(
    cell: CfCCell | WiredCfCCell,
    x: Tensor,
    h: Tensor,
    timespans: float | Tensor,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """x (T, B, I), h (B, N), timespans a float or (T, B), resets (T, B) bool or None
    → states (T, B, N), final state (B, N).
    """
    constant = None if isinstance(timespans, Tensor) else timespans
    weights = prepared(cell, constant, lambda: fuse(cell, constant))
    dtype, h = x.dtype, h.to(weights.dtype)
    x = x.to(h.dtype)
    if cfc.fits(weights, h):
        varying = timespans.to(h.dtype) if isinstance(timespans, Tensor) else None
        states = cfc.run(weights, x, h, varying, resets)
    else:
        if resets is not None and not bool(resets.any()):
            resets = None
        states = _in_skewed_time(weights, x, h, timespans, resets)
    states = states.to(dtype)
    return states, states[-1].clone()  # who changes it must not change the output


def _in_skewed_time(
    weights: FusedWeights, x: Tensor, h: Tensor, timespans: float | Tensor, resets: Tensor | None
) -> Tensor:
    """As `scan`, in plain torch, on p = (h + 1) / 2 except in pure mode."""
    if resets is not None:  # also a state that is no number, whose product with 0 would be none
        h = h.masked_fill(resets[0][:, None], 0.0)
    blocks = Blocks.of(weights.linears, weights.layer_sizes, weights.depth)
    keeps_h = weights.mode == "pure"
    if not keeps_h:
        blocks, h = blocks.for_p(), 0.5 * h + 0.5
    constant = None if isinstance(timespans, Tensor) else timespans
    sizes, steps = weights.layer_sizes, x.shape[0]
    waves = steps + len(sizes) - 1

    skewed_resets, reset_waves = None, []
    if resets is not None:
        skewed_resets = _skew(resets, sizes)
        reset_waves = skewed_resets.flatten(1).any(1).nonzero().flatten().tolist()
    plan = Plan(weights.mode, sizes, constant, weights.activation, waves, frozenset(reset_waves))
    w_tau, amplitude = weights.pure or (None, None)
    following = weights.linears[1:] if weights.depth else []
    hidden = [tensor for weight, bias in following for tensor in (weight.T, bias)]
    p = Recurrence.apply(
        plan,
        _project(weights, blocks.bias, x, waves).to(h.dtype),
        h,
        blocks.recurrent,
        _skew(timespans.to(h.dtype), sizes) if isinstance(timespans, Tensor) else None,
        skewed_resets,
        w_tau,
        amplitude,
        *hidden,
    )
    assert isinstance(p, Tensor)
    if len(sizes) > 1:  # undo the skew
        p = torch.cat([p[i : i + steps, :, where] for i, where in enumerate(plan.layers)], -1)
    return p if keeps_h else 2 * p - 1


@_whole
def scan_ltc(
    cell: LTCCell,
    x: Tensor,
    v: Tensor,
    timespans: float | Tensor,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """As `scan`, for LTC neurons: what the sensory synapses do is worked out for all steps before
    the loop, and only synapses that exist are looked at.
    """
    membrane = prepared(cell, None, cell.membrane)
    if resets is not None and not bool(resets.any()):
        resets = None
    if isinstance(timespans, Tensor):
        timespans = timespans.to(v.dtype)
    kernel = kernels.backend("ltc", v.device.type)
    if (
        kernel
        and kernels.are_on()
        and membrane.is_single(v)
        and kernel.fits(membrane, v)
        and not _learns_from_none(timespans)
    ):
        states = kernel.run(membrane, x, v, timespans, resets)
        return states, states[-1].clone()
    conductance, pull = membrane.base(x)
    states = []
    for t in range(x.shape[0]):
        if resets is not None:
            v = v.masked_fill(resets[t][:, None], 0.0)
        timespan = timespans[t][:, None] if isinstance(timespans, Tensor) else timespans
        v = membrane.step((conductance[t], pull[t]), v, timespan)
        states.append(v)
    return torch.stack(states), v


def _learns_from_none(timespans: float | Tensor) -> bool:
    """Whether timespans of 0 want a gradient, which the kernels of LTC neurons do not have."""
    return (
        isinstance(timespans, Tensor)
        and timespans.requires_grad
        and torch.is_grad_enabled()
        and not bool(timespans.all())
    )


def step_call(
    cell: CfCCell | WiredCfCCell | LTCCell, x: Tensor, states: Tensor
) -> KernelCall | None:
    """One step of a cell, x (B, I) to states (B, N), as a link of a chain of the CPU's kernels, or
    None where they do not fit. Timespans are 1.
    """
    if isinstance(cell, LTCCell):
        membrane = cell.membrane()
        fits = membrane.is_single(states) and ltc_cpu.fits(membrane, states)
        return ltc_cpu.link(membrane, x, states) if fits else None
    weights = fuse(cell, 1.0)
    return cfc_cpu.link(weights, x, states) if cfc.fits(weights, states) else None


def scan_steps(
    cell: Module,
    memory: MemoryCell | None,
    x: Tensor,
    h: Tensor,
    c: Tensor | None,
    timespans: float | Tensor,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One step after the other, for what `scan` cannot do at once: mixed memory, which mixes the
    whole state in every step, backbone dropout in training, and whoever follows each operation.

    x (T, B, I), h (B, N), c (B, N) or None → states (T, B, N), final h (B, N), final c or None.
    """
    projected = None if memory is None else memory.input_map(x)
    states = []
    for t in range(x.shape[0]):
        if resets is not None:
            h = h.masked_fill(resets[t][:, None], 0.0)
            c = None if c is None else c.masked_fill(resets[t][:, None], 0.0)
        if memory is not None and projected is not None and c is not None:
            h, c = memory(projected[t], h, c)
        timespan = timespans[t][:, None] if isinstance(timespans, Tensor) else timespans
        _, h = cell(x[t], h, timespan)
        states.append(h)
    return torch.stack(states), h, c


def _skew(values: Tensor, sizes: list[int]) -> Tensor:
    """(T, B) → (K, B, N), where layer i sees step k - i at wave k, and zeros outside."""
    late = len(sizes) - 1
    return torch.cat(
        [
            F.pad(values, (0, 0, i, late - i))[..., None].expand(-1, -1, size)
            for i, size in enumerate(sizes)
        ],
        -1,
    )


def _project(weights: FusedWeights, bias: Tensor, x: Tensor, waves: int) -> Tensor:
    """x (T, B, I) → what every wave adds to the recurrent product, (K, B, its columns)."""
    steps, batch, _ = x.shape
    if len(weights.layer_sizes) == 1:
        return F.linear(x, weights.first, bias)
    first = weights.layer_sizes[0]
    by_head = F.linear(x, weights.first).view(steps, batch, -1, first)
    rest = (0, weights.units - first, 0, 0, 0, 0, 0, waves - steps)
    return F.pad(by_head, rest).flatten(2) + bias
