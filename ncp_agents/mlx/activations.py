"""Activations of the backbone, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx
from mlx import nn


@partial(mx.compile, shapeless=True)
def lecun_tanh(z: mx.array) -> mx.array:
    """LeCun et al. 1998, "Efficient BackProp", section 4.4, with the constants of ncps."""
    return 1.7159 * mx.tanh(0.666 * z)


ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "lecun_tanh": lecun_tanh,
    "tanh": mx.tanh,
    "relu": nn.relu,
    "silu": nn.silu,
    "gelu": nn.gelu,
}
