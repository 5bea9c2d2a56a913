"""Native kernels behind operators of torch, each equal to the plain path up to float rounding.

`torch.ops.ncp_agents` has operators for CfC, LTC and convolutions, in C for the CPU and in Triton
for GPUs. They are chosen by themselves where they fit. `with kernels.off():`, or the environment
variable `NCP_AGENTS_KERNELS=0`, keeps to plain torch, which can be differentiated as often as
wanted and takes part in every transform.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd import forward_ad

_on = os.environ.get("NCP_AGENTS_KERNELS") != "0"


def are_on() -> bool:
    """Return whether kernels may be used here.

    An exported or traced program must run where this package is not installed: in plain torch.
    """
    return _on and not (
        torch.compiler.is_exporting() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    )


@contextmanager
def off() -> Iterator[None]:
    """Return a context without kernels, in all threads."""
    global _on
    before, _on = _on, False
    try:
        yield
    finally:
        _on = before


def have_tangents(*tensors: Tensor) -> bool:
    """Return whether forward-mode differentiation follows any of these tensors.

    Operators have derivatives in reverse mode only, and torch drops others without an error.
    """
    return not torch.compiler.is_compiling() and any(
        forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    )
