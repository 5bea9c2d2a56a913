"""LTC neurons over a sequence: which operator takes them.

Axes: B batch, T steps, I inputs, N neurons.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ncp_agents.torch import kernels
from ncp_agents.torch.frozen import is_frozen, prepared
from ncp_agents.torch.kernels import ltc_cpu
from ncp_agents.torch.kernels.library import available
from ncp_agents.torch.ltc_cell import LTCCell, Membrane


def fits(membrane: Membrane, v: Tensor) -> bool:
    """Return whether an operator takes these parameters and this state."""
    if not (kernels.are_on() and v.dtype == torch.float32):
        return False
    if any(each.dtype != v.dtype or each.device != v.device for each in membrane.tensors):
        return False
    if v.device.type == "cpu":
        return available()
    if v.device.type == "cuda":
        from ncp_agents.torch.kernels import ltc_triton

        return ltc_triton.fits(v)
    return False


def run(
    membrane: Membrane,
    x: Tensor,
    v: Tensor,
    timespans: float | Tensor,
    resets: Tensor | None,
    cell: LTCCell,
) -> Tensor:
    """Return v after every step, (T, B, N).

    Args:
        membrane: that fits.
        x: (T, B, I).
        v: (B, N).
        timespans: a float, or (T, B).
        resets: (T, B) bool, or None.
        cell: of the membrane. A single step of frozen weights is called without an operator, which
            would slow it down.
    """
    if v.device.type == "cuda":
        from ncp_agents.torch.kernels import ltc_triton

        return ltc_triton.run(membrane, x, v, timespans, resets)
    parameters, indices = prepared(
        cell, "cpu", lambda: (ltc_cpu.parameters(membrane), ltc_cpu.indices(membrane))
    )
    varying, constant = (timespans, 0.0) if isinstance(timespans, Tensor) else (None, timespans)
    inputs = [x, v, *parameters] + ([] if varying is None else [varying])
    keep = torch.is_grad_enabled() and any(each.requires_grad for each in inputs)
    operator = ltc_cpu.forward if is_frozen(cell) else ltc_cpu.ltc
    states, *_ = operator(
        *(x, v, varying, resets, *parameters, indices),
        *(constant, membrane.unfolds, membrane.epsilon, keep),
    )
    return states
