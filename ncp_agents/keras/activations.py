"""Activations of the backbone and their derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ncp_agents.keras.ops import Tensor, ops


class Activation(NamedTuple):
    """An activation a(z) and its derivative from z and a(z)."""

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor, Tensor], Tensor]


def _scaled_tanh(outer: float, inner: float) -> Activation:
    """outer * tanh(inner * z)."""
    return Activation(
        lambda z: outer * ops.tanh(inner * z),
        lambda z, a: inner * (outer - a * a / outer),
    )


def _silu_derivative(z: Tensor, a: Tensor) -> Tensor:
    gate = ops.sigmoid(z)
    return gate + a * (1 - gate)


def _gelu_derivative(z: Tensor, a: Tensor) -> Tensor:
    density = ops.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + ops.erf(z / math.sqrt(2))) + z * density


ACTIVATIONS = {
    # LeCun et al. 1998, "Efficient BackProp", section 4.4, with the constants of ncps.
    "lecun_tanh": _scaled_tanh(1.7159, 0.666),
    "tanh": _scaled_tanh(1.0, 1.0),
    "relu": Activation(ops.relu, lambda z, a: ops.cast(z > 0, z.dtype)),
    "silu": Activation(ops.silu, _silu_derivative),
    "gelu": Activation(lambda z: ops.gelu(z, approximate=False), _gelu_derivative),
}


def name_of(activation: str | Callable[..., Any]) -> str:
    """Return the name of an activation or of a function such as `keras.activations.tanh`."""
    return activation if isinstance(activation, str) else getattr(activation, "__name__", "?")
