"""Arrays of a whole sequence, (T, B, ·), in one of two orders of memory: batch first or time first.

Kernels take the inputs as they lie and put all they make in the same order, so that nothing of that
size is ever transposed.
"""

from __future__ import annotations

import torch
from torch import Tensor


def heads_of(timespans: Tensor | None) -> int:
    """Return D, how many linear maps each CfC neuron has: a gate of constant timespans is one."""
    return 3 if timespans is None else 4


def batch_first(values: Tensor) -> bool:
    """Return whether an array's batch comes first in memory."""
    return values.stride(0) < values.stride(1)


def ordered(x: Tensor) -> Tensor:
    """Return x without gaps, copied only if it has some."""
    return x if x.transpose(0, 1).is_contiguous() else x.contiguous()


def new_like(x: Tensor, width: int) -> Tensor:
    """Return an empty (T, B, width) in the order of x."""
    steps, rows, _ = x.shape
    if batch_first(x):
        return x.new_empty(rows, steps, width).transpose(0, 1)
    return x.new_empty(steps, rows, width)


def new_layers_like(x: Tensor, layers: int, width: int) -> Tensor:
    """Return an empty (layers, T, B, width), each layer in the order of x."""
    steps, rows, _ = x.shape
    if batch_first(x):
        return x.new_empty(layers, rows, steps, width).transpose(1, 2)
    return x.new_empty(layers, steps, rows, width)


def in_order_of(x: Tensor, values: Tensor) -> Tensor:
    """Return values of the same shape as x, copied only if their order differs."""
    return values if values.stride() == x.stride() else torch.empty_like(x).copy_(values)


def flat(values: Tensor) -> Tensor:
    """Return values (T, B, ·) as (T B, ·) in the order of memory."""
    return (values.transpose(0, 1) if batch_first(values) else values).flatten(0, 1)
