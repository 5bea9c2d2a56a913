"""What moves the score: a recipe in short trainings, each with one setting changed.

    python scripts/benchmarks/tuning.py                                # 6.5 million steps
    python scripts/benchmarks/tuning.py --policy pong-cfc --variants recipe rate-5e-4 dense

Trains each variant of the recipe for the same number of steps, the learning rate annealed over
them, in run folders: a run that is there is resumed, or just read if it is done. The return is the
mean of training episodes, unclipped, in the last tenth of the steps; an evaluation at the end plays
whole episodes with sampled actions. KL divergence of an update: median of all. What came out is in
`docs/tuning.md`.

Variants, alike but for what their name says:

    recipe           as it is
    rate-1e-3        learning rates
    rate-5e-4
    rate-2.5e-4
    no-limit         updates continue, however far they move the policy
    epochs-2         passes over a rollout; the recipes have 4
    compact          the encoder with two convolutions, and 64 features
    deep             the encoder with a third convolution, and 112 features
    nature           the encoder of Mnih et al. 2015, features as many
    critic-circuit   the critic reads the neurons alone, not the encoder's features beside them
    wired            AutoNCP(64, 16): half of the synapses, the actor reads the motor neurons
    dense            64 fully connected neurons, and the actor reads all of them
    neurons-32       half of the neurons, 8 of them motor neurons
    ltc              LTC neurons
    mixed-memory     with an LSTM's memory beside the neurons
    v5               sticky actions, lost lives not reported
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median

import tyro
from _command import run
from pong_from_scratch import trained
from rich.console import Console
from rich.table import Table

from ncp_agents import registry
from ncp_agents.agents.recipe import Recipe, read_recipe
from ncp_agents.agents.zoo import find
from ncp_agents.evaluation.formatting import number
from ncp_agents.torch.threads import use_threads

CHANGES: dict[str, dict[str, dict[str, object]]] = {
    "recipe": {},
    "rate-1e-3": {"ppo": {"learning_rate": 1e-3}},
    "rate-5e-4": {"ppo": {"learning_rate": 5e-4}},
    "rate-2.5e-4": {"ppo": {"learning_rate": 2.5e-4}},
    "no-limit": {"ppo": {"target_kl": 0.0}},
    "epochs-2": {"ppo": {"n_epochs": 2}},
    "compact": {"policy": {"encoder": "compact", "features": 64}},
    "deep": {"policy": {"encoder": "deep", "features": 112}},
    "nature": {"policy": {"encoder": "nature"}},
    "critic-circuit": {"policy": {"critic": "circuit"}},
    "wired": {"circuit": {"wiring": "AutoNCP"}},
    "dense": {"circuit": {"wiring": "dense"}},
    "neurons-32": {"circuit": {"units": 32, "motor_neurons": 8}},
    "ltc": {"circuit": {"cell": "ltc"}},
    "mixed-memory": {"circuit": {"mixed_memory": True}},
    "v5": {"environment": {"protocol": "v5"}},
}
"""By variant, what it sets in the sections of a recipe."""


@dataclass(frozen=True)
class Options:
    """What moves the score? Short trainings, each with one setting changed."""

    policy: str = "breakout-cfc"  # whose recipe
    variants: tuple[str, ...] = tuple(CHANGES)
    steps: int = 500_000
    seed: int = 1
    runs: Path = Path("runs")  # the folder of the run folders
    threads: int = 0  # of torch while it learns; 0 takes one a core


def variant(recipe: Recipe, name: str) -> Recipe:
    """The recipe, changed, under a name that says so."""
    changes = registry.get("variant", name, CHANGES)
    sections = {key: replace(getattr(recipe, key), **own) for key, own in changes.items()}
    return replace(recipe, name=f"{recipe.name}-tuning-{name}", **sections)


def main() -> None:
    options = tyro.cli(Options)
    use_threads(options.threads)
    base = read_recipe(find(options.policy) / "recipe.toml")
    schedule = replace(base.schedule, eval_every=options.steps)
    base = replace(base, steps=options.steps, seed=options.seed, start="", schedule=schedule)
    table = Table("variant", "return in training", "evaluation", "KL of an update", "steps/s")
    for name in options.variants:
        recipe = variant(base, name)
        if name != "recipe" and recipe == replace(base, name=recipe.name):
            continue  # what it sets is the recipe's own
        rows = trained(recipe, options.runs)
        last = [row for row in rows if row["steps"] > 0.9 * options.steps]
        returns = [row["return_mean"] for row in last if "return_mean" in row]
        evaluations = [row["eval_return"] for row in rows if "eval_return" in row]
        divergences = [row["kl"] for row in rows if "kl" in row]
        table.add_row(
            name,
            number(fmean(returns)) if returns else "–",
            number(evaluations[-1]) if evaluations else "–",
            f"{median(divergences):.3f}" if divergences else "–",
            f"{rows[-1]['steps'] / rows[-1]['seconds']:,.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    run(main)
