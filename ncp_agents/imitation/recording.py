"""Recording: a player's games into a demos folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ncp_agents.agents.saved_policy import SavedPolicy, State
from ncp_agents.cli.console import Terminal
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
from ncp_agents.imitation.keyboard import Human


class EpsilonGreedyPolicy:
    """Another player, but that each action is a random one with probability epsilon."""

    def __init__(self, player: Policy, actions: int, epsilon: float, seed: int) -> None:
        check_epsilon(epsilon)
        self.player, self.actions, self.epsilon = player, actions, epsilon
        self.random = np.random.default_rng(seed)

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        actions, state = self.player.predict(observation, state, episode_start, deterministic)
        at_random = self.random.random(actions.shape) < self.epsilon
        drawn = self.random.integers(self.actions, size=actions.shape)
        return np.where(at_random, drawn, actions), state


def check_epsilon(epsilon: float) -> None:
    """Raises UserError for what is no probability."""
    if not 0.0 <= epsilon <= 1.0:
        raise UserError(f"epsilon is {epsilon}, expected a probability from 0.0 to 1.0")


def episodes_of(steps: Iterable[Step], episodes_per_env: list[int]) -> Iterator[Episode]:
    """The first episodes_per_env[i] games of environment i, each as it ends."""
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
                truncated = bool(info["TimeLimit.truncated"])
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
    player: Policy,
    demos: Demonstrations,
    episodes: int,
    seed: int = 0,
    num_envs: int | None = None,
    deterministic: bool = False,
    epsilon: float = 0.0,
    watch: Callable[[Iterator[Step]], Iterator[Step]] | None = None,
) -> Iterator[Entry]:
    """Play whole games until `demos` holds `episodes`, and yield each as it is on disk.

    Args:
        player: a `SavedPolicy`, any model of stable-baselines3, or a `Human`, for the demos' game;
            plays by the demos' protocol, whole games with unclipped rewards.
        demos: games that it holds already count.
        seed: of games and of epsilon; games after a resumption are others.
        num_envs: games side by side; None takes up to 16, a `Human` plays one.
        deterministic: take the likeliest action each step instead of drawing one.
        epsilon: probability of a random action in its place, which is recorded as the one taken.
        watch: gets the steps and hands on what is recorded.

    Raises:
        UserError: an epsilon that is no probability, what `check_episodes` refuses, a player of other
            observations than the demos', another recorder at work in the folder.
    """
    check_episodes(episodes, num_envs, seed)
    with demos.lock():
        done = len(demos.entries)
        missing = episodes - done
        if missing <= 0:
            return
        num_envs = min(missing, num_envs or default_num_envs(missing))
        mode = None
        if isinstance(player, Human):
            num_envs, mode = 1, "rgb_array"
        seed = resumed_seed(seed, done)
        game, rules = demos.provenance.game, demos.provenance.protocol

        def games(num_envs: int, seed: int, num_threads: int) -> AtariVecEnv:
            return AtariVecEnv(game, num_envs, rules, seed, num_threads, mode)

        def loop(half: int, player: Policy, env: AtariVecEnv) -> Iterator[Step]:
            reads = getattr(player, "observation_space", env.observation_space)
            if reads != env.observation_space:
                raise UserError(
                    f"the player reads {reads}, but {demos.path} is of {env.observation_space}; "
                    "the protocol's frame_stack must be the player's"
                )
            if isinstance(player, Human):
                return player.play(env)
            actions = len(env.get_action_meanings())
            return rollout(
                EpsilonGreedyPolicy(player, actions, epsilon, seed + half), env, deterministic
            )

        with (
            env_groups(player, games, num_envs, seed) as halves,
            parallel_rollouts([loop(i, *half) for i, half in enumerate(halves)]) as steps,
            ThreadPoolExecutor(1) as packer,
        ):
            waiting: list[Future[Entry]] = []  # compressing must not stop the games
            for episode in episodes_of(
                steps if watch is None else watch(steps), episodes_per_env(missing, num_envs)
            ):
                waiting.append(packer.submit(demos.append, episode))
                while waiting and (waiting[0].done() or len(waiting) > num_envs):
                    yield waiting.pop(0).result()
            for written in waiting:
                yield written.result()


def record_with_bar(
    player: Policy,
    demos: Demonstrations,
    episodes: int,
    *,
    watch: Callable[[Iterator[Step]], Iterator[Step]] = iter,
    progress: bool = True,
    **settings: Any,
) -> None:
    """`record`, all of it, under a progress bar of games with steps a second and bytes on disk."""
    before, disabled = min(len(demos.entries), episodes), not progress
    with tqdm(
        total=episodes, initial=before, unit=" games", desc=demos.path.name, disable=disabled
    ) as bar:
        played, size = 0, demos.size

        def show(games: int) -> None:
            rate = played / max(bar.format_dict["elapsed"], 1e-9)
            said = f"{played:,} steps, {rate:,.0f} steps/s, {size / 1e6:.2f} MB"
            bar.set_postfix_str(said, refresh=False)
            bar.update(games)  # draws if it is time to

        def counted(steps: Iterator[Step]) -> Iterator[Step]:
            nonlocal played
            for step in watch(steps):
                played += len(step.actions)
                show(games=0)
                yield step

        for entry in record(player, demos, episodes, watch=counted, **settings):
            size += (demos.path / entry.file).stat().st_size
            show(games=1)


def provenance(policy: SavedPolicy, protocol: str | AtariProtocol, **settings: Any) -> Provenance:
    """What `dataset.json` says of games played by a saved policy."""
    player = {"policy": policy.name, **settings}
    if policy.weights_sha256 is not None:
        player["weights_sha256"] = policy.weights_sha256
    game = policy.recipe.environment.game
    return Provenance(game, evaluation_protocol(policy, protocol), player)


def record_command(
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
    """Record with a progress bar, and print what there is.

    Raises:
        UserError: as `record`, and before any game: a temperature of 0 or less, demos that are
            there already without `resume`, or of other settings with it.
    """
    if not temperature > 0.0:
        raise UserError(f"temperature is {temperature}, expected > 0; --deterministic is its limit")
    if deterministic and temperature != 1.0:
        raise UserError("--temperature is of drawn actions; leave it or --deterministic out")
    check_episodes(episodes, num_envs, seed)
    check_epsilon(epsilon)
    wanted = provenance(
        policy,
        protocol,
        deterministic=deterministic,
        epsilon=epsilon,
        temperature=temperature,
        seed=seed,
    )
    demos = open_or_create(output, wanted, resume)
    before, policy.network.temperature = policy.network.temperature, temperature
    try:
        record_with_bar(
            policy,
            demos,
            episodes,
            seed=seed,
            num_envs=num_envs,
            deterministic=deterministic,
            epsilon=epsilon,
        )
    finally:
        policy.network.temperature = before
    _print_summary(demos)
    return demos


def record_by_hand(
    game: str,
    output: Path,
    *,
    episodes: int,
    protocol: str | AtariProtocol = "v4",
    seed: int = 0,
    resume: bool = False,
) -> Demonstrations:
    """Record a person's games, played in a window, and print what there is.

    Raises:
        UserError: before any game: no screen, pygame missing, an unknown game, demos that are
            there already without `resume`, or of other settings with it.
    """
    check_episodes(episodes, None, seed)
    rules = named_protocol(protocol)
    wanted = Provenance(game, rules.evaluation(), {"human": True, "seed": seed})
    with closing(Human(episodes)) as person:
        demos = open_or_create(output, wanted, resume)
        person.kept = len(demos.entries)
        record_with_bar(person, demos, episodes, seed=seed)
    _print_summary(demos)
    return demos


def open_or_create(output: Path, wanted: Provenance, resume: bool) -> Demonstrations:
    """New demos, or with `resume` those that are there.

    Raises:
        UserError: demos that are there without `resume`, or of other settings with it.
    """
    if not resume:
        return Demonstrations.create(output, wanted)
    demos = Demonstrations(output)
    if demos.provenance != wanted:
        raise UserError(
            f"{output} holds {_differences(demos.provenance, wanted)}; "
            "go on with the settings they have, or in another folder"
        )
    return demos


def _print_summary(demos: Demonstrations) -> None:
    if not demos.entries:
        Terminal().print(f"no games yet; --resume adds some\ndemos: {demos.path}", soft_wrap=True)
        return
    rules = demos.provenance.protocol
    raw = demos.steps * rules.frame_stack * rules.frame_size**2
    scores = [entry.score for entry in demos.entries]
    Terminal().print(
        f"{len(scores)} games, {demos.steps:,} steps, mean score {np.mean(scores):.1f}, "
        f"{demos.size / 1e6:.2f} MB ({demos.size / raw:.1%} of the frames' size)"
        f"\ndemos: {demos.path}",
        soft_wrap=True,
    )


def _differences(there: Provenance, wanted: Provenance) -> str:
    """The first thing in which two provenances differ, in words."""
    pairs = [
        ("game", there.game, wanted.game),
        *_pairs(dataclasses.asdict(there.protocol), dataclasses.asdict(wanted.protocol)),
        *_pairs(there.player, wanted.player),
    ]
    name, old, new = next(pair for pair in pairs if pair[1] != pair[2])
    return f"games of {name} {old!r}, not {new!r}"


def _pairs(there: dict[str, Any], wanted: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(name, there.get(name), wanted.get(name)) for name in {**there, **wanted}]
