"""The circuit's worth: the same recipe with torch's LSTM, and without memory, in its place.

    python scripts/benchmarks/lstm.py                                   # days on 2 cores
    python scripts/benchmarks/lstm.py --games pong --seeds 1            # 2 hours
    python scripts/benchmarks/lstm.py --games breakout --steps 2000000
    python scripts/benchmarks/lstm.py --runs lstm-runs                  # apart from other runs

Trains the recipe of `policies/pong-cfc` and of `policies/breakout-cfc`, for each seed, in the run
folders that `ncp-agents train` uses: a run that is there is resumed, or just read if it is done.
Kinds, alike but for what stands between encoder and heads:

    circuit         the recipe: CfC neurons, on AutoNCP in Pong, all reading each other in Breakout
    lstm-neurons    an LSTM of as many neurons, all of which the actor reads
    lstm-size       an LSTM of as many parameters as the circuit, as nearly as whole neurons allow
    feed-forward    the circuit forgets before every step, so nothing remembers

The table gives what the last games of training and the last evaluation came to; the picture, a row
for each game, the mean return of training over steps and minutes with 95 % intervals over seeds.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

import tyro
from pong_from_nothing import trained
from rich.console import Console
from rich.table import Table

from ncp_agents.errors import UserError
from ncp_agents.names import look_up
from ncp_agents.recipe import Circuit, Recipe, read_recipe
from ncp_agents.rendering.curve import draw_curves
from ncp_agents.run_folder import RunFolder
from ncp_agents.saved_policy import build, find
from ncp_agents.scores import number
from ncp_agents.torch.threads import use_threads
from ncp_agents.training import default_run

KINDS = ("circuit", "lstm-neurons", "lstm-size", "feed-forward")


@dataclass(frozen=True)
class Options:
    """How does a circuit compare with an LSTM in the same policy?"""

    games: tuple[str, ...] = ("pong", "breakout")  # whose <game>-cfc recipe is taken
    kinds: tuple[str, ...] = KINDS  # circuit, lstm-neurons, lstm-size, feed-forward
    seeds: tuple[int, ...] = (1, 2, 3)
    steps: int | None = None  # instead of the recipe's; runs that are done are just read
    picture: Path = Path("runs/lstm.png")
    runs: Path = Path("runs")  # the folder of the run folders
    threads: int = 0  # of torch while it learns; 0 takes one a core


def kind(recipe: Recipe, name: str) -> Recipe:
    """The recipe with another circuit, under a name that says so."""
    look_up("kind", name, KINDS)
    if name == "circuit":
        return recipe
    changed = replace(recipe, name=f"{recipe.name}-{name}")
    if name == "feed-forward":
        return replace(changed, policy=replace(recipe.policy, memory=False))
    neurons = recipe.circuit.units if name == "lstm-neurons" else as_large(recipe)
    return replace(changed, circuit=Circuit(cell="lstm", wiring="dense", units=neurons))


def as_large(recipe: Recipe) -> int:
    """The neurons of the LSTM whose parameters come nearest to those of the recipe's circuit."""
    size, inputs = parameters(recipe, of_circuit=True), recipe.policy.features
    return min(range(1, 1024), key=lambda n: abs(4 * n * (inputs + n + 2) - size))


def parameters(recipe: Recipe, of_circuit: bool = False) -> int:
    network = build(recipe)
    return sum(p.numel() for p in (network.circuit if of_circuit else network).parameters())


def main() -> None:
    options = tyro.cli(Options)
    use_threads(options.threads)
    table = Table("policy", "neurons", "parameters", "seed", "steps", "training", "evaluation")
    runs = []
    for game in options.games:
        base = read_recipe(find(f"{game}-cfc") / "recipe.toml")
        base = replace(base, steps=options.steps or base.steps)
        for name in options.kinds:
            for seed in options.seeds:
                recipe = replace(kind(base, name), seed=seed)
                rows = trained(recipe, options.runs)
                runs.append(RunFolder.open(default_run(recipe, options.runs)))
                last = {key: value for row in rows for key, value in row.items()}
                table.add_row(
                    recipe.name,
                    str(recipe.circuit.units),
                    f"{parameters(recipe):,}",
                    str(seed),
                    f"{last['steps']:,.0f}",
                    *(number(last.get(key, nan)) for key in ("return_mean", "eval_return")),
                )
            table.add_section()
    draw_curves(runs, options.picture)
    Console().print(table)
    print(f"picture: {options.picture}")


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        print(f"lstm: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
