"""Pong from nothing: steps and wall-clock time until the mean return of training reaches 18.

    python scripts/benchmarks/pong_from_nothing.py --seeds 1 2 3 --variants wired dense

Trains the recipe of `policies/pong-cfc` once for each variant and seed, one after another, in
`runs/pong-from-nothing/<variant>-seed<seed>` (a run that is there is resumed or just read), and
prints a table and draws `pong_from_nothing.png`. The mean return is that of the last 20 training
games, unclipped; the time is the whole process's from the first step on, checkpoints included.

Variants, alike but for what their name says:

    wired           the recipe: AutoNCP(64, 16), three chained layers, init "balanced"
    wired-xavier    the same wiring with ncps's initialisation
    dense           64 neurons that all read each other; the actor reads all of them
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ncp_agents.errors import UserError
from ncp_agents.files import replacing
from ncp_agents.names import look_up
from ncp_agents.recipe import Circuit, Recipe, read_recipe
from ncp_agents.run_folder import RunFolder, read_progress
from ncp_agents.saved_policy import find
from ncp_agents.training import train, use_threads

GOAL = 18.0  # mean return of training; 21 is the most there is


def variant(recipe: Recipe, name: str) -> Recipe:
    circuit: Circuit = look_up(
        "variant",
        name,
        {
            "wired": recipe.circuit,
            "wired-xavier": replace(recipe.circuit, init="xavier"),
            "dense": replace(recipe.circuit, wiring="dense"),
        },
    )
    return replace(recipe, name=name, circuit=circuit)


@dataclass(frozen=True)
class Options:
    """Pong from nothing: how soon does the mean return of training reach 18?"""

    seeds: tuple[int, ...] = (1, 2, 3)
    variants: tuple[str, ...] = ("wired", "dense")  # wired, wired-xavier, dense
    steps: int | None = None  # instead of the recipe's
    policy: str = "pong-cfc"  # whose recipe
    runs: Path = Path("runs/pong-from-nothing")  # where the runs are kept
    picture: Path = Path("runs/pong-from-nothing/pong_from_nothing.png")
    threads: int = 1  # of torch; 0 takes one a core


def main() -> None:
    options = tyro.cli(Options)
    use_threads(options.threads)
    base = read_recipe(find(options.policy) / "recipe.toml")
    base = replace(
        base,
        steps=options.steps or base.steps,
        schedule=replace(base.schedule, eval_every=0),
    )
    table = Table("variant", "seed", "steps to 18", "minutes to 18", "steps/s", "last return")
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for color, name in zip(("tab:blue", "tab:orange", "tab:green"), options.variants, strict=False):
        reached = []
        for seed in options.seeds:
            path = options.runs / f"{name}-seed{seed}"
            exists = (path / "recipe.toml").is_file()
            recipe = replace(variant(base, name), seed=seed)
            run = RunFolder.open(path) if exists else RunFolder.create(path, recipe)
            if run.recipe != recipe:
                raise UserError(f"{path} was trained with another recipe; move it away")
            rows = read_progress(run.progress)
            if not rows or rows[-1]["steps"] < recipe.steps:
                if train(run, resume=exists).stopped_by is not None:
                    raise KeyboardInterrupt
                rows = read_progress(run.progress)
            rows = [row for row in rows if "return_mean" in row]
            first = next((row for row in rows if row["return_mean"] >= GOAL), None)
            if first is not None:
                reached.append((first["steps"], first["seconds"] / 60))
            table.add_row(
                name,
                str(seed),
                f"{first['steps']:,.0f}" if first else "not reached",
                f"{first['seconds'] / 60:.1f}" if first else "–",
                f"{rows[-1]['steps'] / rows[-1]['seconds']:,.0f}",
                f"{rows[-1]['return_mean']:.1f}",
            )
            axes.plot(
                [row["steps"] / 1e6 for row in rows],
                [row["return_mean"] for row in rows],
                color=color,
                alpha=0.8,
                label=name if seed == options.seeds[0] else None,
            )
        if len(reached) == len(options.seeds) > 1:
            steps, minutes = np.mean(reached, axis=0)
            steps_std, minutes_std = np.std(reached, axis=0, ddof=1)
            table.add_row(
                name,
                "mean ± std",
                f"{steps:,.0f} ± {steps_std:,.0f}",
                f"{minutes:.1f} ± {minutes_std:.1f}",
                "",
                "",
                end_section=True,
            )
    axes.axhline(GOAL, color="grey", linestyle=":")
    axes.set_xlabel("steps (millions)")
    axes.set_ylabel("mean return of the last 20 games")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(options.picture) as temporary:
        figure.savefig(temporary, format="png")
    Console().print(table)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        print(f"pong_from_nothing: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
