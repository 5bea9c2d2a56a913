"""Small environments that cannot be solved without memory, for tests and examples.

Importing this module registers `CartPoleNoVel-v1` with Gymnasium, and Gymnasium imports it for
`gymnasium.make("ncp_agents.envs.memory:CartPoleNoVel-v1")`.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

from ncp_agents.validation import check_integer

CART_POLE_MAX_STEPS = 500  # as CartPole-v1


class CartPoleNoVel(CartPoleEnv):
    """`CartPole-v1` without its velocities, which the agent must infer from past observations.

    Observations are (2,) float32: the cart's position in m and the pole's angle in rad. Reward 1
    a step, at most 500 steps. Linear policies without memory keep the pole up for some 50 steps.

    Source: Wierstra et al. 2007, "Solving Deep Memory POMDPs with Recurrent Policy Gradients".
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode=render_mode)
        full = self.observation_space
        assert isinstance(full, spaces.Box)
        self.observation_space = spaces.Box(
            _without_velocities(full.low), _without_velocities(full.high)
        )
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode → observation, info."""
        self._steps = 0
        observation, info = super().reset(seed=seed, options=options)
        return _without_velocities(observation), info

    def step(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, action: int
    ) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one step → observation, reward, terminated, truncated, info."""
        observation, reward, terminated, _, info = super().step(action)
        self._steps += 1
        truncated = self._steps >= CART_POLE_MAX_STEPS
        return _without_velocities(observation), float(reward), terminated, truncated, info


class RecallEnv(gymnasium.Env[np.ndarray, np.int64]):
    """Repeat the first observation's cue after `delay` steps.

    Observations are (cues + 1,) float32: first a cue, one-hot, then zeros, and at last a one in the
    last place when the answer is due. The action taken then has reward 1 if it is the cue's index,
    and the episode ends, after `delay + 1` steps. Other actions have no effect. Without memory the
    mean return is at most 1 / cues; with memory, 1.

    Raises:
        ValueError: delay below 1 or cues below 2.
    """

    def __init__(self, delay: int = 3, cues: int = 2) -> None:
        self.delay = check_integer("delay", delay, 1)
        self.cues = check_integer("cues", cues, 2)
        self.observation_space = spaces.Box(0.0, 1.0, (cues + 1,), np.float32)
        self.action_space = spaces.Discrete(cues)
        self._cue = 0
        self._step = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode → observation, info."""
        super().reset(seed=seed)
        self._cue = int(self.np_random.integers(self.cues))
        self._step = 0
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take one step → observation, reward, terminated, truncated, info."""
        terminated = self._step == self.delay
        reward = float(terminated and action == self._cue)
        self._step += 1
        return self._observation(), reward, terminated, False, {}

    def _observation(self) -> np.ndarray:
        observation = np.zeros(self.cues + 1, np.float32)
        if self._step == 0:
            observation[self._cue] = 1.0
        elif self._step == self.delay:
            observation[-1] = 1.0
        return observation


def _without_velocities(state: np.ndarray) -> np.ndarray:
    return state[[0, 2]]  # of (position, velocity, angle, angular velocity)


gymnasium.register("CartPoleNoVel-v1", entry_point="ncp_agents.envs.memory:CartPoleNoVel")
