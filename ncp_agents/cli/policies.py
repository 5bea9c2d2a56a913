"""`ncp-agents policies`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ncp_agents.agents.recipe import RECIPE, Recipe, read_recipe
from ncp_agents.agents.zoo import zoo
from ncp_agents.cli.console import Terminal
from ncp_agents.cli.parsing import parse
from ncp_agents.envs.games import RECURRENT_PPO_SCORES
from ncp_agents.errors import UserError

if TYPE_CHECKING:
    from ncp_agents.evaluation.scores import Scores


@dataclass(frozen=True)
class Policies:
    """List the saved policies that have a name: those of the package, and those in ./policies."""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    parse(Policies, arguments, "policies")
    Terminal().print(policies_table())
    return 0


def policies_table() -> Group:
    """Return a table of the saved policies and one of their scores.

    A policy with an unreadable recipe, progress or scores is listed with the error.
    """
    from ncp_agents.cli.tables import comparison_table

    about = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    about.add_column("policy", overflow="fold")
    about.add_column("game", no_wrap=True)
    for column in ("neurons", "params", "steps", "hours", "v4", "LSTM"):
        about.add_column(column, justify="right", no_wrap=True)
    rows, broken = [], []
    for name, folder in sorted(zoo().items()):
        try:
            recipe, scores = read_recipe(folder / RECIPE), _unperturbed(folder)
            about.add_row(name, *_cells(recipe, folder, scores.get("v4")))
        except (UserError, OSError) as error:
            broken.append(Text(f"{folder}: {error}"))
            continue
        rows += [(name, each) for each in scores.values()]
    about.caption = (
        "steps, hours: including those of the policies that training continued from; v4: mean "
        "return of sampled actions; LSTM: v4 of recurrent PPO on single frames, 10M steps, as "
        "published; – and ≥ where something is not known"
    )
    return Group(about, comparison_table(rows), *broken)


def _unperturbed(folder: Path) -> dict[str, Scores]:
    from ncp_agents.evaluation.scores import scores_of

    return {key: each for key, each in scores_of(folder).items() if each.perturbation is None}


def _cells(recipe: Recipe, folder: Path, scores: Scores | None) -> list[str]:
    from ncp_agents.agents.saved_policy import WEIGHTS, build
    from ncp_agents.evaluation.formatting import number

    game = recipe.environment.game
    steps = "none"
    hours, lineage_known = None, True
    if (folder / WEIGHTS).exists():
        total, hours, lineage_known = _training(recipe, folder)
        steps = ("" if lineage_known else "≥ ") + (f"{total / 1e6:.3g}M" if total else "cloned")
    published = RECURRENT_PPO_SCORES.get(game)
    return [
        game,
        f"{recipe.circuit.units} {recipe.circuit.cell}",
        f"{sum(p.numel() for p in build(recipe).parameters()):,}",
        steps,
        f"{hours:.1f}" if hours else "–",
        number(scores.mean) if scores else "–",
        _with_std(*published) if published else "–",
    ]


def _training(recipe: Recipe, folder: Path) -> tuple[int, float | None, bool]:
    """Return steps of PPO, hours, and whether all policies that training continued from exist.

    Steps and hours include those of these policies; hours are None where one is unknown.
    """
    from ncp_agents.agents.saved_policy import CLONING, PROGRESS
    from ncp_agents.imitation.cloning_csv import read_epochs
    from ncp_agents.training.progress import read_progress

    known, visited, steps, hours = zoo(), set[Path](), 0, []
    while True:
        visited.add(folder.resolve())
        if (folder / CLONING).exists():
            seconds = [epoch.seconds for epoch in read_epochs(folder / CLONING)]
        else:
            seconds = [row["seconds"] for row in read_progress(folder / PROGRESS)]
            steps += recipe.steps
        hours.append(seconds[-1] / 3600 if seconds else None)
        start = known.get(recipe.start, Path(recipe.start))
        # A policy may have been trained again, from one that had continued from it.
        if not recipe.start or start.resolve() in visited:
            return steps, None if None in hours else sum(hours), True
        if not (start / RECIPE).is_file():
            return steps, None, False
        recipe, folder = read_recipe(start / RECIPE), start


def _with_std(mean: float, std: float) -> str:
    digits = 1 if mean < 100 else 0
    return f"{mean:.{digits}f} ± {std:.{digits}f}"
