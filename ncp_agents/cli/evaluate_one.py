"""The evaluation of one policy: its scores, and its episodes as a video, page or window."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from ncp_agents.agents.saved_policy import SavedPolicy
from ncp_agents.cli.console import Terminal
from ncp_agents.cli.evaluate import Evaluate
from ncp_agents.cli.tables import scores_table
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.protocol import STEPS_PER_SECOND, AtariProtocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.evaluate import EpisodeStats, evaluate
from ncp_agents.evaluation.rollout import (
    Policy,
    env_factory,
    env_groups,
    first_episodes,
    rollout,
)
from ncp_agents.evaluation.scores import SCORES, Scores, read_scores, write_scores
from ncp_agents.explain.activations import ActivationRecorder, record_trace
from ncp_agents.explain.circuit_graph import circuit_graph
from ncp_agents.files import check_writable
from ncp_agents.rendering.captions import captioned_frames
from ncp_agents.rendering.circuit_layout import CircuitLayout
from ncp_agents.rendering.circuit_video import (
    CircuitRenderer,
    circuit_frames,
    live_circuit_frames,
)
from ncp_agents.rendering.page import check_page_path, write_page
from ncp_agents.rendering.video import check_video_path, write_video
from ncp_agents.rendering.window import Window, show_frames

TYPICAL_STEPS = 30 * STEPS_PER_SECOND  # that the window's colour scales are taken from


def evaluate_one(policy: SavedPolicy, options: Evaluate) -> Scores:
    """Evaluate with a progress bar, write the scores, print them, and write video and page.

    The episodes in a window are those that count; when it is closed, the scores of the finished
    ones are printed but not written. Video and page show further episodes of a single environment:
    to render all of them would halve the speed.

    Raises:
        UserError: before the first episode, where a file cannot be written or a window not opened.
    """
    output, video, page = options.output, options.video, options.page
    if output is None and policy.folder is not None:
        output = policy.folder / SCORES
    if options.video_episodes < 1:
        raise UserError(f"video_episodes is {options.video_episodes}, expected >= 1")
    if output is not None:
        check_scores_file(output, "--output")
    if video is not None:
        check_video_path(video)
        check_writable(video, "--video")
    if page is not None:
        check_page_path(page)
        check_writable(page, "--page")
    settings = (options.protocol, options.seed, options.deterministic)
    with ExitStack() as stack:
        rollout_options: dict[str, Any] = {"num_envs": options.num_envs}
        if options.render is not None:
            window = Window(policy.name, scale=1 if options.show_circuit else 3)
            stack.enter_context(closing(window))
            rollout_options = _in_window(policy, window, options.show_circuit, settings)
        scores = evaluate_with_bar(policy, options.episodes, *settings, **rollout_options)
    done = f"stopped after {len(scores.returns)} of {options.episodes} episodes; nothing written"
    if len(scores.returns) == options.episodes:
        done = "" if output is None else save_scores(output, scores)
    Terminal().print(scores_table(scores))
    if done:
        print(done)
    if len(scores.returns) < options.episodes:
        return scores
    if page is not None or (video is not None and options.show_circuit):
        trace = record_trace(policy, options.video_episodes, *settings)
        graph, title = circuit_graph(policy), _title(policy)
        if CircuitLayout(graph).in_blocks:
            print(f"{graph.about}: too many for lines, drawn as blocks of neurons")
        if video is not None and options.show_circuit:
            frames = circuit_frames(trace, graph, title)
            write_video(
                video, tqdm(frames, video.name, len(trace), unit=" steps", disable=None), scale=1
            )
        if page is not None:
            write_page(page, trace, graph, title)
            print(f"page: {page}")
    if video is not None:
        if not options.show_circuit:
            record_video(policy, video, options.video_episodes, *settings)
        print(f"video: {video}")
    return scores


def evaluate_with_bar(policy: SavedPolicy, episodes: int, *args: Any, **kwargs: Any) -> Scores:
    """`evaluate`, with a progress bar that shows the mean so far."""
    # Without the delay a bar would precede the error of a refused option.
    with tqdm(total=episodes, unit=" episodes", desc=policy.name, delay=0.5, disable=None) as bar:
        scores: list[float] = []

        def on_episode(episode: EpisodeStats) -> None:
            scores.append(episode.score)
            bar.update()
            bar.set_postfix_str(f"mean {fmean(scores):.1f}")

        return evaluate(policy, episodes, *args, **kwargs, on_episode=on_episode)


def check_scores_file(path: Path, option: str) -> None:
    """Check that scores can be written; `option` names another place.

    Raises:
        UserError: an unwritable path, or a file that is not a scores file.
    """
    check_writable(path, option)
    if path.exists():
        read_scores(path)


def save_scores(path: Path, scores: Scores) -> str:
    """Write scores unless the file has more episodes of the same setting; return what was done."""
    kept = write_scores(path, scores, keep_larger=True)
    if kept is scores:
        return f"scores: {path}"
    return f"{path} keeps its {len(kept.returns)} episodes of {kept.key}, which are more"


def record_video(
    policy: SavedPolicy,
    path: Path,
    episodes: int = 1,
    protocol: str | AtariProtocol = "v4",
    seed: int = 0,
    deterministic: bool = False,
) -> int:
    """Record episodes of one environment in a video; return the number of steps shown."""
    make_env = env_factory(policy, protocol, render=True)
    with env_groups(policy, make_env, 1, seed) as [(policy, env)]:
        steps = first_episodes(rollout(policy, env, deterministic), episodes)
        frames = (frame for _, frame in captioned_frames(steps))
        return write_video(path, tqdm(frames, desc=path.name, unit=" steps", disable=None))


def _title(policy: SavedPolicy) -> str:
    return f"{policy.name} plays {policy.recipe.environment.game}"


def _in_window(
    policy: SavedPolicy, window: Window, show_circuit: bool, settings: tuple[Any, ...]
) -> dict[str, Any]:
    """Return what `evaluate` needs to show its one environment in a window."""
    if not show_circuit:
        frames, options = captioned_frames, {}
    else:
        typical = record_trace(policy, 1, *settings, max_steps=TYPICAL_STEPS)
        renderer = CircuitRenderer(circuit_graph(policy), _title(policy), typical)
        recorder = ActivationRecorder(policy)
        frames = partial(live_circuit_frames, recorder=recorder, renderer=renderer)

        def policy_factory(member: SavedPolicy, _: AtariVecEnv) -> Policy:
            recorder.policy = member
            return recorder

        options = {"policy_factory": policy_factory}
    return {"num_envs": 1, "wrap_steps": lambda steps: show_frames(frames(steps), window)} | options
