"""Recording: the episodes of a policy, or of a person, into a folder of demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ncp_agents.agents.saved_policy import SavedPolicy, State
from ncp_agents.datasets.demonstrations import Demonstrations, Entry, Provenance
from ncp_agents.datasets.episode_file import Episode
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.envs.protocol import protocol as named_protocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.parallel_rollout import parallel_rollouts
from ncp_agents.evaluation.rollout import (
    Policy,
    Step,
    check_episodes,
    default_num_envs,
    env_groups,
    episodes_per_env,
    evaluation_protocol,
    resumed_seed,
    rollout,
)
from ncp_agents.imitation.keyboard import HumanPolicy


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


def episodes_of(steps: Iterable[Step], episodes_per_env: list[int]) -> Iterator[Episode]:
    """Yield the first episodes_per_env[i] episodes of environment i, each as it ends."""
    missing = list(episodes_per_env)
    running: list[list[tuple[np.ndarray, int, float, bool]]] = [[] for _ in episodes_per_env]
    for step in steps:
        for i, info in enumerate(step.infos):
            if not missing[i]:
                continue
            # A copy, because a view would keep the frames of all environments.
            obs, reset = step.observations[i].copy(), bool(step.resets[i])
            running[i].append((obs, int(step.actions[i]), float(step.rewards[i]), reset))
            if "episode" in info:
                observations, actions, rewards, resets = zip(*running[i], strict=True)
                running[i], missing[i] = [], missing[i] - 1
                truncated = info["truncated"]
                yield Episode(
                    obs=np.moveaxis(np.stack(observations), 1, -1),
                    actions=np.array(actions, np.int64),
                    rewards=np.array(rewards, np.float32),
                    terminated=not truncated,
                    truncated=truncated,
                    resets=np.array(resets),
                )
        if not any(missing):
            return


def record(
    policy: Policy,
    demos: Demonstrations,
    episodes: int,
    seed: int = 0,
    num_envs: int | None = None,
    deterministic: bool = False,
    epsilon: float = 0.0,
    wrap_steps: Callable[[Iterator[Step]], Iterator[Step]] = iter,
) -> Iterator[Entry]:
    """Record whole episodes until `demos` holds `episodes`, and yield each once it is on disk.

    Args:
        policy: a `SavedPolicy`, any model of stable-baselines3, or a `HumanPolicy`, for the game
            of the demos, whose protocol it plays by, with unclipped rewards.
        demos: episodes that it holds already count.
        episodes: how many to reach.
        seed: of episodes and random actions; a resumed recording plays other episodes.
        num_envs: parallel environments; None takes up to 16, a `HumanPolicy` always 1.
        deterministic: greedy actions instead of sampled ones.
        epsilon: probability of a random action, which is recorded as the one taken.
        wrap_steps: receives the steps, and yields those to record.

    Raises:
        UserError: a policy with another observation space than the demos', a folder locked by
            another process.
    """
    with demos.lock():
        done = len(demos.entries)
        missing = episodes - done
        if missing <= 0:
            return
        num_envs = min(missing, num_envs or default_num_envs(missing))
        mode = None
        if isinstance(policy, HumanPolicy):
            num_envs, mode = 1, "rgb_array"
        seed = resumed_seed(seed, done)
        game, protocol = demos.provenance.game, demos.provenance.protocol

        def make_env(num_envs: int, seed: int, num_threads: int) -> AtariVecEnv:
            return AtariVecEnv(game, num_envs, protocol, seed, num_threads, mode)

        def steps_of(index: int, policy: Policy, env: AtariVecEnv) -> Iterator[Step]:
            space = getattr(policy, "observation_space", env.observation_space)
            if space != env.observation_space:
                raise UserError(
                    f"the policy expects {space}, but {demos.path} has {env.observation_space}; "
                    "the protocol's frame_stack must be the policy's"
                )
            if isinstance(policy, HumanPolicy):
                return policy.play(env)
            actions = len(env.get_action_meanings())
            mixed = EpsilonGreedyPolicy(policy, actions, epsilon, seed + index)
            return rollout(mixed, env, deterministic)

        with (
            env_groups(policy, make_env, num_envs, seed) as parts,
            parallel_rollouts([steps_of(i, *part) for i, part in enumerate(parts)]) as steps,
            ThreadPoolExecutor(1) as writer,
        ):
            waiting: list[Future[Entry]] = []  # compression must not delay the environments
            for episode in episodes_of(wrap_steps(steps), episodes_per_env(missing, num_envs)):
                waiting.append(writer.submit(demos.append, episode))
                while waiting and (waiting[0].done() or len(waiting) > num_envs):
                    yield waiting.pop(0).result()
            for written in waiting:
                yield written.result()


def record_with_bar(
    policy: Policy,
    demos: Demonstrations,
    episodes: int,
    *,
    wrap_steps: Callable[[Iterator[Step]], Iterator[Step]] = iter,
    **settings: Any,
) -> None:
    """Record as `record`, to the end, with a progress bar of episodes, steps and bytes."""
    with tqdm(
        total=episodes,
        initial=min(len(demos.entries), episodes),
        unit=" episodes",
        desc=demos.path.name,
        disable=None,
    ) as bar:
        count, size = 0, demos.size

        def counted(steps: Iterator[Step]) -> Iterator[Step]:
            nonlocal count
            for step in wrap_steps(steps):
                count += len(step.actions)
                bar.set_postfix_str(f"{count:,} steps, {size / 1e6:.2f} MB", refresh=False)
                bar.update(0)  # redraws if it is time to
                yield step

        for entry in record(policy, demos, episodes, wrap_steps=counted, **settings):
            size += (demos.path / entry.file).stat().st_size
            bar.update()


def record_policy(
    policy: SavedPolicy,
    output: Path,
    *,
    episodes: int,
    protocol: str | AtariProtocol = "v4",
    seed: int = 0,
    num_envs: int | None = None,
    deterministic: bool = False,
    epsilon: float = 0.0,
    temperature: float = 1.0,
    resume: bool = False,
) -> Demonstrations:
    """Record a saved policy's episodes into the folder `output`, with a progress bar.

    A temperature above 1 samples actions more evenly; it has no effect on greedy ones. With
    `resume` episodes are added to the demos that are there.

    Raises:
        UserError: as `record`, and before any episode: an epsilon that is no probability, a
            temperature below 0.001 or above 1000, demos that are there already without `resume`,
            or of other settings with it.
    """
    check_episodes(episodes, num_envs, seed)
    if not 0.0 <= epsilon <= 1.0:
        raise UserError(f"epsilon is {epsilon}, expected a probability from 0.0 to 1.0")
    if not 1e-3 <= temperature <= 1e3:
        raise UserError(
            f"temperature is {temperature}, expected 0.001 to 1000; --deterministic is its limit"
        )
    sampling = {"deterministic": deterministic, "epsilon": epsilon}
    wanted = provenance(policy, protocol, **sampling, temperature=temperature, seed=seed)
    demos = open_or_create(output, wanted, resume)
    before, policy.network.temperature = policy.network.temperature, temperature
    try:
        record_with_bar(policy, demos, episodes, seed=seed, num_envs=num_envs, **sampling)
    finally:
        policy.network.temperature = before
    return demos


def record_human(
    game: str,
    output: Path,
    *,
    episodes: int,
    protocol: str | AtariProtocol = "v4",
    seed: int = 0,
    resume: bool = False,
) -> Demonstrations:
    """Record a person's episodes, played in a window, into the folder `output`.

    Raises:
        UserError: before any episode: no screen, pygame missing, an unknown game, demos that are
            there already without `resume`, or of other settings with it.
    """
    check_episodes(episodes, None, seed)
    rules = named_protocol(protocol).evaluation()
    wanted = Provenance(game, rules, {"human": True, "seed": seed})
    with closing(HumanPolicy(episodes)) as human:
        demos = open_or_create(output, wanted, resume)
        human.recorded = len(demos.entries)
        record_with_bar(human, demos, episodes, seed=seed)
    return demos


def provenance(policy: SavedPolicy, protocol: str | AtariProtocol, **settings: Any) -> Provenance:
    """Return what `dataset.json` says of episodes played by a saved policy."""
    player = {"policy": policy.name, **settings}
    if policy.weights_sha256 is not None:
        player["weights_sha256"] = policy.weights_sha256
    game = policy.recipe.environment.game
    return Provenance(game, evaluation_protocol(policy, protocol), player)


def open_or_create(output: Path, wanted: Provenance, resume: bool) -> Demonstrations:
    """Return new demos, or with `resume` those that are there.

    Raises:
        UserError: demos that are there without `resume`, or of other settings with it.
    """
    if not resume:
        return Demonstrations.create(output, wanted)
    demos = Demonstrations(output)
    if demos.provenance != wanted:
        difference = _first_difference(demos.provenance, wanted)
        raise UserError(f"{output} was recorded with {difference}; name another folder")
    return demos


def _first_difference(there: Provenance, wanted: Provenance) -> str:
    old, new = ({"game": p.game, **asdict(p.protocol), **p.player} for p in (there, wanted))
    name = next(name for name in {**old, **new} if old.get(name) != new.get(name))
    return f"{name}={old.get(name)!r}, not {new.get(name)!r}"
