"""An environment of random observations, rewards and episode lengths, for any spaces."""

import copy
from typing import Any

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

PICTURE = spaces.Box(0, 255, (1, 36, 36), "uint8")  # the smallest that every encoder reads
ROW = spaces.Box(-1.0, 1.0, (3,), "float32")
BOTH = spaces.Dict({"picture": PICTURE, "row": ROW})


class RandomEnv(gymnasium.Env[Any, Any]):
    """Episodes end after each step with probability `end`."""

    def __init__(
        self,
        observation_space: spaces.Space = ROW,
        action_space: spaces.Space | None = None,
        end: float = 0.2,
    ) -> None:
        self.observation_space = copy.deepcopy(observation_space)  # for its random numbers
        self.action_space = action_space or spaces.Discrete(3)
        self.end = end

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        ended = bool(self.np_random.random() < self.end)
        return self.observation_space.sample(), float(self.np_random.normal()), ended, False, {}


def random_envs(
    observation_space: spaces.Space = ROW,
    action_space: spaces.Space | None = None,
    count: int = 3,
    end: float = 0.2,
) -> VecEnv:
    """`count` of them side by side, each with its own random numbers."""
    return make_vec_env(
        RandomEnv,
        count,
        seed=0,
        env_kwargs={
            "observation_space": observation_space,
            "action_space": action_space,
            "end": end,
        },
    )
