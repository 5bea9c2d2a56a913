"""The circuit's worth: the same recipe with torch's LSTM, and without memory, in its place.

    python scripts/benchmarks/lstm.py                                   # days on 2 cores
    python scripts/benchmarks/lstm.py --games pong --seeds 1            # 2 hours
    python scripts/benchmarks/lstm.py --games breakout --steps 2000000
    python scripts/benchmarks/lstm.py --runs lstm-runs                  # apart from other runs

Trains the recipe of `policies/pong-cfc` and of `policies/breakout-cfc`, for each seed, in the run
folders that `ncp-agents train` uses: a run that is there is resumed, or just read if it is done.
Kinds, alike but for what stands between encoder and heads:

    circuit         the recipe: CfC neurons, on AutoNCP in Pong, fully connected in Breakout
    mixed-memory    the circuit behind a memory cell, an LSTM's step; fewer features make up for it
    lstm-neurons    an LSTM of as many neurons, all of which the actor reads
    lstm-size       an LSTM of as many parameters as the circuit, as nearly as whole neurons allow
    feed-forward    the state is cleared before every step: no memory

The table gives the mean return of training episodes over all steps, which tells how soon a kind
learns, of the last ones, and of the last evaluation, for each seed and for all with their 95 %
interval (Student's t); the picture, a row for each game, the mean return over steps with that
interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

import numpy as np
import tyro
from _command import run
from pong_from_scratch import settled, trained
from rich.console import Console
from rich.table import Table

from ncp_agents import registry
from ncp_agents.agents.recipe import Circuit, Recipe, read_recipe
from ncp_agents.agents.saved_policy import build
from ncp_agents.agents.zoo import find
from ncp_agents.cli.curves import run_to_draw
from ncp_agents.evaluation.formatting import number
from ncp_agents.evaluation.statistics import interval_of_seeds
from ncp_agents.rendering.learning_curve import draw_curves
from ncp_agents.torch.threads import use_threads
from ncp_agents.training.run_folder import RunFolder, default_run_folder

KINDS = ("circuit", "mixed-memory", "lstm-neurons", "lstm-size", "feed-forward")


@dataclass(frozen=True)
class Options:
    """How does a circuit compare with an LSTM in the same policy?"""

    games: tuple[str, ...] = ("pong", "breakout")  # whose <game>-cfc recipe is taken
    kinds: tuple[str, ...] = KINDS  # what stands between encoder and heads
    seeds: tuple[int, ...] = (1, 2, 3)
    steps: int | None = None  # instead of the recipe's; runs that are done are just read
    picture: Path = Path("runs/lstm.png")
    runs: Path = Path("runs")  # the folder of the run folders
    threads: int = 0  # of torch while it learns; 0 takes one a core


def kind(recipe: Recipe, name: str) -> Recipe:
    """The recipe with another circuit, under a name that says so."""
    registry.get("kind", name, KINDS)
    if name == "circuit":
        return recipe
    changed = replace(recipe, name=f"{recipe.name}-{name}")
    if name == "mixed-memory":
        return with_memory(changed, parameters(recipe))
    if name == "feed-forward":
        return replace(changed, policy=replace(recipe.policy, memory=False))
    neurons = recipe.circuit.units if name == "lstm-neurons" else as_large(recipe)
    return replace(changed, circuit=Circuit(cell="lstm", wiring="dense", units=neurons))


def with_memory(recipe: Recipe, size: int) -> Recipe:
    """The recipe with mixed memory, and as many features as `size` parameters allow."""
    mixed = replace(recipe, circuit=replace(recipe.circuit, mixed_memory=True))
    sizes = range(recipe.policy.features, 0, -1)
    smaller = (replace(mixed, policy=replace(recipe.policy, features=n)) for n in sizes)
    return next(each for each in smaller if parameters(each) <= size)


def as_large(recipe: Recipe) -> int:
    """The neurons of the LSTM whose parameters come nearest to those of the recipe's circuit."""
    size, inputs = parameters(recipe, of_circuit=True), recipe.policy.features
    return min(range(1, 1024), key=lambda n: abs(4 * n * (inputs + n + 2) - size))


def parameters(recipe: Recipe, of_circuit: bool = False) -> int:
    network = build(recipe)
    return sum(p.numel() for p in (network.circuit if of_circuit else network).parameters())


def returns(rows: Sequence[Mapping[str, float]]) -> tuple[float, float, float]:
    """Of a run's progress: the mean return over all steps, the last one, the last evaluation's."""
    training = settled(rows)
    steps = [row["steps"] for row in training]
    means = [row["return_mean"] for row in training]
    whole = np.trapezoid(means, steps) / (steps[-1] - steps[0]) if len(steps) > 1 else nan
    evaluations = [row["eval_return"] for row in rows if "eval_return" in row]
    return float(whole), means[-1] if means else nan, evaluations[-1] if evaluations else nan


def main() -> None:
    options = tyro.cli(Options)
    use_threads(options.threads)
    table = Table("policy", "neurons", "parameters", "seed", "all steps", "last", "evaluation")
    runs = []
    for game in options.games:
        base = read_recipe(find(f"{game}-cfc") / "recipe.toml")
        base = replace(base, steps=options.steps or base.steps)
        for name in options.kinds:
            recipe = kind(base, name)
            about = (recipe.name, str(recipe.circuit.units), f"{parameters(recipe):,}")
            seeds = []
            for seed in options.seeds:
                seeded = replace(recipe, seed=seed)
                seeds.append(returns(trained(seeded, options.runs)))
                runs.append(RunFolder.open(default_run_folder(seeded, options.runs)))
                table.add_row(*about, str(seed), *map(number, seeds[-1]))
            if len(seeds) > 1:
                spans = zip(np.mean(seeds, 0), *interval_of_seeds(np.array(seeds)), strict=True)
                cells = [f"{mean:.1f} ({low:.1f} … {high:.1f})" for mean, low, high in spans]
                table.add_row(*about, "all", *cells, end_section=True)
    draw_curves([*map(run_to_draw, runs)], options.picture, by=("steps",))
    Console(width=120).print(table)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    run(main)
