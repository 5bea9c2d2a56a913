"""Perturbations of Atari games, one kind at a time, at any strength.

Kinds and what their strength is:

    noise              standard deviation of Gaussian noise on each pixel, as a fraction of 255
    drop_frames        probability that a step's observation is lost and the last one that arrived
                       is observed again; an episode's first always arrives
    stickiness         probability that a frame repeats the previous frame's action instead of
                       taking the new one (Machado et al. 2018, arXiv:1709.06009)
    frame_skip_jitter  k: a step lasts 4 - k to 4 + k frames, uniformly sampled for each
                       environment and step, instead of always 4

Under jitter a circuit can receive how long the last step took (`Perturbation.timespans`), or not.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ncp_agents import registry
from ncp_agents.envs.atari import AtariVecEnv, make_emulators
from ncp_agents.envs.games import screen_size
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.envs.resize import area_means
from ncp_agents.errors import UserError
from ncp_agents.schema import Validated

StepResult = tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]

KINDS = {
    "noise": "noise (fraction of 255)",
    "drop_frames": "probability of a lost observation",
    "stickiness": "probability of a repeated action",
    "frame_skip_jitter": "jitter k: steps of 4 − k to 4 + k frames",
}
"""Kind → what its strength is called in plots."""


@dataclass(frozen=True)
class Perturbation(Validated):
    """One kind at one strength; strength 0 perturbs nothing.

    Raises:
        UserError: an unknown kind, a strength out of range.
        ValueError: a field of another type.
    """

    kind: str
    strength: float
    timespans: bool = False
    """Whether the circuit receives each step's true length; with frame_skip_jitter only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        registry.get("perturbation", self.kind, KINDS)
        strength = self.strength
        allowed, expected = {
            "noise": (0.0 <= strength < math.inf, "a fraction of 255 >= 0, such as 0.01"),
            "drop_frames": (0.0 <= strength < 1.0, "a probability 0.0 <= p < 1.0"),
            "stickiness": (0.0 <= strength < 1.0, "a probability 0.0 <= p < 1.0"),
            "frame_skip_jitter": (strength in (0, 1, 2, 3), "0, 1, 2 or 3 of the 4 frames"),
        }[self.kind]
        if not allowed:
            raise UserError(f"{self.kind} is {strength}, expected {expected}")
        if self.timespans and self.kind != "frame_skip_jitter":
            raise UserError(f"timespans go with frame_skip_jitter, not with {self.kind}")

    def __str__(self) -> str:
        return f"{self.kind}={self.amount}" + (" timespans" if self.timespans else "")

    @property
    def amount(self) -> str:
        """The strength in the fewest digits that are exact."""
        return np.format_float_positional(self.strength, trim="-")


def perturbed(
    perturbation: Perturbation,
    game: str,
    num_envs: int,
    protocol: AtariProtocol,
    seed: int,
    num_threads: int = 0,
) -> AtariVecEnv:
    """Return environments under a perturbation; the arguments are those of `AtariVecEnv`.

    Raises:
        UserError: stickiness where the protocol has sticky actions; jitter of whole steps.
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
    classes = {
        "noise": NoisyAtariVecEnv,
        "drop_frames": LossyAtariVecEnv,
        "frame_skip_jitter": JitteredAtariVecEnv,
    }
    return classes[perturbation.kind](game, num_envs, protocol, seed, strength, num_threads)


class _RandomAtariVecEnv(AtariVecEnv):
    """Environments with random numbers of their own, beside ALE's."""

    def __init__(
        self,
        game: str,
        num_envs: int,
        protocol: AtariProtocol,
        seed: int,
        strength: float,
        num_threads: int = 0,
    ) -> None:
        super().__init__(game, num_envs, protocol, seed, num_threads)
        self._strength = strength
        self._rng = np.random.default_rng(seed)


class NoisyAtariVecEnv(_RandomAtariVecEnv):
    """Observations plus Gaussian noise, clipped to 0…255.

    The strength is its standard deviation as a fraction of 255. Each step samples new noise, for
    the older frames of a stack too.
    """

    def reset(self) -> np.ndarray:
        """Start new episodes → noisy observations."""
        return self._noisy(super().reset())

    def step_wait(self) -> StepResult:
        """Finish a step → as `AtariVecEnv.step_wait`, with noisy observations."""
        observations, rewards, dones, infos = super().step_wait()
        return self._noisy(observations), rewards, dones, infos

    def _noisy(self, clean: np.ndarray) -> np.ndarray:
        noise = self._rng.standard_normal(clean.shape, np.float32)
        noisy = clean + np.float32(255 * self._strength) * noise
        return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


