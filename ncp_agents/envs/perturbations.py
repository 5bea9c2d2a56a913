"""What can come between a game and a player, one thing at a time and by degrees.

Kinds and what their strength means:

    noise              standard deviation of Gaussian noise on each pixel, as a share of white (255)
    drop_frames        probability that a step's observation is lost; the player then sees the last
                       one that arrived again. A game's first always arrives
    stickiness         probability that a frame repeats the previous frame's action instead of
                       taking the new one (Machado et al. 2018, arXiv:1709.06009)
    frame_skip_jitter  k: a step lasts 4 - k to 4 + k frames, each as likely, drawn anew for each
                       game and step, instead of always 4

With jitter a circuit can be told how long the last step took (`Perturbation.timespans`), or not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ncp_agents import registry
from ncp_agents.envs.atari import AtariVecEnv, emulators
from ncp_agents.envs.games import screen_size
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.envs.resize import area_means
from ncp_agents.errors import UserError

Stepped = tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]

KINDS = {
    # kind: what its strength is called in pictures
    "noise": "noise (share of white)",
    "drop_frames": "probability of a lost observation",
    "stickiness": "probability of a repeated action",
    "frame_skip_jitter": "jitter k: steps of 4 − k to 4 + k frames",
}


@dataclass(frozen=True)
class Perturbation:
    """One kind at one strength; strength 0 perturbs nothing.

    Raises:
        UserError: an unknown kind, a strength out of range.
    """

    kind: str
    strength: float
    timespans: bool = False  # the circuit is told each step's true length; with jitter only

    def __post_init__(self) -> None:
        registry.get("perturbation", self.kind, KINDS)
        strength = self.strength
        allowed, expected = {
            "noise": (0.0 <= strength < math.inf, "a share of white >= 0, such as 0.01"),
            "drop_frames": (0.0 <= strength < 1.0, "a probability 0.0 <= p < 1.0"),
            "stickiness": (0.0 <= strength < 1.0, "a probability 0.0 <= p < 1.0"),
            "frame_skip_jitter": (strength in (0, 1, 2, 3), "0, 1, 2 or 3 of the 4 frames"),
        }[self.kind]
        if not allowed:
            raise UserError(f"{self.kind} is {strength}, expected {expected}")
        if self.timespans and self.kind != "frame_skip_jitter":
            raise UserError(f"timespans are told with frame_skip_jitter, not with {self.kind}")

    def __str__(self) -> str:
        return f"{self.kind}={self.amount}" + (" told" if self.timespans else "")

    @property
    def amount(self) -> str:
        """The strength in as few digits as tell it from all others."""
        return np.format_float_positional(self.strength, trim="-")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Perturbation:
        """What `dataclasses.asdict` gave.

        Raises:
            ValueError: other keys or types, or a perturbation that cannot be.
        """
        kinds = {"kind": (str,), "strength": (int, float), "timespans": (bool,)}
        if data.keys() != kinds.keys() or any(type(data[key]) not in kinds[key] for key in kinds):
            raise ValueError(f"perturbation is {dict(data)}, expected {', '.join(kinds)}")
        return cls(**data)


def perturbed(
    perturbation: Perturbation,
    game: str,
    num_envs: int,
    protocol: AtariProtocol,
    seed: int,
    num_threads: int = 0,
) -> AtariVecEnv:
    """Games under a perturbation; `num_threads` as `AtariVecEnv` takes it.

    Raises:
        UserError: stickiness where the protocol has some of its own; jitter of whole steps.
    """
    strength = perturbation.strength
    if perturbation.kind == "frame_skip_jitter" and strength >= protocol.frame_skip:
        raise UserError(
            f"frame_skip_jitter is {strength}, expected less than the {protocol.frame_skip} frames "
            "of a step"
        )
    if perturbation.kind == "stickiness":
        if protocol.sticky_actions:
            raise UserError(
                f"the protocol has sticky actions already ({protocol.sticky_actions}); "
                "vary stickiness from v4"
            )
        protocol = dataclasses.replace(protocol, sticky_actions=strength)
        return AtariVecEnv(game, num_envs, protocol, seed, num_threads)
    kinds = {
        "noise": NoisyAtariVecEnv,
        "drop_frames": LossyAtariVecEnv,
        "frame_skip_jitter": JitteredAtariVecEnv,
    }
    return kinds[perturbation.kind](game, num_envs, protocol, seed, strength, num_threads)


class NoisyAtariVecEnv(AtariVecEnv):
    """Observations plus Gaussian noise, cut to 0…255; its standard deviation is a share of 255.

    Each step draws anew, for the older frames of a stack too.
    """

    def __init__(
        self,
        game: str,
        num_envs: int,
        protocol: AtariProtocol,
        seed: int,
        std: float,
        num_threads: int = 0,
    ) -> None:
        super().__init__(game, num_envs, protocol, seed, num_threads)
        self._std = np.float32(255 * std)
        self._rng = np.random.default_rng(seed)

    def reset(self) -> np.ndarray:
        return self._noisy(super().reset())

    def step_wait(self) -> Stepped:
        observations, rewards, dones, infos = super().step_wait()
        return self._noisy(observations), rewards, dones, infos

    def _noisy(self, clean: np.ndarray) -> np.ndarray:
        noise = self._rng.standard_normal(clean.shape, np.float32)
        return np.clip(np.rint(clean + self._std * noise), 0, 255).astype(np.uint8)


class LossyAtariVecEnv(AtariVecEnv):
    """Each observation but a game's first is lost with a probability; the last one that arrived
    then stands in for it, with its whole stack.
    """

    def __init__(
        self,
        game: str,
        num_envs: int,
        protocol: AtariProtocol,
        seed: int,
        probability: float,
        num_threads: int = 0,
    ) -> None:
        super().__init__(game, num_envs, protocol, seed, num_threads)
        self._probability = probability
        self._rng = np.random.default_rng(seed)

    def reset(self) -> np.ndarray:
        self._arrived = super().reset().copy()
        return self._arrived.copy()

    def step_wait(self) -> Stepped:
        observations, rewards, dones, infos = super().step_wait()
        first = np.array(["episode" in info for info in infos])
        arrives = (self._rng.random(self.num_envs) >= self._probability) | first
        self._arrived[arrives] = observations[arrives]
        return self._arrived.copy(), rewards, dones, infos


class JitteredAtariVecEnv(AtariVecEnv):
    """Games whose steps last `frame_skip - jitter` to `frame_skip + jitter` frames.

    Everything else is `AtariVecEnv`'s. `max_frames` counts a step as `frame_skip` frames, which is
    what it lasts on average.
    """

    def __init__(
        self,
        game: str,
        num_envs: int,
        protocol: AtariProtocol,
        seed: int,
        jitter: float,
        num_threads: int = 0,
    ) -> None:
        super().__init__(game, num_envs, protocol, seed, num_threads)
        self._games: Any = _JitteredGames(self.game, num_envs, self.protocol, int(jitter), seed)

    @property
    def timespans(self) -> np.ndarray:
        """How long the last step was in each game, (B,) float32, in steps of `frame_skip` frames;
        1.0 where a game has just begun.
        """
        return self._games.timespans


class _JitteredGames:
    """Stands in for `AtariVectorEnv`, whose frame skip is fixed: one game each, frame by frame.

    The whole screens of the last two frames are pooled and then shrunk by averaging areas, as ALE
    does; its fixed-point arithmetic may differ by one grey level.
    """

    def __init__(
        self, game: str, num_envs: int, protocol: AtariProtocol, jitter: int, seed: int
    ) -> None:
        frames = dataclasses.replace(protocol, frame_skip=1)
        size = screen_size(game)
        self._games = [
            emulators(game, 1, frames, size, 1, 1, maxpool=False) for _ in range(num_envs)
        ]
        self.ale = self._games[0].ale
        self.timespans = np.ones(num_envs, np.float32)
        self._frame_skip, self._jitter = protocol.frame_skip, jitter
        self._rng = np.random.default_rng(seed)
        self._rows, self._columns = (area_means(n, protocol.frame_size) for n in size)
        self._screens = np.zeros((2, num_envs, *size), np.uint8)  # the last two frames
        shape = (num_envs, protocol.frame_stack, protocol.frame_size, protocol.frame_size)
        self._stack = np.zeros(shape, np.uint8)
        self._lives = np.zeros(num_envs, np.int32)

    def reset(
        self, seed: np.ndarray, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        every = np.ones(len(self._games), bool)
        chosen = np.flatnonzero(options["reset_mask"] if options else every)
        for i, own in zip(chosen.tolist(), seed, strict=True):
            screen, info = self._games[i].reset(seed=np.array([own]))
            self._begin(i, screen, info)
        self._look(chosen)
        return self._stack.copy(), {"lives": self._lives.copy()}

    def send(self, actions: np.ndarray) -> None:
        self._actions = actions

    def recv(self) -> tuple[Any, ...]:
        count = len(self._games)
        low, high = self._frame_skip - self._jitter, self._frame_skip + self._jitter
        frames = self._rng.integers(low, high, count, endpoint=True)
        self.timespans = (frames / self._frame_skip).astype(np.float32)
        rewards, over = np.zeros(count, np.int64), np.zeros(count, bool)
        final = self._stack.copy()
        for frame in range(high):
            playing = np.flatnonzero((frame < frames) & ~over)
            for i in playing:
                self._games[i].send(self._actions[i : i + 1])
            for i in playing.tolist():
                screen, reward, terminated, _, info = self._games[i].recv()
                rewards[i] += reward[0]
                over[i] = terminated[0]
                if over[i]:
                    self._begin(i, screen, info)
                else:
                    self._screens[:, i] = self._screens[1, i], screen[0, 0]
                    self._lives[i] = info["lives"][0]
        self._look(np.arange(count))
        info = {"lives": self._lives.copy(), "final_obs": final}
        return self._stack.copy(), rewards, over, np.zeros(count, bool), info

    def _begin(self, game: int, screen: np.ndarray, info: dict[str, Any]) -> None:
        self._screens[:, game] = screen[0, 0]
        self._lives[game] = info["lives"][0]
        self._stack[game] = 0
        self.timespans[game] = 1.0

    def _look(self, games: np.ndarray) -> None:
        """Put what the screens of these games show now on their stacks."""
        pooled = self._screens[:, games].max(0).astype(np.float32)
        small = np.rint(self._rows @ pooled @ self._columns.T).astype(np.uint8)
        self._stack[games, :-1] = self._stack[games, 1:]
        self._stack[games, -1] = small
