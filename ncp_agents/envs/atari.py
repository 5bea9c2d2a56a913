"""Atari games as a stable-baselines3 `VecEnv`, stepped by ALE's own C++ threads."""

import math
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium import Wrapper, spaces
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvIndices

from ncp_agents.envs.games import normalise_game, screen_size
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.envs.protocol import protocol as named_protocol
from ncp_agents.validation import check_integer


class AtariVecEnv(VecEnv):
    """`num_envs` copies of one game, stepped together.

    Observations are `(B, frame_stack, 84, 84)` uint8, B = `num_envs`: channels first, as
    stable-baselines3's convolutional policies expect. Rewards are `(B,)` float32.

    An episode that ends is reset within the same step: the observation is then the next episode's
    first, and the ended one's last is `info["terminal_observation"]`. `done` is True at

    - a *game over*;
    - a *truncation* by `max_frames`, with `info["truncated"]` True, and so is
      `info["TimeLimit.truncated"]`, by which stable-baselines3 adds the value of what would have
      followed, unless a life was lost in the same step: nothing follows a life;
    - a *lost life*, if the protocol says `life_loss`. The episode continues with the next step, and
      observation and terminal observation are the same frame.

    At the end of an episode, and only there, `info["episode"]` holds its unclipped return `r`, its
    length `l` in steps, and the seconds `t` since this object was made, as `Monitor` writes them.
    `info` is empty where `done` is False.

    The same seed and actions give the same episodes, bit for bit.

    Args:
        game: any spelling of its name, see `normalise_game`.
        num_envs: B.
        protocol: "v4", "v5", or an `AtariProtocol`.
        seed: environment i starts from `seed + i` at the first reset; None samples seeds. `seed()`
            sets them for the next reset.
        num_threads: of ALE, at most one an environment; 0 takes at most one a CPU.
        render_mode: None, or "rgb_array" to emulate every episode a second time in colour, in
            lockstep, for `get_images`. Half as fast.

    Raises:
        UnknownNameError: unknown game or protocol.
        ValueError: num_envs below 1, num_threads below 0, another render_mode.
    """

    def __init__(
        self,
        game: str,
        num_envs: int = 8,
        protocol: str | AtariProtocol = "v4",
        seed: int | None = None,
        num_threads: int = 0,
        render_mode: str | None = None,
    ) -> None:
        check_integer("num_envs", num_envs, 1)
        check_integer("num_threads", num_threads, 0)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(
                f"render_mode is {render_mode!r}, expected None or 'rgb_array', whose frames "
                "get_images() returns"
            )
        self.game = normalise_game(game)
        self.protocol = named_protocol(protocol)
        self.render_mode = render_mode

        size = (self.protocol.frame_size, self.protocol.frame_size)
        stack = self.protocol.frame_stack
        threads = min(num_envs, num_threads or available_cpus())
        self._emulators = make_emulators(self.game, num_envs, self.protocol, size, stack, threads)
        self._rgb_emulators = None
        if render_mode is not None:
            size = screen_size(self.game)
            self._rgb_emulators = make_emulators(
                self.game, num_envs, self.protocol, size, 1, threads, grayscale=False
            )
        observation_space = self._emulators.single_observation_space
        action_space = self._emulators.single_action_space
        assert isinstance(observation_space, spaces.Box)
        assert isinstance(action_space, spaces.Discrete)
        super().__init__(num_envs, observation_space, action_space)

        self._num_actions = int(action_space.n)
        self._max_steps = math.ceil(self.protocol.max_frames / self.protocol.frame_skip)
        self._started = time.time()
        self._pending_seeds: list[int] | None = None  # of the next reset
        self._seeded = False
        self._stepping = False
        self._rgb_frames: np.ndarray | None = None  # (B, 1, H, W, 3)
        self._lives = np.zeros(num_envs, np.int32)
        self._returns = np.zeros(num_envs, np.int64)  # unclipped, of the running episodes
        self._lengths = np.zeros(num_envs, np.int64)  # steps
        if seed is not None:
            self.seed(seed)

    def seed(self, seed: int | None = None) -> list[int]:
        """Set and return the seeds (B,) of the next reset, `seed + i` for environment i."""
        first = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._pending_seeds = [first + i for i in range(self.num_envs)]
        return self._pending_seeds

    def reset(self) -> np.ndarray:
        """Start new episodes → observations (B, frame_stack, 84, 84)."""
        if self._stepping:
            self.step_wait()
        seeds = self._next_seeds()
        observations, info = self._emulators.reset(seed=seeds)
        if self._rgb_emulators is not None:
            self._rgb_frames, _ = self._rgb_emulators.reset(seed=seeds)
        self._lives = info["lives"]
        self._returns[:] = 0
        self._lengths[:] = 0
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Start a step with actions (B,), action indices."""
        actions = np.asarray(actions).astype(np.int64, casting="safe", copy=False)
        # ALE hangs on an action out of range. As unsigned numbers, negative ones are too large.
        known = actions.view(np.uint64) < self._num_actions
        if actions.shape != (self.num_envs,) or not known.all():
            raise ValueError(
                f"actions are {actions.tolist()}, expected {self.num_envs} integers from 0 to "
                f"{self._num_actions - 1}; get_action_meanings() names them"
            )
        self._emulators.send(actions)
        if self._rgb_emulators is not None:
            self._rgb_emulators.send(actions)
        self._stepping = True

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Finish a step → observations (B, frame_stack, 84, 84), rewards, dones (B,), B infos."""
        observations, rewards, terminated, _, info = self._emulators.recv()
        self._stepping = False
        if self._rgb_emulators is not None:
            self._rgb_frames, *_ = self._rgb_emulators.recv()

        self._returns += rewards
        self._lengths += 1
        lives = info["lives"]
        lost_life = np.zeros_like(terminated)
        if self.protocol.life_loss:
            # Some games show no lives for a moment before they continue or end: not a loss.
            lost_life = (lives < self._lives) & (lives > 0) & ~terminated
        truncated = (self._lengths >= self._max_steps) & ~terminated
        last_observations = observations
        if truncated.any():
            observations, lives = self._reset_where(truncated)
        self._lives = lives

        dones = terminated | truncated | lost_life
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for index in np.flatnonzero(dones):
            last = info["final_obs"] if terminated[index] else last_observations
            # A copy, because a view would keep the whole batch in memory.
            infos[index]["terminal_observation"] = last[index].copy()
            if terminated[index] or truncated[index]:
                infos[index]["truncated"] = bool(truncated[index])
                infos[index]["TimeLimit.truncated"] = bool(truncated[index] & ~lost_life[index])
                infos[index]["episode"] = self._finish_episode(int(index))
        if self.protocol.clip_rewards:
            rewards = np.sign(rewards)
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Stop ALE's threads."""
        for name in ("_emulators", "_rgb_emulators"):
            if hasattr(self, name):
                delattr(self, name)  # the last reference; ALE's destructor joins the threads

    def get_action_meanings(self) -> list[str]:
        """Return the names of the actions, by action index."""
        return [action.name for action in self._emulators.ale.get_action_set()]

    def get_images(self) -> Sequence[np.ndarray]:
        """Return the B current frames in colour, each (H, W, 3) uint8, most often 210 by 160.

        Like the observations, each is the maximum of a step's last two frames.

        Raises:
            RuntimeError: made without render_mode="rgb_array", or not reset yet.
        """
        if self._rgb_frames is None:
            raise RuntimeError(
                "no frames: make AtariVecEnv with render_mode='rgb_array' and reset it"
            )
        return list(self._rgb_frames[:, 0])

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return this object's attribute, once for each index."""
        value = getattr(self, attr_name)
        return [value] * self._count(indices)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Raise AttributeError: the emulators are C++ and share one protocol."""
        raise AttributeError(
            f"cannot set {attr_name!r}; make another AtariVecEnv with the protocol you want"
        )

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Call `get_action_meanings`, the only method, once for each index."""
        if method_name != "get_action_meanings":
            raise AttributeError(f"no method {method_name!r}, expected 'get_action_meanings'")
        return [self.get_action_meanings()] * self._count(indices)

    def env_is_wrapped(
        self, wrapper_class: type[Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return True for `Monitor`, whose statistics `info["episode"]` holds."""
        return [issubclass(wrapper_class, Monitor)] * self._count(indices)

    def _count(self, indices: VecEnvIndices) -> int:
        """Return how many environments are meant: all where indices are None."""
        if indices is None:
            return self.num_envs
        return 1 if isinstance(indices, int) else len([*indices])

    def _next_seeds(self) -> np.ndarray:
        """Return seeds (B,) for the next reset, -1 to continue with the same random numbers."""
        if self._pending_seeds is None and self._seeded:
            return np.full(self.num_envs, -1)
        # Sampled here where none is given, so that the emulators in colour get the same ones.
        seeds = np.asarray(self._pending_seeds or self.seed(), np.int64) % 2**31  # C++ ints
        self._pending_seeds, self._seeded = None, True
        return seeds

    def _reset_where(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reset the environments of a mask (B,) → observations (B, ...) and lives (B,) of all."""
        seeds, options = np.full(int(mask.sum()), -1), {"reset_mask": mask}
        observations, info = self._emulators.reset(seed=seeds, options=options)
        if self._rgb_emulators is not None:
            self._rgb_frames, _ = self._rgb_emulators.reset(seed=seeds, options=options)
        return observations, info["lives"]

    def _finish_episode(self, index: int) -> dict[str, float]:
        episode = {
            "r": float(self._returns[index]),
            "l": int(self._lengths[index]),
            "t": round(time.time() - self._started, 6),
        }
        self._returns[index] = 0
        self._lengths[index] = 0
        return episode


def make_emulators(
    game: str,
    num_envs: int,
    protocol: AtariProtocol,
    size: tuple[int, int],
    stack: int,
    threads: int,
    grayscale: bool = True,
    maxpool: bool = True,
) -> AtariVectorEnv:
    """Return ALE's environments for a protocol.

    `AtariVecEnv` does itself what ALE does otherwise:

    - episodic_life resets the whole game at each lost life; with life_loss_info, a game over
      and a lost life are not distinguished;
    - reward_clipping would clip the returns;
    - ALE's frame limit ends an episode within a step, before the frame to be observed: the last
      observation, whose value an agent bootstraps, would mix in the step before.
    """
    return AtariVectorEnv(
        game,
        num_envs,
        num_threads=threads,
        max_num_frames_per_episode=2**30,  # 207 days
        repeat_action_probability=protocol.sticky_actions,
        full_action_space=protocol.full_action_space,
        autoreset_mode=AutoresetMode.SAME_STEP,
        img_height=size[0],
        img_width=size[1],
        grayscale=grayscale,
        maxpool=maxpool,
        stack_num=stack,
        frameskip=protocol.frame_skip,
        noop_max=protocol.noop_max,
        use_fire_reset=protocol.fire_on_reset,
        reward_clipping=False,
    )


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux; honours containers' and taskset's limits
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
