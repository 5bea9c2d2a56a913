"""An epoch of supervised learning: truncated backpropagation through recorded episodes.

Axes: B sequences, T steps of a chunk, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from stable_baselines3.common.distributions import CategoricalDistribution
from torch import Tensor
from tqdm import tqdm

from ncp_agents.agents.recipe import Recipe
from ncp_agents.agents.saved_policy import build
from ncp_agents.datasets.sequences import Chunk, EpisodeSubset, chunks
from ncp_agents.errors import NonFiniteError
from ncp_agents.sb3.nonfinite import not_finite

VALIDATION_LENGTH = 256  # steps of a chunk without gradients: limits memory only

State = tuple[Tensor, ...]


class Losses(NamedTuple):
    """Sums over the steps of a chunk."""

    actor: Tensor
    """Cross-entropy."""
    critic: Tensor
    """Squared error of the predicted returns."""
    correct: float
    """Steps whose greedy action is the demonstrated one."""
    steps: int


class Learner:
    """A recipe's network and its optimiser.

    Args:
        recipe: of the network and of the cloning.
        class_weights: (A,) weights of the actions' losses; None weights all equally.
    """

    def __init__(self, recipe: Recipe, class_weights: Tensor | None) -> None:
        self.recipe, self.options, self.class_weights = recipe, recipe.cloning, class_weights
        torch.manual_seed(recipe.seed)
        self.network = build(recipe)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            self.options.learning_rate,
            eps=1e-5,
            fused=True,
            weight_decay=self.options.weight_decay,
        )

    def train(
        self, episodes: Sequence[EpisodeSubset], epoch: int, bar: tqdm
    ) -> tuple[float, float]:
        """Train on all episodes once, and return mean loss and accuracy per step.

        Raises:
            NonFiniteError: NaN or infinity in the weights.
        """
        options = self.options
        for group in self.optimizer.param_groups:
            group["lr"] = options.learning_rate * (1.0 - (epoch - 1) / options.epochs)
        self.network.set_training_mode(True)
        random = np.random.default_rng([self.recipe.seed, epoch])
        gamma, length = self.recipe.ppo.gamma, options.sequence_length
        loss, correct, steps = 0.0, 0.0, 0
        state = None
        for chunk in chunks(episodes, options.sequences, length, gamma, random):
            losses, state = self._losses(chunk, state)
            self.optimizer.zero_grad()
            total = losses.actor + self.recipe.ppo.vf_coef * losses.critic
            (total / losses.steps).backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), options.max_grad_norm)
            self.optimizer.step()
            bad = not_finite(self.network)
            if bad:
                raise NonFiniteError(
                    f"{bad[0]} is NaN or infinite in epoch {epoch}; name another --run and a "
                    "lower --cloning.learning-rate or --cloning.max-grad-norm"
                )
            actor = losses.actor.item()
            bar.set_postfix_str(f"training loss {actor / losses.steps:.3f}")
            loss, correct, steps = loss + actor, correct + losses.correct, steps + losses.steps
        return loss / steps, correct / steps

    @torch.no_grad()
    def validate(self, episodes: Sequence[EpisodeSubset]) -> tuple[float, float]:
        """Return mean loss and accuracy per step, of each episode from its first step on."""
        self.network.set_training_mode(False)
        loss, correct, steps = 0.0, 0.0, 0
        state = None
        for chunk in chunks(episodes, 1, VALIDATION_LENGTH, self.recipe.ppo.gamma):
            losses, state = self._losses(chunk, state)
            loss, correct = loss + losses.actor.item(), correct + losses.correct
            steps += losses.steps
        return loss / steps, correct / steps

    def _losses(self, chunk: Chunk, state: State | None) -> tuple[Losses, State]:
        """Return the losses, and the state after the chunk without gradients."""
        if state is None:
            _, _, neurons = self.network.lstm_hidden_state_shape
            state = (torch.zeros(1, len(chunk.actions), neurons),) * 2
        obs = torch.from_numpy(chunk.obs).flatten(0, 1)
        starts = torch.from_numpy(chunk.resets).flatten().float()
        distribution, values, state = self.network.distribution_and_values(obs, state, starts)
        mask = torch.from_numpy(chunk.mask).flatten()
        logits = cast(CategoricalDistribution, distribution).distribution.logits[mask]
        actions = torch.from_numpy(chunk.actions).flatten()[mask]
        returns = torch.from_numpy(chunk.returns).flatten()[mask]
        losses = Losses(
            actor=F.cross_entropy(logits, actions, self.class_weights, reduction="sum"),
            critic=F.mse_loss(values[:, 0][mask], returns, reduction="sum"),
            correct=float((logits.argmax(-1) == actions).sum()),
            steps=int(mask.sum()),
        )
        return losses, tuple(part.detach() for part in state)


def class_weights(episodes: Sequence[EpisodeSubset], actions: int) -> Tensor:
    """Return weights (A,), inverse to the actions' frequencies and 1 on average over the steps."""
    counts = np.zeros(actions)
    for source in episodes:
        for index in source.indices:
            np.add.at(counts, source.demos.read(index).actions, 1)
    taken = counts > 0
    weights = np.where(taken, counts.sum() / (taken.sum() * np.maximum(counts, 1)), 0.0)
    return torch.from_numpy(weights).float()
