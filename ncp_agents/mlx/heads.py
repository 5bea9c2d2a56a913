"""The linear heads of a CfC cell."""

from __future__ import annotations

import math

import mlx.core as mx
from mlx import nn


def head(inputs: int, outputs: int) -> nn.Linear:
    """Y = x W^T + b, W (outputs, inputs) drawn by Xavier's rule, as in ncps."""
    linear = nn.Linear(inputs, outputs)
    bound = math.sqrt(6 / (inputs + outputs))
    linear.weight = mx.random.uniform(-bound, bound, (outputs, inputs))
    return linear
