"""`ncp-agents evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from ncp_agents.cli.parsing import parse
from ncp_agents.errors import UserError


@dataclass(frozen=True)
class Evaluate:
    """Play whole games with saved policies, unclipped, and report their scores.

        ncp-agents evaluate policies/pong-cfc --episodes 30 --video pong.mp4
        ncp-agents evaluate pong-cfc pong-ltc
        ncp-agents evaluate pong-cfc --noise 0.01 0.02 --frame-skip-jitter 1 2 3

    Perturbations come one at a time, at each strength given, beside unperturbed games.
    """

    policies: tyro.conf.Positional[tuple[str, ...]]  # folders, or names as `policies` lists them
    episodes: int = 30  # whole games
    protocol: Literal["v4", "v5"] = "v4"  # v5 has sticky actions (0.25)
    deterministic: bool = False  # take the likeliest action instead of drawing one
    seed: int = 0  # of games and actions; game i has seed + i, so near seeds share games
    num_envs: int | None = None  # games played side by side; default 16 at most
    video: Path | None = None  # film a game: .mp4, .webm or .gif
    video_games: int = 1  # games in the video and the page
    brain: bool = False  # show the circuit beside the game, in the video and in the window
    page: Path | None = None  # write a page (.html) of a game and the circuit, to step through
    render: Literal["human"] | None = None  # watch in a window; needs the extra 'play'
    output: Path | None = None  # scores file; default scores.json in the policy's folder
    noise: tuple[float, ...] = ()  # on each pixel: standard deviation as a share of white
    drop_frames: tuple[float, ...] = ()  # probability that an observation is lost
    stickiness: tuple[float, ...] = ()  # probability that a frame repeats the previous action
    frame_skip_jitter: tuple[int, ...] = ()  # k: steps last 4 - k to 4 + k frames
    plot: Path | None = None  # picture of several policies, or of perturbations


def evaluate(arguments: Sequence[str]) -> int:
    choice = parse(Evaluate, arguments, "evaluate")
    kinds = ("noise", "drop_frames", "stickiness", "frame_skip_jitter")
    sweeps = {kind: getattr(choice, kind) for kind in kinds if getattr(choice, kind)}
    for kind in kinds:
        option = f"--{kind.replace('_', '-')}"
        if option in arguments and kind not in sweeps:
            raise UserError(f"{option} lacks its strengths; name one or more after it")
    if not choice.policies:
        raise UserError("which policy? name one, such as pong-cfc; see ncp-agents policies")

    from ncp_agents.agents.saved_policy import load
    from ncp_agents.agents.zoo import find
    from ncp_agents.cli.comparison import compare_command
    from ncp_agents.evaluation.evaluate import evaluate_command

    loaded = [load(find(name)) for name in choice.policies]
    if len(loaded) > 1 or sweeps or choice.plot is not None:
        for option in ("video", "video_games", "brain", "page", "render", "output"):
            if getattr(choice, option) != getattr(Evaluate, option):
                name = option.replace("_", "-")
                raise UserError(f"--{name} is for one policy, unperturbed; leave it out here")
        compare_command(
            loaded,
            sweeps,
            episodes=choice.episodes,
            protocol=choice.protocol,
            deterministic=choice.deterministic,
            seed=choice.seed,
            num_envs=choice.num_envs,
            plot=choice.plot,
        )
        return 0
    evaluate_command(
        loaded[0],
        episodes=choice.episodes,
        protocol=choice.protocol,
        deterministic=choice.deterministic,
        seed=choice.seed,
        num_envs=choice.num_envs,
        video=choice.video,
        video_games=choice.video_games,
        brain=choice.brain,
        page=choice.page,
        render=choice.render,
        output=choice.output,
    )
    return 0