class LossyAtariVecEnv(_RandomAtariVecEnv):
    """Observations that are lost with a probability, except an episode's first.

    The last observation that arrived is repeated, with its whole stack.
    """

    def reset(self) -> np.ndarray:
        """Start new episodes → their first observations."""
        self._arrived = super().reset().copy()
        return self._arrived.copy()

    def step_wait(self) -> StepResult:
        """Finish a step → as `AtariVecEnv.step_wait`, with the last observations that arrived."""
        observations, rewards, dones, infos = super().step_wait()
        first = np.array(["episode" in info for info in infos])
        arrives = (self._rng.random(self.num_envs) >= self._strength) | first
        self._arrived[arrives] = observations[arrives]
        return self._arrived.copy(), rewards, dones, infos


class JitteredAtariVecEnv(_RandomAtariVecEnv):
    """Environments whose steps last `frame_skip - jitter` to `frame_skip + jitter` frames.

    `max_frames` counts a step as `frame_skip` frames, its average length.
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
        super().__init__(game, num_envs, protocol, seed, jitter, num_threads)
        self._emulators: Any = _FrameByFrameEmulators(
            self.game, num_envs, self.protocol, int(jitter), self._rng
        )

    @property
    def timespans(self) -> np.ndarray:
        """Length of each environment's last step, (B,) float32, in steps of `frame_skip` frames.

        1.0 where an episode has just begun.
        """
        return self._emulators.timespans


class _FrameByFrameEmulators:
    """`AtariVectorEnv`'s interface with a frame skip that varies: one emulator an environment.

    As in ALE, the last two frames are pooled and then shrunk by averaging areas;
    ALE's fixed-point arithmetic may differ by one grey level.
    """

    def __init__(
        self,
        game: str,
        num_envs: int,
        protocol: AtariProtocol,
        jitter: int,
        rng: np.random.Generator,
    ) -> None:
        frames = dataclasses.replace(protocol, frame_skip=1)
        size = screen_size(game)
        self._emulators = [
            make_emulators(game, 1, frames, size, 1, 1, maxpool=False) for _ in range(num_envs)
        ]
        self.ale = self._emulators[0].ale
        self.timespans = np.ones(num_envs, np.float32)
        self._frame_skip, self._jitter = protocol.frame_skip, jitter
        self._rng = rng
        self._rows, self._columns = (area_means(n, protocol.frame_size) for n in size)
        self._last_frames = np.zeros((2, num_envs, *size), np.uint8)
        shape = (num_envs, protocol.frame_stack, protocol.frame_size, protocol.frame_size)
        self._stack = np.zeros(shape, np.uint8)
        self._lives = np.zeros(num_envs, np.int32)

    def reset(
        self, seed: np.ndarray, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        every = np.ones(len(self._emulators), bool)
        chosen = np.flatnonzero(options["reset_mask"] if options else every)
        for i, own in zip(chosen.tolist(), seed, strict=True):
            observation, info = self._emulators[i].reset(seed=np.array([own]))
            self._begin_episode(i, observation, info)
        self._push_frames(chosen)
        return self._stack.copy(), {"lives": self._lives.copy()}

    def send(self, actions: np.ndarray) -> None:
        self._actions = actions

    def recv(self) -> tuple[Any, ...]:
        count = len(self._emulators)
        low, high = self._frame_skip - self._jitter, self._frame_skip + self._jitter
        frames = self._rng.integers(low, high, count, endpoint=True)
        self.timespans = (frames / self._frame_skip).astype(np.float32)
        rewards, terminated = np.zeros(count, np.int64), np.zeros(count, bool)
        final = self._stack.copy()
        for frame in range(high):
            running = np.flatnonzero((frame < frames) & ~terminated).tolist()
            for i in running:
                self._emulators[i].send(self._actions[i : i + 1])
            for i in running:
                observation, reward, ended, _, info = self._emulators[i].recv()
                rewards[i] += reward[0]
                terminated[i] = ended[0]
                if terminated[i]:
                    self._begin_episode(i, observation, info)
                else:
                    self._last_frames[:, i] = self._last_frames[1, i], observation[0, 0]
                    self._lives[i] = info["lives"][0]
        self._push_frames(np.arange(count))
        info = {"lives": self._lives.copy(), "final_obs": final}
        return self._stack.copy(), rewards, terminated, np.zeros(count, bool), info

    def _begin_episode(self, index: int, observation: np.ndarray, info: dict[str, Any]) -> None:
        self._last_frames[:, index] = observation[0, 0]
        self._lives[index] = info["lives"][0]
        self._stack[index] = 0
        self.timespans[index] = 1.0

    def _push_frames(self, indices: np.ndarray) -> None:
        """Push the pooled and shrunk frames of these environments onto their stacks."""
        pooled = self._last_frames[:, indices].max(0).astype(np.float32)
        small = np.rint(self._rows @ pooled @ self._columns.T).astype(np.uint8)
        self._stack[indices, :-1] = self._stack[indices, 1:]
        self._stack[indices, -1] = small
