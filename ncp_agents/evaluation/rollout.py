"""Rollouts of a policy, step by step, for evaluation, recording and videos."""

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

MAX_ENVS = 16  # by default; more environments gain little on few CPUs


def default_num_envs(episodes: int) -> int:
    """Return a number of environments, up to 16, that divides the episodes as evenly as it can."""
    return math.ceil(episodes / math.ceil(episodes / MAX_ENVS))


def episodes_per_env(episodes: int, num_envs: int) -> list[int]:
    """Return how many episodes of each environment count: its first ones.

    The first episodes to end in any environment would favour short ones.
    """
    return [len(range(i, episodes, num_envs)) for i in range(num_envs)]


def check_episodes(episodes: int, num_envs: int | None, seed: int) -> None:
    """Check the numbers that a rollout is asked for.

    Raises:
        UserError: a number out of range.
    """
    if episodes < 1:
        raise UserError(f"episodes is {episodes}, expected >= 1; usual is 30")
    if num_envs is not None and num_envs < 1:
        raise UserError(f"num_envs is {num_envs}, expected >= 1; usual is up to {MAX_ENVS}")
    if not 0 <= seed < 2**31:
        raise UserError(f"seed is {seed}, expected 0 <= seed < 2^31")


def resumed_seed(seed: int, done: int) -> int:
    """Return a seed for work resumed after `done` steps or episodes, so that no episode repeats.

    It is below 2^31, as ALE requires, and the same for the same resumption.
    """
    return int(np.random.SeedSequence([seed, done]).generate_state(1)[0]) >> 1


class Step(NamedTuple):
    """One step of B environments."""

    observations: np.ndarray  # (B, C, H, W) uint8
    resets: np.ndarray  # (B,) bool: the state was cleared before this step
    actions: np.ndarray  # (B,)
    rewards: np.ndarray  # (B,) float32
    infos: list[dict[str, Any]]  # B; that of an episode's last step has "episode"
    rgb_frames: list[np.ndarray] | None  # B of (H, W, 3), of the moment of the observations


class Policy(Protocol):
    """What a rollout needs: a `SavedPolicy`, or any model of stable-baselines3."""

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        """Return actions (B,) and the new state."""
        ...


def rollout(policy: Policy, env: AtariVecEnv, deterministic: bool = False) -> Iterator[Step]:
    """Reset `env`, then yield one step after another without end.

    The circuit's state is carried from step to step and cleared after each `done`.
    """
    observations = env.reset()
    resets = np.ones(env.num_envs, bool)
    state = None
    while True:
        rgb_frames = list(env.get_images()) if env.render_mode else None
        actions, state = policy.predict(observations, state, resets, deterministic)
        env.step_async(actions)
        next_observations, rewards, dones, infos = env.step_wait()
        yield Step(observations, resets, actions, rewards, infos, rgb_frames)
        observations, resets = next_observations, dones


def first_episodes(steps: Iterable[Step], episodes: int) -> Iterator[Step]:
    """Yield the steps up to the end of the first environment's `episodes`-th episode."""
    for step in steps:
        yield step
        episodes -= "episode" in step.infos[0]
        if episodes <= 0:
            return


def evaluation_protocol(policy: SavedPolicy, protocol: str | AtariProtocol) -> AtariProtocol:
    """Return the protocol's evaluation, with the policy's own frame stack.

    Raises:
        UserError: an unknown protocol, or one with all 18 actions, which no saved policy has.
    """
    rules = named_protocol(protocol)
    if rules.full_action_space:
        raise UserError(
            f"the protocol has all 18 actions, but {policy.name} has those of "
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
    """Return a function that makes environments of the policy's game, by the protocol's evaluation.

    They render only without a perturbation.
    """
    game, rules = policy.recipe.environment.game, evaluation_protocol(policy, protocol)
    mode = "rgb_array" if render else None

    def make_env(num_envs: int, seed: int, num_threads: int) -> AtariVecEnv:
        if perturbation is not None:
            return perturbed(perturbation, game, num_envs, rules, seed, num_threads)
        return AtariVecEnv(game, num_envs, rules, seed, num_threads, mode)

    return make_env


P = TypeVar("P", bound=Policy)


class EnvGroup(NamedTuple, Generic[P]):
    """Environments that one thread steps, and the policy that acts in them."""

    policy: P
    env: AtariVecEnv


@contextlib.contextmanager
def env_groups(
    policy: P, make_env: EnvFactory, num_envs: int, seed: int
) -> Iterator[list[EnvGroup[P]]]:
    """Make environments for `parallel_rollouts`, in two groups.

    The emulators of one group run while the policy computes the actions of the other. Inside the
    context torch keeps to one thread, and the weights of a saved policy are frozen.

    The same seed and num_envs give the same episodes: each group samples actions with a generator
    of its own. Only a `SavedPolicy` can do so; another policy has one group, and torch's random
    numbers are `seeded`.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(policy, SavedPolicy):
            stack.enter_context(one_thread())
            stack.enter_context(policy.network.frozen())
            sizes = [size for size in (-(-num_envs // 2), num_envs // 2) if size]
        else:
            device = torch.device(getattr(policy, "device", "cpu"))
            stack.enter_context(seeded(seed, device))
            sizes = [num_envs]
        groups = []
        threads = max(available_cpus() // len(sizes), 1)
        for first, size in zip((seed, seed + sizes[0]), sizes, strict=False):
            env = stack.enter_context(contextlib.closing(make_env(size, first, threads)))
            groups.append(EnvGroup(_with_generator(policy, first), env))
        yield groups


def _with_generator(policy: P, seed: int) -> P:
    """Return a saved policy with a random generator of its own, any other as it is."""
    if not isinstance(policy, SavedPolicy):
        return policy
    generator = torch.Generator(policy.device).manual_seed(seed)
    return dataclasses.replace(policy, generator=generator)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's random numbers and keep it to one thread, inside the context.

    Afterwards the random state is that from before.
    """
    # Not torch.manual_seed, which would also seed GPUs that are not forked here.
    gpus = [device] if device.type == "cuda" else []
    with one_thread(), torch.random.fork_rng(gpus, device_type="cuda"):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield
