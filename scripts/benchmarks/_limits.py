"""What a machine can do at most, for the benchmarks beside this file."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ncp_agents.torch import LTCCell, WiredCfCCell, kernels
from ncp_agents.torch.cfc_cell import CfCCell
from ncp_agents.torch.heads import Head


def rate(work: Callable[[], Any], amount: float, seconds: float) -> float:
    """Amount of work a second: the median over as many goes as fit."""
    work()
    times: list[float] = []
    while sum(times) < seconds or len(times) < 3:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return amount / median(times)


def machine_speed(seconds: float) -> tuple[float, float]:
    """Floating-point operations a second in a matrix product, and sigmoids a second."""
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    values, out = torch.randn(2**16), torch.empty(2**16)
    with torch.no_grad():
        flops = rate(lambda: torch.mm(a, b), 2 * 512**3, seconds)
        sigmoids = rate(lambda: torch.sigmoid(values, out=out), 2**16, seconds)
    return flops, sigmoids


def both_ways(forward: Callable[[], Tensor]) -> Callable[[], None]:
    return lambda: forward().sum().backward()


def operations(work: Callable[[], Any]) -> int:
    """Floating-point operations, counted without kernels, whose operations the counter misses."""
    with kernels.off(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def percent(speed: float, limit: float) -> str:
    return f"{100 * speed / limit:.0f} %"


def work(cell: nn.Module) -> tuple[float, float]:
    """Floating-point operations of the matrix products, and sigmoids, of one row's step forward,
    with a constant timespan, of a CfCCell, WiredCfCCell or LTCCell."""
    if isinstance(cell, LTCCell):
        count = cell.sensory_synapse_count + cell.ode_unfolds * cell.synapse_count
        return 0.0, float(count)
    if isinstance(cell, WiredCfCCell):
        parts = [work(layer) for layer in cell.cells]
        return sum(products for products, _ in parts), sum(sigmoids for _, sigmoids in parts)
    assert isinstance(cell, CfCCell)
    heads = 1 if cell.mode == "pure" else 3  # time_a and time_b are one head
    backbone = [part for part in cell.backbone.values() if isinstance(part, Head)]
    weights = heads * cell.ff1.weight.numel() + sum(part.weight.numel() for part in backbone)
    sigmoids = heads * cell.hidden_size + sum(part.weight.shape[0] for part in backbone)
    return 2.0 * weights, float(sigmoids)


def floor(cell: nn.Module, steps: int, peak: float, sigmoids: float) -> tuple[float, float]:
    """Seconds that arithmetic takes for so many rows and steps, forward, and with the backward,
    which has two matrix products for one, and an LTC's sigmoids again."""
    products, squashed = work(cell)
    forward = steps * (products / peak + squashed / sigmoids)
    again = squashed if isinstance(cell, LTCCell) else 0.0
    return forward, forward + steps * (2 * products / peak + again / sigmoids)
