"""A player plays a game: one step at a time, for whoever counts, records or films."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from ncp_agents.agents.saved_policy import SavedPolicy, State
from ncp_agents.envs.atari import AtariVecEnv, available_cpus
from ncp_agents.envs.perturbations import Perturbation, perturbed
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.envs.protocol import protocol as named_protocol
from ncp_agents.errors import UserError
from ncp_agents.torch.threads import one_thread

MAX_ENVS = 16  # games side by side; more gain little on few CPUs


def default_num_envs(games: int) -> int:
    """How many games to play side by side, up to 16, so that all environments play equally often as
    far as that goes.
    """
    return math.ceil(games / math.ceil(games / MAX_ENVS))


def episodes_per_env(games: int, num_envs: int) -> list[int]:
    """How many games each environment plays; its first ones count. Taking the first games to end
    instead, wherever they are played, would favour short ones.
    """
    return [len(range(i, games, num_envs)) for i in range(num_envs)]


def check_episodes(episodes: int, num_envs: int | None, seed: int) -> None:
    """Raises UserError for what cannot be played."""
    if episodes < 1:
        raise UserError(f"episodes is {episodes}, expected >= 1; usual is 30")
    if num_envs is not None and num_envs < 1:
        raise UserError(f"num_envs is {num_envs}, expected >= 1; usual is up to {MAX_ENVS}")
    if not 0 <= seed < 2**31:
        raise UserError(f"seed is {seed}, expected 0 <= seed < 2^31")


def resumed_seed(seed: int, done: int) -> int:
    """The games' seed after a resumption with so much done: others than those played before, and
    the same for the same resumption; below 2^31, as ALE wants.
    """
    return int(np.random.SeedSequence([seed, done]).generate_state(1)[0]) >> 1


class Step(NamedTuple):
    """One decision in each of B games: what the policy saw, did and got."""

    observations: np.ndarray  # (B, C, H, W) uint8
    resets: np.ndarray  # (B,) bool: the state was forgotten before this step
    actions: np.ndarray  # (B,)
    state: State | None  # of the circuit, after this step
    rewards: np.ndarray  # (B,) float32
    dones: np.ndarray  # (B,) bool
    infos: list[dict[str, Any]]  # B; a finished game's has "episode"
    rgb_frames: list[np.ndarray] | None  # B of (H, W, 3), seen together with the observations


class Policy(Protocol):
    """What can play: a `SavedPolicy`, or any model of stable-baselines3."""

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]: ...


def rollout(player: Policy, env: AtariVecEnv, deterministic: bool = False) -> Iterator[Step]:
    """Play for ever, one step at a time, from a reset on. The circuit's state is handed on, and
    forgotten after each `done`. Who consumes the steps decides when to stop.
    """
    observations = env.reset()
    episode_starts = np.ones(env.num_envs, bool)
    state = None
    while True:
        screens = list(env.get_images()) if env.render_mode else None
        actions, state = player.predict(observations, state, episode_starts, deterministic)
        env.step_async(actions)
        following, rewards, dones, infos = env.step_wait()
        yield Step(observations, episode_starts, actions, state, rewards, dones, infos, screens)
        observations, episode_starts = following, dones


def first_episodes(steps: Iterable[Step], games: int) -> Iterator[Step]:
    """The steps up to the end of the first environment's `games`-th game."""
    for step in steps:
        yield step
        games -= "episode" in step.infos[0]
        if games <= 0:
            return


def evaluation_protocol(policy: SavedPolicy, protocol: str | AtariProtocol) -> AtariProtocol:
    """The protocol's evaluation, with the frames that the policy sees at once.

    Raises:
        UserError: a protocol with all 18 actions, of which no saved policy knows.
    """
    rules = named_protocol(protocol)
    if rules.full_action_space:
        raise UserError(
            f"the protocol has all 18 actions, but {policy.name} knows those of "
            f"{policy.recipe.environment.game} only; leave full_action_space out"
        )
    stack = policy.recipe.environment.frame_stack
    return dataclasses.replace(rules, frame_stack=stack).evaluation()


EnvFactory = Callable[[int, int, int], AtariVecEnv]  # from num_envs, seed, num_threads


def env_factory(
    policy: SavedPolicy,
    protocol: str | AtariProtocol,
    render: bool,
    perturbation: Perturbation | None = None,
) -> EnvFactory:
    """What makes games for a policy, by the protocol's evaluation."""
    game, rules = policy.recipe.environment.game, evaluation_protocol(policy, protocol)
    mode = "rgb_array" if render else None

    def games(num_envs: int, seed: int, num_threads: int) -> AtariVecEnv:
        if perturbation is not None:
            return perturbed(perturbation, game, num_envs, rules, seed, num_threads)
        return AtariVecEnv(game, num_envs, rules, seed, num_threads, mode)

    return games


P = TypeVar("P", bound=Policy)


class EnvGroup(NamedTuple, Generic[P]):
    """Games that one thread plays."""

    policy: P
    env: AtariVecEnv


@contextlib.contextmanager
def env_groups(
    player: P, games: EnvFactory, num_envs: int, seed: int
) -> Iterator[list[EnvGroup[P]]]:
    """Games to play `parallel_rollouts`, in two halves, so that one's emulators run while the policy
    looks at the other's screens. Inside, torch keeps to one thread, and a policy's weights are
    frozen.

    The same seed and num_envs give the same games: each half draws actions from random numbers of
    its own. Only a `SavedPolicy` can do so; what others play stays in one group, and torch's random
    numbers are `seeded`.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(player, SavedPolicy):
            stack.enter_context(one_thread())
            stack.enter_context(player.network.frozen())
            sizes = [size for size in (-(-num_envs // 2), num_envs // 2) if size]
        else:
            device = torch.device(getattr(player, "device", "cpu"))
            stack.enter_context(seeded(seed, device))
            sizes = [num_envs]
        made = []
        threads = max(available_cpus() // len(sizes), 1)
        for first, size in zip((seed, seed + sizes[0]), sizes, strict=False):
            env = stack.enter_context(contextlib.closing(games(size, first, threads)))
            made.append(EnvGroup(_drawing(player, first), env))
        yield made


def _drawing(player: P, seed: int) -> P:
    """The same player, drawing from random numbers of its own if it can."""
    if not isinstance(player, SavedPolicy):
        return player
    generator = torch.Generator(player.device).manual_seed(seed)
    return dataclasses.replace(player, generator=generator)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch keeps to one thread and draws its random numbers from `seed`. Those of the
    caller go on afterwards as if nothing had been drawn.
    """
    # Not torch.manual_seed, which would seed GPUs that are not forked here, too.
    gpus = [device] if device.type == "cuda" else []
    with one_thread(), torch.random.fork_rng(gpus, device_type="cuda"):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield
