"""A look for numbers that are none."""

from __future__ import annotations

import torch
from torch import nn


def not_finite(network: nn.Module) -> list[str]:
    """Names of the parameters with NaN or infinite values."""
    return [name for name, p in network.named_parameters() if not torch.isfinite(p).all()]
