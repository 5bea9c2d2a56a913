"""A policy of which some actions are random, for varied demonstrations."""

from __future__ import annotations

import numpy as np

from ncp_agents.agents.saved_policy import State
from ncp_agents.evaluation.rollout import Policy


class EpsilonGreedyPolicy:
    """Another policy, with a uniformly random action instead with probability `epsilon`."""

    def __init__(self, policy: Policy, actions: int, epsilon: float, seed: int) -> None:
        self.policy, self.actions, self.epsilon = policy, actions, epsilon
        self.random = np.random.default_rng(seed)

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        """Return actions (B,) and the policy's next state; see `SavedPolicy.predict`."""
        actions, state = self.policy.predict(observation, state, episode_start, deterministic)
        at_random = self.random.random(actions.shape) < self.epsilon
        uniform = self.random.integers(self.actions, size=actions.shape)
        return np.where(at_random, uniform, actions), state
