"""Pong from scratch: steps and wall-clock time until the mean return of training reaches 18.

    python scripts/benchmarks/pong_from_scratch.py --seeds 1 2 3 --variants wired dense

Trains the recipe of `policies/pong-cfc` once for each variant and seed, one after another, in the
run folders that `ncp-agents train` uses (a run that is there is resumed, or just read if it is
done), prints a table and draws `runs/pong_from_scratch.png`. The mean return is that of the last 20
training episodes, unclipped; the time counts from the first step on, evaluations and checkpoints
included.

Variants, alike but for what their name says:

    wired           the recipe: AutoNCP(64, 16), three chained layers, init "balanced"
    wired-xavier    the same wiring with ncps's initialisation
    dense           64 fully connected neurons; the actor reads all of them
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from _command import run
from rich.console import Console
from rich.table import Table

from ncp_agents import registry
from ncp_agents.agents.recipe import Circuit, Recipe, read_recipe
from ncp_agents.agents.zoo import find
from ncp_agents.cli.curves import run_to_draw
from ncp_agents.errors import UserError
from ncp_agents.rendering.learning_curve import draw_curves
from ncp_agents.torch.threads import use_threads
from ncp_agents.training.interrupts import InterruptHandler
from ncp_agents.training.progress import read_progress
from ncp_agents.training.run_folder import RunFolder, default_run_folder
from ncp_agents.training.train import train

WINDOW = 20  # episodes in the mean return of training, as in the recipe
GOAL = 18.0  # mean return of training; 21 is the most there is


def variant(recipe: Recipe, name: str) -> Recipe:
    circuit: Circuit = registry.get(
        "variant",
        name,
        {
            "wired": recipe.circuit,
            "wired-xavier": replace(recipe.circuit, init="xavier"),
            "dense": replace(recipe.circuit, wiring="dense"),
        },
    )
    suffix = "" if name == "wired" else f"-{name}"
    return replace(recipe, name=recipe.name + suffix, circuit=circuit)


@dataclass(frozen=True)
class Options:
    """Pong from scratch: how soon does the mean return of training reach 18?"""

    seeds: tuple[int, ...] = (1, 2, 3)
    variants: tuple[str, ...] = ("wired", "dense")  # wired, wired-xavier, dense
    steps: int | None = None  # instead of the recipe's; runs that are done are just read
    policy: str = "pong-cfc"  # whose recipe
    picture: Path = Path("runs/pong_from_scratch.png")
    threads: int = 0  # of torch while it learns; 0 takes one a core


def trained(recipe: Recipe, runs: Path = Path("runs")) -> list[Mapping[str, float]]:
    """The rows of progress of a run in `runs` that is done now."""
    path = default_run_folder(recipe, runs)
    exists = (path / "recipe.toml").is_file()
    run = RunFolder.open(path) if exists else RunFolder.create(path, recipe)
    if run.recipe != recipe:
        raise UserError(f"{path} was trained with another recipe; move it away")
    rows = read_progress(run.progress)
    if not rows or rows[-1]["steps"] < recipe.steps:
        with InterruptHandler() as interrupts:
            train(run, resume=exists, should_stop=interrupts.should_stop)
        if interrupts.received is not None:
            raise KeyboardInterrupt
        rows = read_progress(run.progress)
    return rows


def reached(rows: list[Mapping[str, float]]) -> tuple[float, float] | None:
    """Steps and minutes at the first mean return of GOAL."""
    for row in settled(rows):
        if row["return_mean"] >= GOAL:
            return row["steps"], row["seconds"] / 60
    return None


def settled(rows: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """The rows whose mean return is of a whole window: the first episodes to end are short."""
    return [row for row in rows if row.get("episodes", 0) >= WINDOW and "return_mean" in row]


def summary(goals: list[tuple[float, float]]) -> tuple[str, str]:
    (steps, minutes), (steps_std, minutes_std) = np.mean(goals, 0), np.std(goals, 0, ddof=1)
    return f"{steps:,.0f} ± {steps_std:,.0f}", f"{minutes:.1f} ± {minutes_std:.1f}"


def main() -> None:
    options = tyro.cli(Options)
    use_threads(options.threads)
    base = read_recipe(find(options.policy) / "recipe.toml")
    base = replace(base, steps=options.steps or base.steps)
    table = Table("variant", "seed", "steps to 18", "minutes to 18", "steps/s", "last return")
    runs = []
    for name in options.variants:
        goals = []
        for seed in options.seeds:
            recipe = replace(variant(base, name), seed=seed)
            rows = trained(recipe)
            runs.append(RunFolder.open(default_run_folder(recipe)))
            goal = reached(rows)
            goals += [goal] if goal else []
            returns = [row["return_mean"] for row in rows if "return_mean" in row]
            table.add_row(
                name,
                str(seed),
                f"{goal[0]:,.0f}" if goal else "not reached",
                f"{goal[1]:.1f}" if goal else "–",
                f"{rows[-1]['steps'] / rows[-1]['seconds']:,.0f}",
                f"{returns[-1]:.1f}" if returns else "–",
            )
        if len(goals) == len(options.seeds) > 1:
            table.add_row(name, "mean ± std", *summary(goals), "", "", end_section=True)
    draw_curves([*map(run_to_draw, runs)], options.picture)
    Console().print(table)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    run(main)
