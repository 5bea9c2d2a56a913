"""Kernels of the CPU one after the other, as one call of C.

A step of a few rows takes less time in the kernels than Python takes to call them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_int32, c_void_p
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ncp_agents.torch.kernels.library import address, address_of, padded, parallel_rows


class KernelCall(NamedTuple):
    """A kernel and its argument, ready to run as often as wanted."""

    kernel: str
    call: ctypes.Structure
    reads: Any
    """What the argument points into, to be kept as long."""


class _Link(ctypes.Structure):
    """`KernelCall` of team.c."""

    _fields_ = (("kernel", c_void_p), ("call", c_void_p))


class KernelPipeline:
    """Links that each read what the one before made of the same rows."""

    def __init__(self, links: Sequence[KernelCall], rows: int) -> None:
        ends = _Link(None, None)
        self.links, self.rows = links, rows
        self._argument = (_Link * (len(links) + 1))(
            *(_Link(address_of(link.kernel), ctypes.addressof(link.call)) for link in links), ends
        )

    def run(self) -> None:
        parallel_rows("chain", self._argument, self.rows, operations=0.0)


class _Linear(ctypes.Structure):
    """`Linear` of linear.c."""

    _fields_ = (
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("in", c_void_p),
        ("out", c_void_p),
        ("inputs", c_int32),
        ("outputs", c_int32),
        ("relu", c_int32),
    )


def linear(weight: Tensor, bias: Tensor, x: Tensor, out: Tensor, relu: bool = False) -> KernelCall:
    """out (B, O) of x (B, I) by a layer of weight (O, I) and bias (O,), with ReLU after it if
    `relu`. All in float32, x and out without gaps.
    """
    outputs, inputs = weight.shape
    fill = padded(outputs) - outputs
    packed = F.pad(weight, (0, 0, 0, fill)).T.contiguous(), F.pad(bias, (0, fill)).contiguous()
    addresses = map(address, (*packed, x, out))
    call = _Linear(*addresses, inputs, outputs, relu)
    return KernelCall("linear_forward", call, (packed, x, out))
