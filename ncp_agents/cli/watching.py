"""A policy's games to look at: as a trace, as a video, and in a window with its circuit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ncp_agents.agents.saved_policy import SavedPolicy
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.protocol import STEPS_PER_SECOND, AtariProtocol
from ncp_agents.evaluation.rollout import Policy, env_factory, env_groups, first_episodes, rollout
from ncp_agents.explain.activations import ActivationRecorder, Trace, trace
from ncp_agents.explain.circuit_graph import circuit_graph
from ncp_agents.rendering.captions import captioned_frames
from ncp_agents.rendering.circuit_video import CircuitRenderer
from ncp_agents.rendering.live_circuit import live
from ncp_agents.rendering.video import write_video
from ncp_agents.rendering.window import Window, shown


def record_trace(
    policy: SavedPolicy,
    games: int = 1,
    protocol: str | AtariProtocol = "v4",
    seed: int = 0,
    deterministic: bool = False,
    steps: int | None = None,
) -> Trace:
    """Play the games that `record_video` plays, and keep all that the policy saw, felt and did, in
    at most so many steps.
    """
    with env_groups(policy, env_factory(policy, protocol, render=True), 1, seed) as [(same, env)]:
        player = ActivationRecorder(same)
        played = first_episodes(rollout(player, env, deterministic), games)
        shown_steps = tqdm(itertools.islice(played, steps), desc=policy.name, unit=" steps")
        return trace(player, shown_steps)


def record_video(
    policy: SavedPolicy,
    path: Path,
    games: int = 1,
    protocol: str | AtariProtocol = "v4",
    seed: int = 0,
    deterministic: bool = False,
) -> int:
    """Play `games` games alone, with a progress bar, into a video → the number of steps shown."""
    with env_groups(policy, env_factory(policy, protocol, render=True), 1, seed) as [(player, env)]:
        steps = first_episodes(rollout(player, env, deterministic), games)
        frames = (picture for _, picture in captioned_frames(steps))
        return write_video(path, tqdm(frames, desc=path.name, unit=" steps"))


def title_of(policy: SavedPolicy) -> str:
    """What stands above its games."""
    return f"{policy.name} plays {policy.recipe.environment.game}"


def in_window(
    policy: SavedPolicy, window: Window, brain: bool, *settings: Any
) -> dict[str, Callable[..., Any]]:
    """What `evaluate` needs to show its one game in a window, with the circuit beside it if asked;
    settings as of `record_trace`, whose first half minute says how strong the signals are.
    """
    if not brain:
        return {"watch": lambda steps: shown(captioned_frames(steps), window)}
    usual = record_trace(policy, 1, *settings, steps=USUAL)
    drawn, player = (
        CircuitRenderer(circuit_graph(policy), title_of(policy), usual),
        ActivationRecorder(policy),
    )

    def policy_factory(drawing: SavedPolicy, _: AtariVecEnv) -> Policy:
        player.policy = drawing
        return player

    return {
        "policy_factory": policy_factory,
        "watch": lambda steps: shown(live(steps, player, drawn), window),
    }


USUAL = 30 * STEPS_PER_SECOND
