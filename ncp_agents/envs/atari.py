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


class AtariVecEnv(VecEnv):
    """`num_envs` games of one kind, played side by side.

    Observations are `(B, frame_stack, 84, 84)` uint8, B = `num_envs`: channels first, so
    stable-baselines3's convolutional policies take them as they are. Rewards are `(B,)` float32.

    A game that ends starts again within the same step: the observation is then the new game's
    first, and the ended game's last is `info["terminal_observation"]`. Of the three ways in which
    `done` becomes True,

    - *game over* ends the game;
    - *truncation* by `max_frames` ends it too, with `info["TimeLimit.truncated"]` True;
    - *a lost life*, reported if the protocol says `life_loss`, does not: the next step goes on in
      the same game, and observation and terminal observation are the same frame.

    Where a game ends, and only there, `info["episode"]` holds the whole game's unclipped score
    `r`, its length `l` in steps, and the seconds `t` since this object was made, as `Monitor`
    writes them. `info` is empty where `done` is False.

    The same seed and the same actions give the same games, bit for bit.

    Args:
        game: any spelling of its name, see `normalise_game`.
        num_envs: B.
        protocol: "v4", "v5", or an `AtariProtocol`.
        seed: game i starts from `seed + i` at the first reset; None draws fresh seeds. `seed()`
            sets them anew for the next reset.
        num_threads: of ALE, up to one a game; 0 takes up to one a CPU.
        render_mode: None, or "rgb_array" to play every game a second time in colour, in lockstep,
            for `get_images`. Half as fast.

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
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}, expected >= 1; usual is 8")
        if num_threads < 0:
            raise ValueError(f"num_threads is {num_threads}, expected >= 0; 0 chooses for you")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(
                f"render_mode is {render_mode!r}, expected None or 'rgb_array'; "
                "show what get_images() returns to watch a game"
            )
        self.game = normalise_game(game)
        self.protocol = named_protocol(protocol)
        self.render_mode = render_mode

        size = (self.protocol.frame_size, self.protocol.frame_size)
        stack = self.protocol.frame_stack
        threads = min(num_envs, num_threads or available_cpus())
        self._games = emulators(self.game, num_envs, self.protocol, size, stack, threads)
        self._colour_games = None
        if render_mode is not None:
            size = screen_size(self.game)
            self._colour_games = emulators(
                self.game, num_envs, self.protocol, size, 1, threads, grayscale=False
            )
        observation_space = self._games.single_observation_space
        action_space = self._games.single_action_space
        assert isinstance(observation_space, spaces.Box)
        assert isinstance(action_space, spaces.Discrete)
        super().__init__(num_envs, observation_space, action_space)

        self._actions = int(action_space.n)
        self._max_steps = math.ceil(self.protocol.max_frames / self.protocol.frame_skip)
        self._started = time.time()
        self._seeded = False
        self._stepping = False
        self._screens: np.ndarray | None = None  # (B, 1, H, W, 3)
        self._lives = np.zeros(num_envs, np.int32)
        self._scores = np.zeros(num_envs, np.int64)  # unclipped, of the running games
        self._lengths = np.zeros(num_envs, np.int64)  # steps
        if seed is not None:
            self.seed(seed)

    def reset(self) -> np.ndarray:
        """Start all games anew → observations (B, frame_stack, 84, 84)."""
        if self._stepping:
            self.step_wait()
        seeds = self._next_seeds()
        observations, info = self._games.reset(seed=seeds)
        if self._colour_games is not None:
            self._screens, _ = self._colour_games.reset(seed=seeds)
        self._lives = info["lives"]
        self._scores[:] = 0
        self._lengths[:] = 0
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Set ALE's threads going with actions (B,), action indices."""
        actions = np.asarray(actions).astype(np.int64, casting="safe", copy=False)
        # ALE never answers to an action it does not know. As unsigned numbers, negative ones
        # are too large as well.
        if actions.shape != (self.num_envs,) or (actions.view(np.uint64) >= self._actions).any():
            raise ValueError(
                f"actions are {actions.tolist()}, expected {self.num_envs} integers from 0 to "
                f"{self._actions - 1}; get_action_meanings() names them"
            )
        self._games.send(actions)
        if self._colour_games is not None:
            self._colour_games.send(actions)
        self._stepping = True

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """→ observations (B, frame_stack, 84, 84), rewards (B,), dones (B,), B infos."""
        observations, rewards, terminated, _, info = self._games.recv()
        self._stepping = False
        if self._colour_games is not None:
            self._receive_screens(rewards, info)

        self._scores += rewards
        self._lengths += 1
        lives = info["lives"]
        lost_life = np.zeros_like(terminated)
        if self.protocol.life_loss:
            # Some games show no lives for a moment before they go on or end: not a loss by itself.
            lost_life = (lives < self._lives) & (lives > 0) & ~terminated
        timed_out = (self._lengths >= self._max_steps) & ~terminated
        last_observations = observations
        if timed_out.any():
            observations, lives = self._restart(timed_out)
        self._lives = lives

        dones = terminated | timed_out | lost_life
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for index in np.flatnonzero(dones):
            last = info["final_obs"] if terminated[index] else last_observations
            # A copy, because a view would keep the observations of all games alive.
            infos[index]["terminal_observation"] = last[index].copy()
            if terminated[index] or timed_out[index]:
                infos[index]["TimeLimit.truncated"] = bool(timed_out[index] & ~lost_life[index])
                infos[index]["episode"] = self._finish_game(int(index))
        if self.protocol.clip_rewards:
            rewards = np.sign(rewards)
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """End ALE's threads."""
        for name in ("_games", "_colour_games"):
            if hasattr(self, name):
                delattr(self, name)  # the last reference; ALE's destructor joins the threads

    def get_action_meanings(self) -> list[str]:
        """The names of the actions, by action index."""
        return [action.name for action in self._games.ale.get_action_set()]

    def get_images(self) -> Sequence[np.ndarray]:
        """The B games' screens in colour, each (H, W, 3) uint8, most often 210 by 160.

        Like the observations, each is the maximum of a step's last two frames.

        Raises:
            RuntimeError: made without render_mode="rgb_array", or not reset yet.
        """
        if self._screens is None:
            raise RuntimeError(
                "there are no images; make AtariVecEnv with render_mode='rgb_array' and reset it"
            )
        return list(self._screens[:, 0])

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """This object's attribute, once for each game asked for."""
        value = getattr(self, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refused: the games live in C++ and share one protocol."""
        raise AttributeError(
            f"games cannot get the attribute {attr_name!r}; "
            "make another AtariVecEnv with the protocol you want"
        )

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """`get_action_meanings`, once for each game asked for; games have no other method."""
        if method_name != "get_action_meanings":
            raise AttributeError(
                f"a game has no method {method_name!r}, expected 'get_action_meanings'; "
                "AtariVecEnv's own methods act on all games together"
            )
        return [self.get_action_meanings() for _ in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """True for `Monitor`, whose statistics these games keep; False for the rest."""
        return [issubclass(wrapper_class, Monitor) for _ in self._get_indices(indices)]

    def _next_seeds(self) -> np.ndarray:
        """Seeds (B,) for the next reset, -1 where the random numbers just go on."""
        if self._seeds[0] is not None:
            seeds = np.asarray(self._seeds, np.int64) % 2**31  # ALE's are C++ ints
        elif self._seeded:
            seeds = np.full(self.num_envs, -1)
        else:
            # Drawn here, so that the games in colour get the same ones.
            seeds = np.random.SeedSequence().generate_state(self.num_envs).astype(np.int64) % 2**31
        self._seeded = True
        self._reset_seeds()
        self._reset_options()
        return seeds

    def _restart(self, games: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start the games of a mask (B,) anew → observations (B, ...) and lives (B,) of all."""
        seeds = np.full(int(games.sum()), -1)
        observations, info = self._games.reset(seed=seeds, options={"reset_mask": games})
        if self._colour_games is not None:
            self._screens, _ = self._colour_games.reset(seed=seeds, options={"reset_mask": games})
        return observations, info["lives"]

    def _finish_game(self, index: int) -> dict[str, float]:
        episode = {
            "r": float(self._scores[index]),
            "l": int(self._lengths[index]),
            "t": round(time.time() - self._started, 6),
        }
        self._scores[index] = 0
        self._lengths[index] = 0
        return episode

    def _receive_screens(self, rewards: np.ndarray, info: dict[str, Any]) -> None:
        assert self._colour_games is not None
        self._screens, colour_rewards, _, _, colour_info = self._colour_games.recv()
        if not (
            np.array_equal(rewards, colour_rewards)
            and np.array_equal(info["episode_frame_number"], colour_info["episode_frame_number"])
        ):
            raise RuntimeError(
                "the games in colour took another course than the ones played; "
                "please report the game, seed and actions"
            )


def emulators(
    game: str,
    num_envs: int,
    protocol: AtariProtocol,
    size: tuple[int, int],
    stack: int,
    threads: int,
    grayscale: bool = True,
    maxpool: bool = True,
) -> AtariVectorEnv:
    # What ALE offers and this class does itself:
    # - episodic_life restarts the whole game at each lost life; with life_loss_info, a game over
    #   and a lost life look alike;
    # - reward_clipping would clip the scores;
    # - its frame limit ends a game within a step, before the frame to be shown: the last
    #   observation, whose value an agent bootstraps, would mix in the step before.
    return AtariVectorEnv(
        game,
        num_envs,
        num_threads=threads,
        max_num_frames_per_episode=2**30,  # 207 days of play
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
    if hasattr(os, "sched_getaffinity"):  # Linux; honours containers' and taskset's limits
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
