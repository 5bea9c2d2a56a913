"""A first look, in under 5 minutes: a saved policy plays, then a fresh one begins to learn.

    python scripts/demo.py [--out demo] [--steps 250000]

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

RISE = 1.0  # points of return that count as learning; means of 20 random games vary by 0.3


@dataclass(frozen=True)
class Demo:
    """A first look: a saved policy plays Pong, then a fresh one begins to learn it."""

    out: Path = Path("demo")  # folder for the video and the run; an earlier run there is replaced
    policy: str = "pong-cfc"  # whose game and recipe
    episodes: int = 4  # whole games to score
    steps: int = 250_000  # of the fresh agent's training; about three minutes


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
    # Means of fewer games than the window holds say little.
    settled = [row["return_mean"] for row in rows if row["games"] >= recipe.schedule.window]
    if not settled:
        console.print("too few steps to say anything: hardly a game has ended yet")
    elif settled[-1] - settled[0] >= RISE:
        console.print(
            f"It is learning: from {settled[0]:.1f} to {settled[-1]:.1f}. "
            f"The whole road: ncp-agents train {options.policy}"
        )
    else:
        console.print(
            f"Not yet: it went from {settled[0]:.1f} to {settled[-1]:.1f}. Most seeds need 150,000 "
            f"to 300,000 steps to rise; the whole road: ncp-agents train {options.policy}"
        )
    console.print(f"look at: {video}, {folder / 'curve.png'}", soft_wrap=True)


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(2)
