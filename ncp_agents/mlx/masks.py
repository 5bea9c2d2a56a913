"""Masks: parameters that are saved and loaded like any, and never trained."""

from __future__ import annotations

from typing import Any

from mlx import nn

MASKS = ["sparsity_mask", "sensory_sparsity_mask"]


class Masked(nn.Module):
    """A module whose masks stay frozen when it is unfrozen.

    MLX does not call this where a module around it is unfrozen, as with the statistics of
    `nn.BatchNorm`; the masks' gradients are 0 then.
    """

    def unfreeze(self, *args: Any, **kwargs: Any) -> nn.Module:
        """Unfreeze as `nn.Module` does, but not the masks."""
        super().unfreeze(*args, **kwargs)
        self.freeze(keys=MASKS)
        return self
