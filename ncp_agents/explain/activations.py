"""A policy's games with all that it saw, felt and did: what the video and the page show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from stable_baselines3.common.distributions import CategoricalDistribution

from ncp_agents.agents.saved_policy import SavedPolicy, State
from ncp_agents.evaluation.rollout import Step
from ncp_agents.explain.circuit_graph import gates
from ncp_agents.explain.frame_store import FrameStore
from ncp_agents.torch.sequence_layer import SequenceLayer


class Activations(NamedTuple):
    """What one step was inside, in each of B games."""

    features: np.ndarray  # (B, I)
    before: np.ndarray  # (B, N), the state that the neurons read
    state: np.ndarray  # (B, N)
    probabilities: np.ndarray  # (B, A)
    values: np.ndarray  # (B,)


class ActivationRecorder:
    """Plays like the policy itself, and keeps its last `activations`."""

    def __init__(self, policy: SavedPolicy) -> None:
        self.policy = policy
        self.activations: Activations | None = None

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        """As `SavedPolicy.act`."""
        network, circuit = self.policy.network, self.policy.network.circuit
        count = len(observation)
        if state is None:
            state = (np.zeros((1, count, circuit.state_size), np.float32),) * 2
        if episode_start is None:
            episode_start = np.zeros(count, bool)
        h, c = (torch.as_tensor(part, device=network.device) for part in state)
        starts = torch.as_tensor(episode_start, dtype=torch.float32, device=network.device)
        with torch.no_grad():
            seen, _ = network.obs_to_tensor(observation)
            features = network.extract_features(seen)
            features = features[0] if isinstance(features, tuple) else features
            kept = (1 - starts)[:, None] * network.memory
            before = h[0] * kept
            cell = circuit.lstm if isinstance(circuit, SequenceLayer) else None
            if cell is not None:
                before, _ = cell(cell.input_map(features), before, c[0] * kept)
            distribution, values, (h, c) = network.distribution_and_values(seen, (h, c), starts)
            assert isinstance(distribution, CategoricalDistribution)
            actions = self.policy.choose(distribution.distribution.logits, deterministic)
        probabilities = distribution.distribution.probs
        shown = (features, before, h[0], probabilities, values[:, 0])
        self.activations = Activations(*(part.cpu().numpy() for part in shown))
        return actions.cpu().numpy(), (h.cpu().numpy(), c.cpu().numpy())


@dataclass(frozen=True)
class Trace:
    """Steps of one environment. Axes: T steps, I features, N neurons, A actions."""

    screens: FrameStore  # T, each what the step was decided on
    features: np.ndarray  # (T, I) float32
    before: np.ndarray  # (T, N) float32
    state: np.ndarray  # (T, N) float32
    gates: np.ndarray  # (T, N) float32
    probabilities: np.ndarray  # (T, A) float32
    values: np.ndarray  # (T,) float32, of the clipped and discounted rewards to come
    actions: np.ndarray  # (T,) int64
    rewards: np.ndarray  # (T,) float32, unclipped
    resets: np.ndarray  # (T,) bool: memory starts here, with a game or with a life
    ends: np.ndarray  # (T,) bool: the last step of a game

    def __len__(self) -> int:
        return len(self.values)

    @property
    def signals(self) -> np.ndarray:
        """(T, K), as `circuit_graph` orders them."""
        return np.concatenate(
            [self.features, self.state, self.probabilities, self.before, self.gates], 1
        )

    @property
    def returns(self) -> np.ndarray:
        """(T,): the game's score, with this step's reward in it."""
        games = np.split(self.rewards, np.flatnonzero(self.ends) + 1)
        return np.concatenate([np.cumsum(game, dtype=np.float64) for game in games])


def trace(player: ActivationRecorder, steps: Iterable[Step]) -> Trace:
    """The trace of the first environment, in whose steps `player` plays.

    Raises:
        ValueError: steps without screens, or no steps.
    """
    screens = FrameStore()
    rows = []
    for step in steps:
        if step.rgb_frames is None:
            raise ValueError(
                "the steps have no screens; make AtariVecEnv with render_mode='rgb_array'"
            )
        assert player.activations is not None
        screens.append(step.rgb_frames[0])
        own = (part[0] for part in player.activations)
        ends = "episode" in step.infos[0]
        rows.append((*own, step.actions[0], step.rewards[0], step.resets[0], ends))
    if not rows:
        raise ValueError("there are no steps, expected at least one")
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    features, before, state, probabilities, values, actions, rewards, resets, ends = columns
    return Trace(
        screens,
        features,
        before,
        state,
        gates(player.policy, features, state, before),
        probabilities,
        values,
        actions,
        rewards,
        resets,
        ends,
    )
