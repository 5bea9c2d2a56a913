"""What a cloning continues from: weights, optimiser, progress, and which episodes it was of."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from ncp_agents.agents.recipe import NonNegative
from ncp_agents.agents.weights import load_tensors, save_tensors
from ncp_agents.errors import UserError
from ncp_agents.schema import Finite, Validated, parse_json
from ncp_agents.training.checkpoint import Total, learning_state, restore_learning


@dataclass(frozen=True)
class CloningProgress(Validated):
    """How far a cloning has come."""

    epoch: Total = 0
    seconds: NonNegative = 0.0  # over all resumptions
    best_return: Finite | None = None  # of the evaluations
    best_loss: Finite | None = None  # on the validation episodes
    since_best_loss: Total = 0  # epochs


Hashes = dict[str, list[str]]
"""SHA-256 of the episodes by split."""


@dataclass(frozen=True)
class _Metadata(Validated):
    progress: CloningProgress
    episodes: Hashes


def save_checkpoint(
    path: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: CloningProgress,
    episodes: Hashes,
) -> None:
    """Replace the checkpoint."""
    metadata = json.dumps(asdict(_Metadata(progress, episodes)))
    save_tensors(path, learning_state(network, optimizer), {"cloning": metadata})


def load_checkpoint(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, episodes: Hashes
) -> CloningProgress:
    """Restore network and optimiser from a checkpoint.

    Raises:
        UserError: a checkpoint that is damaged, of another network or of other episodes.
    """
    tensors, metadata = load_tensors(path)
    if "cloning" not in metadata:
        raise UserError(f"{path} is not a checkpoint of a cloning")
    state = parse_json(_Metadata, metadata["cloning"], path)
    if state.episodes != episodes:
        raise UserError(f"{path} is of other demos; name those, or another --run")
    restore_learning(network, optimizer, tensors, path)
    return state.progress
