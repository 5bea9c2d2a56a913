"""The linear heads of a CfC cell: plain weights and bias that no outer initialiser touches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Head(nn.Module):
    """y = x W^T + b, W (outputs, inputs).

    Not an `nn.Linear` on purpose: stable-baselines3's `ortho_init`, like many scripts, rewrites
    every `nn.Linear` it finds, and a circuit keeps its own initialisation.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        nn.init.xavier_uniform_(self.weight)
        bound = 1 / math.sqrt(inputs)
        nn.init.uniform_(self.bias, -bound, bound)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """W and b, as `torch.nn.utils.prune` and parametrisations make them before each use."""
        return self(None)  # a call, since hooks run before it

    def forward(self, x: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
        """x (…, inputs) → (…, outputs), or for None → W and b."""
        if x is None:
            return self.weight, self.bias
        return nn.functional.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the sizes, for `repr`."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}"
