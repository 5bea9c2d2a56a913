"""`ncp-agents record`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from ncp_agents.cli.parsing import parse
from ncp_agents.errors import UserError

if TYPE_CHECKING:
    from ncp_agents.datasets.demonstrations import Demonstrations


@dataclass(frozen=True)
class Record:
    """Record whole games of a saved policy, or of a person, as demos, losslessly: one file a game.

        ncp-agents record pong-cfc --episodes 20 --output demos/pong
        ncp-agents record pong --human --output demos/mine

    Killed at any moment, all finished games are there; --resume goes on.
    """

    policy: tyro.conf.Positional[str | None] = None  # folder or name; with --human a game
    human: bool = False  # play yourself, in a window; needs the extra 'play'
    output: Path | None = None  # folder of the demos; default demos/<policy>
    episodes: int = 20  # whole games in all
    protocol: Literal["v4", "v5"] = "v4"  # v5 has sticky actions (0.25)
    deterministic: bool = False  # take the likeliest action instead of drawing one
    epsilon: float = 0.0  # probability of a random action, for variety
    temperature: float = 1.0  # above 1 draws actions more evenly
    seed: int = 0  # of games and actions
    num_envs: int | None = None  # games played side by side; default 16 at most
    resume: bool = False  # add to the demos that are there
    drop: str | None = None  # take this file, a damaged one, out of the demos, and end


def record(arguments: Sequence[str]) -> int:
    choice = parse(Record, arguments, "record")
    if choice.output is None and choice.policy is None:
        raise UserError("whose games? name a policy, such as pong-cfc; see ncp-agents policies")
    named = Path(choice.policy or "")
    output = choice.output or Path("demos") / (named.resolve() if named.is_dir() else named).name

    if choice.drop is not None:
        from ncp_agents.datasets.demonstrations import Demonstrations

        for option in fields(choice):
            if option.name not in ("policy", "output", "drop") and (
                getattr(choice, option.name) != option.default
            ):
                raise UserError(
                    f"--{option.name.replace('_', '-')} does not go with --drop, which records "
                    "nothing; leave it out"
                )
        Demonstrations(output).drop(choice.drop)
        print(
            f"dropped {choice.drop}; {len(Demonstrations(output).entries)} games stay in {output}"
        )
        return 0
    if choice.policy is None:
        raise UserError(f"whose games for {output}? name a policy, such as pong-cfc")

    if choice.human:
        for name in ("deterministic", "epsilon", "temperature", "num_envs"):
            if getattr(choice, name) != getattr(Record, name):
                raise UserError(
                    f"--{name.replace('_', '-')} is of a policy's games, not a person's"
                )

        from ncp_agents.imitation.recording import record_human

        demos = record_human(
            choice.policy,
            output,
            episodes=choice.episodes,
            protocol=choice.protocol,
            seed=choice.seed,
            resume=choice.resume,
        )
        print_summary(demos)
        return 0

    from ncp_agents.agents.saved_policy import load
    from ncp_agents.agents.zoo import find
    from ncp_agents.imitation.recording import record_policy

    demos = record_policy(
        load(find(choice.policy)),
        output,
        episodes=choice.episodes,
        protocol=choice.protocol,
        seed=choice.seed,
        num_envs=choice.num_envs,
        deterministic=choice.deterministic,
        epsilon=choice.epsilon,
        temperature=choice.temperature,
        resume=choice.resume,
    )
    print_summary(demos)
    return 0


def print_summary(demos: Demonstrations) -> None:
    """Print what a folder of demos holds."""
    if not demos.entries:
        print(f"no episodes yet; --resume adds some\ndemos: {demos.path}")
        return
    rules = demos.provenance.protocol
    raw = demos.steps * rules.frame_stack * rules.frame_size**2
    mean = sum(entry.score for entry in demos.entries) / len(demos.entries)
    print(
        f"{len(demos.entries)} episodes, {demos.steps:,} steps, mean score {mean:.1f}, "
        f"{demos.size / 1e6:.2f} MB ({demos.size / raw:.1%} of the frames' size)"
        f"\ndemos: {demos.path}"
    )
