"""The saved policies that come with the package, as tables."""

from __future__ import annotations

import csv
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ncp_agents.agents.recipe import Recipe, read_recipe
from ncp_agents.agents.saved_policy import CLONING, PROGRESS, RECIPE, WEIGHTS, build
from ncp_agents.agents.zoo import zoo
from ncp_agents.cli.tables import comparison
from ncp_agents.envs.games import RECURRENT_PPO_SCORES
from ncp_agents.errors import UserError
from ncp_agents.evaluation.formatting import number
from ncp_agents.evaluation.scores import Scores, scores_of
from ncp_agents.training.progress import read_progress


def policies_table() -> Group:
    """The saved policies that `ncp-agents` knows by name: how each came about, beside what an LSTM
    reaches, and all its scores.

    One whose recipe, progress or scores cannot be read is listed with what is wrong.
    """
    about = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    about.add_column("policy", overflow="fold")
    about.add_column("game", no_wrap=True)
    for column in ("neurons", "params", "steps", "hours", "v4", "LSTM"):
        about.add_column(column, justify="right", no_wrap=True)
    rows, broken = [], []
    for name, folder in sorted(zoo().items()):
        try:
            recipe, scores = read_recipe(folder / RECIPE), _unperturbed(folder)
            about.add_row(name, *_about(recipe, folder, scores.get("v4")))
        except UserError as error:
            broken.append(Text(f"{folder}: {error}"))
            continue
        rows += [(name, each) for each in scores.values()]
    about.caption = (
        "steps, hours: with those of the policies that it went on from; v4: mean return, actions "
        "drawn; LSTM: v4 of recurrent PPO that sees one frame, 10M steps, as published; – and ≥ "
        "where something is not known"
    )
    return Group(about, comparison(rows), *broken)


def _unperturbed(folder: Path) -> dict[str, Scores]:
    return {key: each for key, each in scores_of(folder).items() if each.perturbation is None}


def _about(recipe: Recipe, folder: Path, scores: Scores | None) -> list[str]:
    game = recipe.environment.game
    steps, hours, whole = _training(recipe, folder)
    published = RECURRENT_PPO_SCORES.get(game)
    trained = (folder / WEIGHTS).exists()
    return [
        game,
        f"{recipe.circuit.units} {recipe.circuit.cell}",
        f"{sum(p.numel() for p in build(recipe).parameters()):,}",
        ("" if whole else "≥ ") + (f"{steps / 1e6:.3g}M" if steps else "cloned")
        if trained
        else "none",
        f"{hours:.1f}" if hours else "–",
        number(scores.mean) if scores else "–",
        _with_spread(*published) if published else "–",
    ]


def _training(recipe: Recipe, folder: Path) -> tuple[int, float | None, bool]:
    """Steps of PPO and hours, with those of the policies that it went on from, and whether all of
    these are still there; None hours where one of them is not, or kept no progress.
    """
    known, seen, steps, hours = zoo(), set[Path](), 0, []
    while True:
        seen.add(folder.resolve())
        rows = read_progress(folder / PROGRESS)
        if (folder / CLONING).exists():
            hours.append(_seconds_of_cloning(folder / CLONING) / 3600)
        else:
            steps += recipe.steps
            hours.append(rows[-1]["seconds"] / 3600 if rows else None)
        before = known.get(recipe.start, Path(recipe.start))
        # Each is taken once: a policy may have been trained anew, from one that went on from it.
        if not recipe.start or before.resolve() in seen:
            return steps, None if None in hours else sum(hours), True
        if not (before / RECIPE).is_file():
            return steps, None, False
        recipe, folder = read_recipe(before / RECIPE), before


def _seconds_of_cloning(path: Path) -> float:
    try:
        with path.open(newline="") as file:
            return float([*csv.DictReader(file)][-1]["seconds"])
    except (LookupError, TypeError, ValueError):
        raise UserError(f"{path} is damaged: its last row does not tell the seconds") from None


def _with_spread(mean: float, std: float) -> str:
    digits = 1 if mean < 100 else 0
    return f"{mean:.{digits}f} ± {std:.{digits}f}"
