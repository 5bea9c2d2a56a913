"""`ncp-agents record`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ncp_agents.agents.zoo import find
from ncp_agents.cli.parsing import Flag, missing_policy, parse, shown_as

if TYPE_CHECKING:
    from ncp_agents.datasets.demonstrations import Demonstrations


@dataclass(frozen=True)
class Record:
    """Record whole episodes of a saved policy or of a person as demonstrations.

    They are lossless: one file an episode holds observations, actions and rewards. If the command
    is interrupted, all finished episodes are kept, and --resume adds the missing ones.

        ncp-agents record pong-cfc --episodes 20 --output demos/pong
        ncp-agents record pong --human --output demos/mine

    A person plays by keyboard, one episode at a time; --deterministic, --epsilon, --temperature and
    --num-envs then have no effect.
    """

    policy: tyro.conf.Positional[Annotated[str, shown_as("POLICY")]] = ""
    """name of a saved policy, or its folder; with --human a game, such as pong"""
    human: Flag = False  # play by keyboard, in a window; needs the extra 'play'
    output: Annotated[Path | None, shown_as("FOLDER", "demos/<policy>")] = None
    """folder of the demonstrations"""
    episodes: int = 20  # number of episodes in the folder at the end
    protocol: Literal["v4", "v5"] = "v4"
    """v5 has sticky actions: a frame repeats the previous action with probability 0.25"""
    deterministic: Flag = False  # take greedy actions instead of sampled ones
    epsilon: float = 0.0  # probability of a uniformly random action instead
    temperature: float = 1.0  # of sampled actions; above 1 makes their distribution more uniform
    seed: int = 0  # of environments and actions
    num_envs: Annotated[int | None, shown_as("INT", "at most 16")] = None
    """parallel environments"""
    resume: Flag = False  # add to the demonstrations in the folder
    drop: Annotated[str | None, shown_as("FILE")] = None
    """remove this episode, such as a damaged file, from the folder, and end"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Record, arguments, "record")
    if not options.policy and not (options.drop and options.output):
        raise missing_policy("record")
    named = Path(options.policy)
    output = options.output or Path("demos") / (named.resolve() if named.is_dir() else named).name
    folder = None if options.human or options.drop else find(options.policy)

    from ncp_agents.agents.saved_policy import load
    from ncp_agents.datasets.demonstrations import Demonstrations
    from ncp_agents.imitation.recording import record_human, record_policy

    if options.drop is not None:
        demos = Demonstrations(output)
        demos.drop(options.drop)
        print(f"removed {options.drop}; {len(Demonstrations(output).entries)} episodes remain")
        return 0
    if folder is None:
        demos = record_human(
            options.policy,
            output,
            episodes=options.episodes,
            protocol=options.protocol,
            seed=options.seed,
            resume=options.resume,
        )
    else:
        demos = record_policy(
            load(folder),
            output,
            episodes=options.episodes,
            protocol=options.protocol,
            seed=options.seed,
            num_envs=options.num_envs,
            deterministic=options.deterministic,
            epsilon=options.epsilon,
            temperature=options.temperature,
            resume=options.resume,
        )
    print(summary(demos))
    return 0


def summary(demos: Demonstrations) -> str:
    """Return the size and the mean score of demonstrations, in two lines."""
    scores = [entry.score for entry in demos.entries]
    if not scores:
        return f"no episodes yet; --resume adds some\ndemos: {demos.path}"
    rules = demos.provenance.protocol
    raw = demos.steps * rules.frame_stack * rules.frame_size**2
    return (
        f"{len(scores)} episodes, {demos.steps:,} steps, mean score "
        f"{sum(scores) / len(scores):.1f}, {demos.size / 1e6:.2f} MB "
        f"({demos.size / raw:.1%} of the frames' size)\ndemos: {demos.path}"
    )
