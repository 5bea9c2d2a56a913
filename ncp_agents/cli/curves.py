"""Curves of run folders; training and cloning receive the first two as callbacks."""

from __future__ import annotations

import csv
from pathlib import Path

from ncp_agents.agents.saved_policy import CLONING
from ncp_agents.errors import UserError
from ncp_agents.rendering.cloning_curve import draw_cloning_curve
from ncp_agents.rendering.learning_curve import Run, draw_curve
from ncp_agents.training.progress import read_progress
from ncp_agents.training.run_folder import RunFolder


def draw_training(run: RunFolder) -> None:
    """Draw a training run's curve.png from its progress.csv."""
    draw_curve(read_progress(run.progress), run.curve, run.recipe)


def draw_cloning(run: RunFolder) -> None:
    """Draw a cloning run's curve.png from its cloning.csv."""
    if rows := read_cloning(run.path / CLONING):
        draw_cloning_curve(rows, run.curve, run.recipe.name)


def run_to_draw(run: RunFolder) -> Run:
    """Return a training run for `draw_curves`."""
    return Run(run.path.name, run.recipe, read_progress(run.progress))


def read_cloning(path: Path) -> list[dict[str, float]]:
    """Return the rows of a cloning.csv, one an epoch; empty cells are left out.

    No file: no rows.

    Raises:
        UserError: a damaged file.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {name: float(cell) for name, cell in row.items() if cell}
                for row in csv.DictReader(file)
            ]
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged: {error}") from None
