"""How well a policy plays: whole games, their scores, and what is known from so few of them."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from tqdm import tqdm

from ncp_agents.agents.saved_policy import SavedPolicy, State
from ncp_agents.cli.console import Terminal
from ncp_agents.cli.tables import table
from ncp_agents.cli.watching import in_window, record_trace, record_video, title_of
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.games import action_meanings
from ncp_agents.envs.perturbations import JitteredAtariVecEnv, Perturbation, perturbed
from ncp_agents.envs.protocol import PROTOCOLS, AtariProtocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.parallel_rollout import parallel_rollouts
from ncp_agents.evaluation.rollout import (
    Policy,
    Step,
    check_episodes,
    default_num_envs,
    env_factory,
    env_groups,
    episodes_per_env,
    evaluation_protocol,
    rollout,
)
from ncp_agents.evaluation.scores import SCORES, Scores, read_scores, write_scores
from ncp_agents.explain.activations import Trace
from ncp_agents.explain.circuit_graph import circuit_graph
from ncp_agents.files import check_writable
from ncp_agents.rendering.circuit_video import circuit_frames
from ncp_agents.rendering.page import check_page_path, write_page
from ncp_agents.rendering.video import check_video_path, write_video
from ncp_agents.rendering.window import Window


class EpisodeStats(NamedTuple):
    """A finished game."""

    score: float  # undiscounted, unclipped
    length: int  # steps


class Games(NamedTuple):
    """What was counted, and how fast it went."""

    games: list[EpisodeStats]
    actions: np.ndarray  # (A,): how often each was taken in these games
    steps_per_second: float  # all environments together


@dataclasses.dataclass(frozen=True)
class TimespanPolicy:
    """A policy whose circuit learns how long each step of jittered games really was."""

    policy: SavedPolicy
    env: JitteredAtariVecEnv

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State]:
        timespans = self.env.timespans
        return self.policy.act(observation, state, episode_start, deterministic, timespans)


def evaluate(
    policy: SavedPolicy,
    episodes: int = 30,
    protocol: str | AtariProtocol = "v4",
    seed: int = 0,
    deterministic: bool = False,
    num_envs: int | None = None,
    on_episode: Callable[[EpisodeStats], None] | None = None,
    watch: Callable[[Iterator[Step]], Iterator[Step]] | None = None,
    perturbation: Perturbation | None = None,
    policy_factory: Callable[[SavedPolicy, AtariVecEnv], Policy] | None = None,
) -> Scores:
    """Play `episodes` whole games, rewards unclipped.

    Args:
        policy: plays; its network stays as it is.
        episodes: games, at least 1.
        protocol: "v4", "v5" or an `AtariProtocol`, taken as its `evaluation()`; the frame stack is
            the policy's own.
        seed: of environments and sampled actions. The same seed and num_envs give the same scores.
            torch's own random numbers are left as they were.
        deterministic: take the likeliest action each step instead of sampling one.
        num_envs: games side by side; None takes `default_num_envs(episodes)`.
        on_episode: told of each counted game as it ends.
        watch: gets the steps, with screens, and hands them on; the evaluation ends early where it
            stops, with the games finished so far. Not with a perturbation.
        perturbation: what comes between the games and the policy.
        policy_factory: says who plays some of the games in the policy's place; None is the policy itself,
            told the time where the perturbation says so.

    Raises:
        UserError: an unknown protocol, a perturbation that the protocol has already, or what
            `check_episodes` refuses.
    """
    check_episodes(episodes, num_envs, seed)
    num_envs = min(num_envs or default_num_envs(episodes), episodes)
    name = protocol if isinstance(protocol, str) else protocol_name(protocol)

    meanings = action_meanings(policy.recipe.environment.game)
    make = env_factory(policy, protocol, watch is not None, perturbation)

    def loop(player: SavedPolicy, env: AtariVecEnv) -> Iterator[Step]:
        if policy_factory is not None:
            return rollout(policy_factory(player, env), env, deterministic)
        if isinstance(env, JitteredAtariVecEnv) and perturbation and perturbation.timespans:
            return rollout(TimespanPolicy(player, env), env, deterministic)
        return rollout(player, env, deterministic)

    with (
        env_groups(policy, make, num_envs, seed) as halves,
        parallel_rollouts([loop(half.policy, half.env) for half in halves]) as steps,
    ):
        counted = steps if watch is None else watch(steps)
        games, actions, speed = _counted_games(
            counted, episodes_per_env(episodes, num_envs), len(meanings), on_episode
        )
    return Scores(
        game=policy.recipe.environment.game,
        protocol=name,
        deterministic=deterministic,
        seed=seed,
        num_envs=num_envs,
        returns=tuple(game.score for game in games),
        lengths=tuple(game.length for game in games),
        actions=dict(zip(meanings, actions.tolist(), strict=True)),
        perturbation=perturbation,
        steps_per_second=round(speed, 1),
        weights_sha256=policy.weights_sha256,
    )


def check_perturbations(
    policy: SavedPolicy, protocol: str | AtariProtocol, ways: Iterable[Perturbation | None]
) -> None:
    """Raises UserError where one of these cannot come between the games and this policy."""
    game, rules = policy.recipe.environment.game, evaluation_protocol(policy, protocol)
    for way in filter(None, ways):
        if way.timespans and policy.recipe.circuit.cell == "lstm":
            raise UserError(
                f"{policy.name} is an LSTM, which no time can be told; leave jitter out"
            )
        perturbed(way, game, 1, rules, seed=0).close()


def protocol_name(protocol: AtariProtocol) -> str:
    """The nearest named protocol, and how this one differs in evaluation: "v4(max_frames=400)"."""
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


def evaluate_command(
    policy: SavedPolicy,
    *,
    episodes: int = 30,
    protocol: str | AtariProtocol = "v4",
    deterministic: bool = False,
    seed: int = 0,
    video: Path | None = None,
    brain: bool = False,
    page: Path | None = None,
    video_games: int = 1,
    render: Literal["human"] | None = None,
    output: Path | None = None,
    num_envs: int | None = None,
) -> Scores:
    """Evaluate with a progress bar, write `output`, print the table, write the video.

    With render="human" the games that count are the ones in the window, one at a time at the
    game's own speed; closing the window ends the command, prints the games finished by then and
    writes nothing, since fewer games are not what was asked for. A video is recorded afterwards,
    of `video_games` further games played alone: screens of all scored games would halve the speed.

    Args:
        brain: whether the video and the window have the circuit beside the game.
        page: an HTML file of the same games as the video, the game and the circuit step by step.
        output: the scores file; None takes the policy's own, if it has a folder. An entry of more
            games than `episodes` stays as it is.

    Raises:
        UserError: before any game is played, where a file cannot be written, a window not be
            opened, or an option makes no sense.
    """
    check_episodes(episodes, num_envs, seed)
    if output is None and policy.folder is not None:
        output = policy.folder / SCORES
    _check_files(output, video, page)
    if brain and video is None and render is None:
        raise UserError(
            "--brain is the circuit beside a game that is shown; add --video game.mp4 or "
            "--render human"
        )
    if video_games < 1:
        raise UserError(f"video_games is {video_games}, expected >= 1")
    if video_games > 1 and video is None and page is None:
        raise UserError("--video-games is of a video or a page; add --video game.mp4")
    if render is not None and (num_envs or 1) > 1:
        raise UserError(f"num_envs is {num_envs}, but a window shows one game; leave it out")

    console = Terminal()
    with contextlib.ExitStack() as stack:
        watching: dict[str, Any] = {}
        if render is not None:
            num_envs = 1
            window = Window(policy.name, scale=1 if brain else 3)
            stack.enter_context(contextlib.closing(window))
            watching = in_window(policy, window, brain, protocol, seed, deterministic)
        scores = evaluate_with_bar(
            policy, episodes, protocol, seed, deterministic, num_envs, **watching
        )
    stopped = len(scores.returns) < episodes
    said = write_unless_fewer(output, scores) if output is not None and not stopped else None
    console.print(table(scores))
    if stopped:
        console.print(f"stopped after {len(scores.returns)} of {episodes} games; nothing written")
        return scores
    if said is not None:
        console.print(said, soft_wrap=True)
    if (brain and video is not None) or page is not None:
        played = record_trace(policy, video_games, protocol, seed, deterministic)
        _show_circuit(policy, played, video if brain else None, page, console)
    if video is not None:
        if not brain:
            record_video(policy, video, video_games, protocol, seed, deterministic)
        console.print(f"video: {video}", soft_wrap=True)
    return scores


def _check_files(output: Path | None, video: Path | None, page: Path | None) -> None:
    if output is not None:
        check_writable(output, "--output")
        if output.exists():
            read_scores(output)
    if video is not None:
        check_video_path(video)
        check_writable(video, "--video")
    if page is not None:
        check_page_path(page)
        check_writable(page, "--page")


def _show_circuit(
    policy: SavedPolicy, played: Trace, video: Path | None, page: Path | None, console: Terminal
) -> None:
    """The games of a trace and the circuit that played them, as a video and as a page."""
    circuit, title = circuit_graph(policy), title_of(policy)
    if circuit.in_blocks:
        console.print(f"{circuit.about}: too many for lines, drawn as blocks of neurons")
    if video is not None:
        frames = circuit_frames(played, circuit, title)
        write_video(video, tqdm(frames, video.name, len(played), unit=" steps"), scale=1)
    if page is not None:
        write_page(page, played, circuit, title)
        console.print(f"page: {page}", soft_wrap=True)


def evaluate_with_bar(policy: SavedPolicy, episodes: int, *args: Any, **kwargs: Any) -> Scores:
    """`evaluate`, with a progress bar that shows the mean so far."""
    with tqdm(total=episodes, unit=" games", desc=policy.name) as bar:
        total = 0.0

        def on_episode(game: EpisodeStats) -> None:
            nonlocal total
            total += game.score
            bar.update()
            bar.set_postfix_str(f"mean {total / bar.n:.1f}")

        return evaluate(policy, episodes, *args, **kwargs, on_episode=on_episode)


def write_unless_fewer(path: Path, scores: Scores) -> str:
    """Write scores into a scores file, unless it knows more games of the same weights → what was
    done, in words.
    """
    known = read_scores(path).get(scores.key) if path.exists() else None
    if (
        known is not None
        and known.may_be_of(scores.weights_sha256)
        and len(known.returns) > len(scores.returns)
    ):
        return f"{path} keeps its {len(known.returns)} games under {scores.key}, which say more"
    write_scores(path, scores)
    return f"scores: {path}"


def _counted_games(
    steps: Iterable[Step],
    episodes_per_env: list[int],
    actions: int,
    on_episode: Callable[[EpisodeStats], None] | None,
) -> Games:
    """The first episodes_per_env[i] games of environment i, environment after environment."""
    games: list[list[EpisodeStats]] = [[] for _ in episodes_per_env]
    running, taken = np.zeros((len(episodes_per_env), actions), int), np.zeros(actions, int)
    missing, played, began = sum(episodes_per_env), 0, None
    for step in steps:
        if began is None:
            began = time.perf_counter()  # the games have been set up
        else:
            played += len(episodes_per_env)
        running[np.arange(len(episodes_per_env)), step.actions] += 1
        for i, info in enumerate(step.infos):
            if "episode" not in info:
                continue
            if len(games[i]) < episodes_per_env[i]:
                games[i].append(EpisodeStats(info["episode"]["r"], info["episode"]["l"]))
                taken += running[i]
                missing -= 1
                if on_episode is not None:
                    on_episode(games[i][-1])
            running[i] = 0
        if not missing:
            break
    speed = 0.0 if began is None else played / (time.perf_counter() - began)
    return Games([game for own in games for game in own], taken, speed)
