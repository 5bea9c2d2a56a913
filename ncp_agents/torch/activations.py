"""Activations of the backbone, each as `outer * phi(inner * z)` with its derivative.

The hyperbolic tangents are written as a logistic function, `tanh(z) = 2 sigmoid(2 z) - 1`: the
factors fold into the neighbouring weights, and a sigmoid costs a sixth of a tanh on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ncp_agents import registry


@dataclass(frozen=True)
class Activation:
    """`activation(z) = outer * phi(inner * z) + offset`, and d phi / d z from z and phi(z)."""

    phi: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]
    inner: float = 1.0
    outer: float = 1.0
    offset: float = 0.0

    def __call__(self, z: Tensor) -> Tensor:
        return self.outer * self.phi(self.inner * z) + self.offset


def _scaled_tanh(outer: float, inner: float) -> Activation:
    """Outer * tanh(inner * z)."""
    return Activation(
        phi=torch.sigmoid,
        derivative=_logistic_derivative,
        inner=2 * inner,
        outer=2 * outer,
        offset=-outer,
    )


# Functions with names, so that cells can be pickled.


def _logistic_derivative(z: Tensor, a: Tensor) -> Tensor:
    return a * (1 - a)


def _relu_derivative(z: Tensor, a: Tensor) -> Tensor:
    return (z > 0).to(z.dtype)


def _silu_derivative(z: Tensor, a: Tensor) -> Tensor:
    gate = torch.sigmoid(z)
    return gate * (1 + z * (1 - gate))


def _gelu_derivative(z: Tensor, a: Tensor) -> Tensor:
    density = torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(z / math.sqrt(2))) + z * density


ACTIVATIONS = {
    # LeCun et al. 1998, "Efficient BackProp", section 4.4, with the constants of ncps.
    "lecun_tanh": _scaled_tanh(1.7159, 0.666),
    "tanh": _scaled_tanh(1.0, 1.0),
    "relu": Activation(torch.relu, _relu_derivative),
    "silu": Activation(F.silu, _silu_derivative),
    "gelu": Activation(F.gelu, _gelu_derivative),
}


def find_activation(name: str) -> Activation:
    """The activation of that name; an unknown name is a ValueError with a suggestion."""
    return registry.get("activation", name, ACTIVATIONS)
