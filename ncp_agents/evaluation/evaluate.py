"""Evaluation of a saved policy: whole episodes with unclipped rewards, and their scores."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from ncp_agents.agents.saved_policy import SavedPolicy, State
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.games import action_meanings
from ncp_agents.envs.perturbations import JitteredAtariVecEnv, Perturbation
from ncp_agents.envs.protocol import PROTOCOLS, AtariProtocol
from ncp_agents.evaluation.parallel_rollout import parallel_rollouts
from ncp_agents.evaluation.rollout import (
    Policy,
    Step,
    check_episodes,
    default_num_envs,
    env_factory,
    env_groups,
    episodes_per_env,
    rollout,
)
from ncp_agents.evaluation.scores import Scores


class EpisodeStats(NamedTuple):
    """A finished episode."""

    score: float  # undiscounted, unclipped
    length: int  # steps
    actions: np.ndarray  # (A,) int: how often each was taken


@dataclasses.dataclass(frozen=True)
class TimespanPolicy:
    """A saved policy that receives the timespans of an environment with frame-skip jitter."""

    policy: SavedPolicy
    env: JitteredAtariVecEnv

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State]:
        """Return actions (B,) and the new state."""
        timespans = self.env.timespans
        return self.policy.predict(observation, state, episode_start, deterministic, timespans)


def evaluate(
    policy: SavedPolicy,
    episodes: int = 30,
    protocol: str | AtariProtocol = "v4",
    seed: int = 0,
    deterministic: bool = False,
    num_envs: int | None = None,
    on_episode: Callable[[EpisodeStats], None] | None = None,
    wrap_steps: Callable[[Iterator[Step]], Iterator[Step]] | None = None,
    perturbation: Perturbation | None = None,
    policy_factory: Callable[[SavedPolicy, AtariVecEnv], Policy] | None = None,
) -> Scores:
    """Run whole episodes and return their scores.

    Args:
        policy: its network is not changed.
        episodes: at least 1.
        protocol: "v4", "v5" or an `AtariProtocol`, taken as its `evaluation()`; the frame stack is
            the policy's own.
        seed: of environments and sampled actions. The same seed and num_envs give the same scores.
            torch's own random state is left as it was.
        deterministic: take greedy actions instead of sampled ones.
        num_envs: parallel environments; None takes `default_num_envs(episodes)`.
        on_episode: called with each counted episode as it ends.
        wrap_steps: receives the steps, with RGB frames, and yields them again; the evaluation ends
            where it stops, with the episodes finished so far. Not with a perturbation.
        perturbation: of observations, actions or time between environment and policy.
        policy_factory: from policy and environment of a group to the policy that acts in it; None
            takes the policy itself, which receives timespans where the perturbation says so.

    Raises:
        UserError: an unknown protocol, a perturbation that the protocol has already, or what
            `check_episodes` refuses.
    """
    check_episodes(episodes, num_envs, seed)
    num_envs = min(num_envs or default_num_envs(episodes), episodes)
    name = protocol if isinstance(protocol, str) else protocol_name(protocol)
    meanings = action_meanings(policy.recipe.environment.game)
    make_env = env_factory(policy, protocol, wrap_steps is not None, perturbation)

    def rollout_of(member: SavedPolicy, env: AtariVecEnv) -> Iterator[Step]:
        if policy_factory is not None:
            return rollout(policy_factory(member, env), env, deterministic)
        if isinstance(env, JitteredAtariVecEnv) and perturbation and perturbation.timespans:
            return rollout(TimespanPolicy(member, env), env, deterministic)
        return rollout(member, env, deterministic)

    with (
        env_groups(policy, make_env, num_envs, seed) as groups,
        parallel_rollouts([rollout_of(group.policy, group.env) for group in groups]) as steps,
    ):
        finished, speed = _count_episodes(
            steps if wrap_steps is None else wrap_steps(steps),
            episodes_per_env(episodes, num_envs),
            len(meanings),
            on_episode,
        )
    actions = sum((episode.actions for episode in finished), np.zeros(len(meanings), int))
    return Scores(
        game=policy.recipe.environment.game,
        protocol=name,
        deterministic=deterministic,
        seed=seed,
        num_envs=num_envs,
        returns=tuple(episode.score for episode in finished),
        lengths=tuple(episode.length for episode in finished),
        actions=dict(zip(meanings, actions.tolist(), strict=True)),
        perturbation=perturbation,
        steps_per_second=round(speed, 1),
        weights_sha256=policy.weights_sha256,
    )


def protocol_name(protocol: AtariProtocol) -> str:
    """Return the nearest named protocol and the differences in evaluation: "v4(max_frames=400)"."""
    ours = dataclasses.asdict(protocol.evaluation())
    del ours["frame_stack"]  # the policy's
    differences = {
        name: {
            field: value
            for field, value in ours.items()
            if value != getattr(named.evaluation(), field)
        }
        for name, named in PROTOCOLS.items()
    }
    nearest = min(differences, key=lambda name: len(differences[name]))
    changes = ", ".join(f"{field}={value}" for field, value in differences[nearest].items())
    return f"{nearest}({changes})" if changes else nearest


def _count_episodes(
    steps: Iterator[Step],
    episodes_per_env: list[int],
    num_actions: int,
    on_episode: Callable[[EpisodeStats], None] | None,
) -> tuple[list[EpisodeStats], float]:
    """Return the first episodes_per_env[i] episodes of environment i, and total steps per second.

    Episodes are ordered by environment.
    """
    num_envs, missing = len(episodes_per_env), sum(episodes_per_env)
    finished: list[list[EpisodeStats]] = [[] for _ in range(num_envs)]
    taken = np.zeros((num_envs, num_actions), int)  # in the episodes that are running
    began, total_steps = time.perf_counter(), -num_envs
    for step in steps:
        if total_steps < 0:
            began = time.perf_counter()  # the environments have been set up
        total_steps += num_envs
        taken[np.arange(num_envs), step.actions] += 1
        for i, info in enumerate(step.infos):
            if "episode" not in info:
                continue
            if len(finished[i]) < episodes_per_env[i]:
                score, length = float(info["episode"]["r"]), int(info["episode"]["l"])
                finished[i].append(EpisodeStats(score, length, taken[i].copy()))
                missing -= 1
                if on_episode is not None:
                    on_episode(finished[i][-1])
            taken[i] = 0
        if not missing:
            break
    speed = max(total_steps, 0) / (time.perf_counter() - began)
    return [episode for own in finished for episode in own], speed
