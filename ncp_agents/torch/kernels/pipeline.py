"""Kernels of the CPU one after the other, as one call of C.

A step of a few rows takes less time in the kernels than Python takes to call them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ncp_agents.torch.kernels.library import NULL, ffi, floats, library, padded, parallel_rows


class KernelCall(NamedTuple):
    """A kernel and its argument, ready to run as often as wanted."""

    kernel: str
    call: Any
    """A structure of `kernels.h`."""
    keep: Any
    """What the argument points into."""


class KernelPipeline:
    """Kernels that each read what the one before made of the same rows."""

    def __init__(self, calls: Sequence[KernelCall], rows: int) -> None:
        compiled = library()
        self.calls, self.rows = calls, rows
        pairs = [(getattr(compiled, each.kernel), each.call) for each in calls]
        self._argument = ffi.new("KernelCall[]", [*pairs, (NULL, NULL)])

    def run(self) -> None:
        """Run all kernels on all rows, in this thread."""
        parallel_rows("run_pipeline", self._argument, self.rows, operations=0.0)


def linear(weight: Tensor, bias: Tensor, x: Tensor, out: Tensor, relu: bool = False) -> KernelCall:
    """Return the call of a linear layer: out (B, O) of x (B, I).

    Args:
        weight: (O, I).
        bias: (O,).
        x: float32 without gaps, read at each run.
        out: float32 without gaps, written at each run.
        relu: whether a ReLU follows.
    """
    outputs, inputs = weight.shape
    fill = padded(outputs) - outputs
    packed = F.pad(weight, (0, 0, 0, fill)).T.contiguous(), F.pad(bias, (0, fill)).contiguous()
    call = ffi.new("LinearCall *", [*map(floats, (*packed, x, out)), inputs, outputs, relu])
    return KernelCall("linear_forward", call, (packed, x, out))
