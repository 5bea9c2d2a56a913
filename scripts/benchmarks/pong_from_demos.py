"""Pong from demos: what a clone of 20 episodes reaches, and what PPO makes of it.

    python scripts/benchmarks/pong_from_demos.py              # everything, 1.5 hours on 2 cores
    python scripts/benchmarks/pong_from_demos.py --seeds 1    # half an hour

Records 20 episodes of `policies/pong-cfc` and, for each seed,

- clone: clones a fresh network from them;
- dagger: the clone, and 3 rounds of DAgger with the policy as its teacher;
- forgetful: clones the same network, but for its memory, from the same episodes: the state is
  cleared before every step, so that it is a feed-forward network of one frame;
- continued: continues the clone's training with PPO, by the recipe of `policies/pong-cfc`.

A table says what each reaches in 30 whole episodes of protocol v4, with sampled actions and with
greedy ones, and by how many points its validation accuracy fell at most in one epoch, once above
80 %. The picture shows the mean return of training (the last 20 episodes) of the continued
runs beside that of runs from scratch, which `pong_from_scratch.py` leaves in `runs/` and which are
trained here where they are missing.

Everything is kept in run folders: what is there is resumed, or just read if it is done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import nan
from pathlib import Path

import numpy as np
import tyro
from _command import run
from matplotlib.figure import Figure
from pong_from_scratch import GOAL, reached, settled, trained
from rich.console import Console
from rich.table import Table

from ncp_agents.agents.recipe import Recipe
from ncp_agents.agents.saved_policy import SavedPolicy, load
from ncp_agents.agents.zoo import find
from ncp_agents.datasets.demonstrations import DATASET, Demonstrations
from ncp_agents.errors import UserError
from ncp_agents.evaluation.evaluate import evaluate
from ncp_agents.evaluation.formatting import number
from ncp_agents.evaluation.scores import SCORES, Scores, scores_of, write_scores
from ncp_agents.files import atomic_write
from ncp_agents.imitation.cloning import clone
from ncp_agents.imitation.cloning_csv import read_epochs
from ncp_agents.imitation.dagger import dagger
from ncp_agents.imitation.recording import open_or_create, provenance, record_with_bar
from ncp_agents.torch.threads import use_threads
from ncp_agents.training.run_folder import RunFolder

EARLY = 200_000  # steps of PPO in which its lowest mean return is taken
KINDS = ("clone", "dagger", "forgetful")


@dataclass(frozen=True)
class Options:
    """Pong from demos: clones, DAgger, a net without memory, and PPO from a clone."""

    seeds: tuple[int, ...] = (1, 2, 3)
    kinds: tuple[str, ...] = KINDS  # of cloning: clone, dagger, forgetful
    episodes: int = 20  # to record
    steps: int = 400_000  # of PPO from each clone; 0 = none
    policy: str = "pong-cfc"  # the teacher, and whose recipe
    folder: Path = Path("runs/pong_from_demos")
    threads: int = 0  # of torch while it learns; 0 takes one a core


def recorded(teacher: SavedPolicy, folder: Path, episodes: int) -> Demonstrations:
    there = (folder / DATASET).is_file()
    demos = open_or_create(folder, provenance(teacher, "v4", seed=0), resume=there)
    record_with_bar(teacher, demos, episodes, seed=0)
    return demos


def cloned(
    recipe: Recipe, demos: Demonstrations, path: Path, teacher: SavedPolicy | None
) -> RunFolder:
    """A cloning that is done now, with DAgger if there is a teacher."""
    there = (path / "recipe.toml").is_file()
    run = RunFolder.open(path) if there else RunFolder.create(path, recipe)
    if run.recipe != recipe:
        raise UserError(f"{path} is of another recipe; give another --folder")
    clone(run, [demos], resume=there)
    if teacher is not None:
        dagger(run, [demos], teacher, rounds=3)
    return run


def scored(folder: Path) -> tuple[Scores, Scores]:
    """30 episodes with sampled actions, and with greedy ones."""
    policy, known = load(folder), scores_of(folder)
    for deterministic in (False, True):
        if ("v4-deterministic" if deterministic else "v4") not in known:
            write_scores(folder / SCORES, evaluate(policy, deterministic=deterministic))
    known = scores_of(folder)
    return known["v4"], known["v4-deterministic"]


def minutes(run: RunFolder) -> float:
    return read_epochs(run.cloning)[-1].seconds / 60


def largest_fall(run: RunFolder) -> float:
    """The most by which the validation accuracy ever fell in one epoch from above 80 %."""
    accuracy = [epoch.val_accuracy for epoch in read_epochs(run.cloning)]
    return max([0.0, *(a - b for a, b in pairwise(accuracy) if a > 0.8)])


def main() -> None:
    options = tyro.cli(Options)
    use_threads(options.threads)
    teacher = load(find(options.policy))
    demos = recorded(teacher, options.folder / "demos", options.episodes)
    table = Table("what", "seed", "minutes", "sampled", "95 % interval", "greedy", "falls by")
    continued: list[list[Mapping[str, float]]] = []
    scratch: list[list[Mapping[str, float]]] = []
    levels = []
    for kind in options.kinds:
        for seed in options.seeds:
            recipe = replace(teacher.recipe, name=f"{teacher.name}-{kind}", seed=seed)
            if kind == "forgetful":
                recipe = replace(recipe, policy=replace(recipe.policy, memory=False))
            path = options.folder / f"{kind}-seed{seed}"
            run = cloned(recipe, demos, path, teacher if kind == "dagger" else None)
            sampled, greedy = scored(run.policy)
            low, high = sampled.intervals["mean"]
            table.add_row(
                kind,
                str(seed),
                f"{minutes(run):.1f}",
                f"{sampled.mean:.1f}",
                f"{low:.1f} … {high:.1f}",
                f"{greedy.mean:.1f}",
                f"{100 * largest_fall(run):.1f} points",
            )
            if kind == "clone":
                levels.append(sampled.mean)
        table.add_section()
    Console().print(table)
    if not options.steps or "clone" not in options.kinds:
        return

    table = Table("from", "seed", "steps to 18", f"lowest in {EARLY:,} steps", "clone")
    for seed, level in zip(options.seeds, levels, strict=True):
        recipe = replace(teacher.recipe, seed=seed)
        scratch.append(trained(recipe))
        start = str(options.folder / f"clone-seed{seed}" / "policy")
        recipe = replace(recipe, steps=options.steps, start=start)
        continued.append(trained(recipe))
        early = [r["return_mean"] for r in settled(continued[-1]) if r["steps"] <= EARLY]
        for name, rows in (("scratch", scratch[-1]), ("clone", continued[-1])):
            goal = reached(rows)
            table.add_row(
                name,
                str(seed),
                f"{goal[0]:,.0f}" if goal else "not reached",
                number(min(early, default=nan)) if name == "clone" else "",
                f"{level:.1f}" if name == "clone" else "",
            )
    Console().print(table)
    picture = options.folder / "curves.png"
    draw(scratch, continued, float(np.mean(levels)), picture)
    print(f"picture: {picture}")


def draw(
    scratch: list[list[Mapping[str, float]]],
    continued: list[list[Mapping[str, float]]],
    level: float,
    picture: Path,
) -> None:
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for name, color, runs in (
        ("PPO from scratch", "tab:gray", scratch),
        ("PPO from a clone of 20 episodes", "tab:blue", continued),
    ):
        for index, rows in enumerate(runs):
            curve = [(r["steps"] / 1e6, r["return_mean"]) for r in settled(rows)]
            label = name if index == 0 else None
            axes.plot(*zip(*curve, strict=True), color=color, alpha=0.8, label=label)
    axes.axhline(level, color="tab:blue", linestyle=":", label="the clones themselves, sampled")
    axes.axhline(GOAL, color="grey", linestyle=":")
    axes.set_xlabel("steps (millions)")
    axes.set_ylabel("mean return of the last 20 episodes")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(picture) as temporary:
        figure.savefig(temporary, format="png")


if __name__ == "__main__":
    run(main)
