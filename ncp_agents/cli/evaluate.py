"""`ncp-agents evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ncp_agents.agents.zoo import find
from ncp_agents.cli.parsing import Flag, parse, shown_as
from ncp_agents.errors import UserError


@dataclass(frozen=True)
class Evaluate:
    """Score saved policies over whole episodes, with unclipped rewards.

    POLICY is a name that `ncp-agents policies` lists, or a folder. The scores, with confidence
    intervals, are printed and kept in scores.json in the policy's folder. An episode can be filmed
    or watched:

        ncp-agents evaluate pong-cfc --video pong.mp4 --show-circuit
        ncp-agents evaluate pong-cfc --render human

    Several policies are compared in one table and one picture:

        ncp-agents evaluate pong-cfc pong-ltc

    So are perturbations of the environment. Each is evaluated alone, at each strength given, beside
    unperturbed episodes:

        ncp-agents evaluate pong-cfc --noise 0.01 0.02 --frame-skip-jitter 1 2 3

    Options of a comparison are --plot and those of the episodes; a video, a page, a window and
    --output are of one policy without perturbations.
    """

    policies: tyro.conf.Positional[Annotated[tuple[str, ...], shown_as("POLICY...")]] = ()
    """names or folders of saved policies"""
    episodes: int = 30  # number of whole episodes
    protocol: Literal["v4", "v5"] = "v4"
    """v5 has sticky actions: a frame repeats the previous action with probability 0.25"""
    deterministic: Flag = False  # take greedy actions instead of sampled ones
    seed: int = 0  # of environments and actions; environment i has seed + i
    num_envs: Annotated[int | None, shown_as("INT", "at most 16")] = None
    """parallel environments"""
    video: Annotated[Path | None, shown_as("FILE")] = None
    """record a video of a further episode: .mp4, .webm or .gif"""
    video_episodes: int = 1  # number of episodes in the video and the page
    show_circuit: Flag = False
    """show the circuit with its activity beside the game, in the video and in the window"""
    page: Annotated[Path | None, shown_as("FILE")] = None
    """write a page (.html) to step through the video's episode and the circuit's activity"""
    render: Annotated[Literal["human"] | None, shown_as("human")] = None
    """show the episodes in a window, one environment in real time; needs the extra 'play'"""
    output: Annotated[Path | None, shown_as("FILE", "scores.json in the policy's folder")] = None
    """scores file"""
    noise: Annotated[tuple[float, ...], shown_as("STD...")] = ()
    """perturbation: Gaussian noise on each pixel; standard deviations as fractions of 255"""
    drop_frames: Annotated[tuple[float, ...], shown_as("P...")] = ()
    """perturbation: probabilities that an observation is lost and the previous one repeated"""
    stickiness: Annotated[tuple[float, ...], shown_as("P...")] = ()
    """perturbation: probabilities that a frame repeats the previous frame's action"""
    frame_skip_jitter: Annotated[tuple[int, ...], shown_as("K...")] = ()
    """perturbation: steps last 4 - K to 4 + K frames, with and without timespans for the circuit"""
    plot: Annotated[Path | None, shown_as("FILE", "scores.png or perturbations.png")] = None
    """picture (.png) of several policies or of perturbations"""

    @property
    def strengths(self) -> dict[str, tuple[float, ...]]:
        """By kind of perturbation; only those given."""
        kinds = ("noise", "drop_frames", "stickiness", "frame_skip_jitter")
        return {kind: getattr(self, kind) for kind in kinds if getattr(self, kind)}


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Evaluate, arguments, "evaluate")
    if not options.policies:
        raise UserError("which policy? name one, such as pong-cfc; see ncp-agents policies")
    folders = [find(name) for name in options.policies]

    from ncp_agents.agents.saved_policy import load
    from ncp_agents.cli.compare import compare
    from ncp_agents.cli.evaluate_one import evaluate_one

    policies = [load(folder) for folder in folders]
    if len(policies) > 1 or options.strengths or options.plot is not None:
        compare(policies, options)
    else:
        evaluate_one(policies[0], options)
    return 0
