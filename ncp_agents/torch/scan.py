"""The time loops of the layers: a whole sequence in, the states of all neurons out.

Where an operator fits (`kernels/`), it takes the whole sequence. Otherwise plain torch does, whose
loops are short: what does not wait for the step before is one product for all steps, and the layers
of a wired CfC, which feed forward only, run over the sequence one after another.

Axes: B batch, T steps, I inputs, N neurons.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from ncp_agents.torch import kernels
from ncp_agents.torch.cfc_cell import CfCCell
from ncp_agents.torch.frozen import is_frozen, prepared
from ncp_agents.torch.fused_weights import FusedWeights, fuse
from ncp_agents.torch.kernels import cfc, cfc_cpu, ltc, ltc_cpu
from ncp_agents.torch.kernels.pipeline import KernelCall
from ncp_agents.torch.ltc_cell import LTCCell, Membrane
from ncp_agents.torch.memory_cell import MemoryCell
from ncp_agents.torch.wired_cfc_cell import WiredCfCCell


def scan(
    cell: CfCCell | WiredCfCCell,
    x: Tensor,
    h: Tensor,
    timespans: float | Tensor,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the states (T, B, N) of CfC neurons and the final state (B, N).

    Args:
        cell: dense without dropout, or wired.
        x: (T, B, I).
        h: (B, N).
        timespans: a float, or (T, B).
        resets: (T, B) bool, or None.
    """
    constant = None if isinstance(timespans, Tensor) else timespans
    weights = prepared(cell, constant, lambda: fuse(cell, constant))
    dtype, x, h = x.dtype, x.to(weights.dtype), h.to(weights.dtype)
    varying = timespans.to(h.dtype) if isinstance(timespans, Tensor) else None
    fits = cfc.fits(weights, h)
    if fits and is_frozen(cell) and h.device.type == "cpu":
        # An operator would take a sixth of a single step.
        states = cfc_cpu.frozen_forward(weights, x, h, varying, resets)
    elif fits and not kernels.have_tangents(x, h, *weights.tensors):
        states = cfc.run(weights, x, h, varying, resets)
    else:
        states = _plain(weights, x, h, timespans if varying is None else varying, resets)
    states = states.to(dtype)
    return states, states[-1].clone()  # may be changed in place without changing the output


def _plain(
    weights: FusedWeights, x: Tensor, h: Tensor, timespans: float | Tensor, resets: Tensor | None
) -> Tensor:
    """Return the states (T, B, N), layer after layer."""
    layers = [weights.linears] if weights.depth else [[linear] for linear in weights.linears]
    states: list[Tensor] = []
    for index, (maps, own) in enumerate(zip(layers, h.split(weights.layer_sizes, -1), strict=True)):
        (first, bias), *following = maps
        inputs = x.shape[-1]
        drive, recurrent = F.linear(x, first[:, :inputs], bias), first[:, inputs:].T
        pure = weights.pure[index] if weights.pure else None
        outputs = []
        for t, now in enumerate(drive.unbind(0)):
            if resets is not None:
                own = own.masked_fill(resets[t][:, None], 0.0)
            z = torch.addmm(now, own, recurrent)
            for weight, bias in following:
                z = F.linear(weights.activation.phi(z), weight, bias)
            timespan = timespans[t][:, None] if isinstance(timespans, Tensor) else timespans
            own = _mixed(weights, z, timespan, pure)
            outputs.append(own)
        x = torch.stack(outputs)
        states.append(x)
    return torch.cat(states, -1)


def _mixed(
    weights: FusedWeights,
    z: Tensor,
    timespan: float | Tensor,
    pure: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Return the new state (B, n) of a layer from its heads (B, D n)."""
    if pure is not None:
        w_tau, amplitude = pure
        return amplitude - amplitude * torch.exp(-timespan * (w_tau + z.abs())) * z
    if isinstance(timespan, Tensor):
        a, f1, f2, b = z.chunk(4, -1)
        z = torch.cat([f1, f2, torch.addcmul(b, a, timespan)], -1)
    s1, s2, gate = z.sigmoid().chunk(3, -1)
    if weights.mode == "no_gate":
        return 2 * torch.addcmul(s1, gate, s2 - 0.5) - 1
    return 2 * torch.lerp(s1, s2, gate) - 1


def scan_ltc(
    cell: LTCCell,
    x: Tensor,
    v: Tensor,
    timespans: float | Tensor,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return the states (T, B, N) of LTC neurons and the final state (B, N), as `scan`."""
    membrane = prepared(cell, None, cell.membrane)
    if ltc.fits(membrane, v) and not kernels.have_tangents(x, v, *membrane.tensors):
        states = ltc.run(membrane, x, v, timespans, resets, cell)
        return states, states[-1].clone()
    base = membrane.base(x)
    states = []
    for t, (conductance, pull) in enumerate(zip(*(part.unbind(0) for part in base), strict=True)):
        if resets is not None:
            v = v.masked_fill(resets[t][:, None], 0.0)
        timespan = timespans[t][:, None] if isinstance(timespans, Tensor) else timespans
        v = membrane.step((conductance, pull), v, timespan)
        states.append(v)
    return torch.stack(states), v


def step_call(
    cell: CfCCell | WiredCfCCell | LTCCell, x: Tensor, states: Tensor
) -> KernelCall | None:
    """Return one step of a cell as a call of a CPU kernel, or None where none fits.

    Args:
        cell: whose weights stay as they are.
        x: (B, I), read at each run.
        states: (B, N), written at each run; timespans are 1.
    """
    if isinstance(cell, LTCCell):
        membrane: Membrane = cell.membrane()
        return ltc_cpu.step_call(membrane, x, states) if ltc.fits(membrane, states) else None
    weights = fuse(cell, 1.0)
    return cfc_cpu.step_call(weights, x, states) if cfc.fits(weights, states) else None


def scan_steps(
    cell: Module,
    memory: MemoryCell | None,
    x: Tensor,
    h: Tensor,
    c: Tensor | None,
    timespans: float | Tensor,
    resets: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return states (T, B, N), final h and final c (B, N) or None, step after step of the cell.

    For what `scan` cannot do at once: mixed memory, which mixes the whole state in every step, and
    backbone dropout in training.

    Args:
        cell: of one step.
        memory: the memory cell, or None; then c is None.
        x: (T, B, I).
        h: (B, N).
        c: (B, N).
        timespans: a float, or (T, B).
        resets: (T, B) bool, or None.
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
