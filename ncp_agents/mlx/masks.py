"""Masks: parameters that are saved and loaded like any, and never trained."""

from __future__ import annotations

from mlx import nn

MASKS = ("sparsity_mask", "sensory_sparsity_mask")


class FrozenMasks(set[str]):
    """The names of a module's frozen parameters, which keeps the masks.

    `Module.unfreeze` empties this set in every module below, and asks none of them.
    """

    def clear(self) -> None:
        self.intersection_update(MASKS)


def freeze_masks(module: nn.Module) -> None:
    """Freeze the masks of a module for good."""
    module._no_grad = FrozenMasks(name for name in MASKS if name in module)
