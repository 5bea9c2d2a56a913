"""Non-finite check of a network's weights."""

from __future__ import annotations

import torch
from torch import nn


def not_finite(network: nn.Module) -> list[str]:
    """Return the names of the parameters with NaN or infinite values."""
    return [name for name, p in network.named_parameters() if not torch.isfinite(p).all()]
