"""Activations of the backbone, each as `outer * phi(inner * z) + offset`.

The hyperbolic tangents are written as a logistic function, `tanh(z) = 2 sigmoid(2 z) - 1`: the
factors fold into the neighbouring weights, and a sigmoid costs a sixth of a tanh on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """`activation(z) = outer * phi(inner * z) + offset`."""

    phi: Callable[[Tensor], Tensor]
    kernel: str = ""
    """Name of phi where the kernels have it."""
    inner: float = 1.0
    outer: float = 1.0
    offset: float = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        """Return the activations of z, of the same shape."""
        return self.outer * self.phi(self.inner * z) + self.offset


def _scaled_tanh(outer: float, inner: float) -> Activation:
    """Return outer * tanh(inner * z)."""
    return Activation(torch.sigmoid, "sigmoid", inner=2 * inner, outer=2 * outer, offset=-outer)


ACTIVATIONS = {
    # LeCun et al. 1998, "Efficient BackProp", section 4.4, with the constants of ncps.
    "lecun_tanh": _scaled_tanh(1.7159, 0.666),
    "tanh": _scaled_tanh(1.0, 1.0),
    "relu": Activation(torch.relu, "relu"),
    "silu": Activation(F.silu),
    "gelu": Activation(F.gelu),
}
