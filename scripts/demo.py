"""A first look, in under 5 minutes: a saved policy plays, then a fresh one begins to learn.

    python scripts/demo.py [--out demo] [--steps 150000]

Writes into --out: pong.mp4 (a game), and fresh/ (a run folder with curve.png).
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from ncp_agents import saved_policy
from ncp_agents.errors import UserError
from ncp_agents.evaluation import evaluate_command
from ncp_agents.run_folder import RunFolder, read_progress
from ncp_agents.training import train

RISE = 1.0  # points of return above the start that count as learning; random play varies by 0.3


@dataclass(frozen=True)
class Demo:
    """A first look: a saved policy plays Pong, then a fresh one begins to learn it."""

    out: Path = Path("demo")  # folder for the video and the run; an earlier run there is replaced
    policy: str = "pong-cfc"  # whose game and recipe
    episodes: int = 4  # whole games to score
    steps: int = 150_000  # of the fresh agent's training; about two minutes


def main() -> None:
    options = tyro.cli(Demo)
    console = Console()
    policy = saved_policy.load(saved_policy.find(options.policy))
    circuit = policy.network.circuit
    console.rule(f"1. {policy.name} plays {policy.recipe.environment.game}")
    console.print(
        f"{circuit.state_size} neurons, "
        f"{sum(p.numel() for p in policy.network.parameters()):,} parameters, one frame at a time"
    )
    video = options.out / f"{policy.recipe.environment.game}.mp4"
    evaluate_command(
        policy, episodes=options.episodes, video=video, output=options.out / "scores.json"
    )

    console.rule("2. a fresh agent learns the same game")
    folder = options.out / "fresh"
    if (folder / "recipe.toml").is_file():
        shutil.rmtree(folder)
    recipe = replace(
        policy.recipe,
        name="fresh",
        steps=options.steps,
        schedule=replace(policy.recipe.schedule, eval_every=0),
        ppo=replace(policy.recipe.ppo, anneal=False),
    )
    train(RunFolder.create(folder, recipe))
    rows = [row for row in read_progress(folder / "progress.csv") if "return_mean" in row]
    table = Table("steps", "minutes", "return (mean of recent games)")
    for index in range(0, len(rows), max(1, len(rows) // 8)):
        row = rows[index]
        table.add_row(
            f"{row['steps']:,.0f}", f"{row['seconds'] / 60:.1f}", f"{row['return_mean']:.1f}"
        )
    console.print(table)
    best = max((row["return_mean"] for row in rows), default=float("nan"))
    if not rows:
        console.print("no game has ended yet: too few steps to say anything")
    elif best - rows[0]["return_mean"] >= RISE:
        console.print(
            f"It is learning: from {rows[0]['return_mean']:.1f} to {best:.1f}. "
            f"The whole road: ncp-agents train {options.policy}"
        )
    else:
        console.print(
            f"Not yet: {best:.1f} is no better than chance. It takes about 200,000 steps to see "
            f"the curve rise; the whole road: ncp-agents train {options.policy}"
        )
    console.print(f"look at: {video}, {folder / 'curve.png'}", soft_wrap=True)


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(2)
