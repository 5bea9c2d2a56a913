"""Demonstrations: recorded episodes on disk, and datasets to clone policies from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ncp_agents.datasets.atari_cloning import AtariCloningDataset

__all__ = ["AtariCloningDataset"]


def __getattr__(name: str) -> object:
    """Import torch only with the dataset."""
    if name in __all__:
        from ncp_agents.datasets import atari_cloning

        return getattr(atari_cloning, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
