"""Curves of run folders; training and cloning receive the first two as callbacks."""

from __future__ import annotations

from dataclasses import asdict

from ncp_agents.imitation.cloning_csv import read_epochs
from ncp_agents.rendering.cloning_curve import draw_cloning_curve
from ncp_agents.rendering.learning_curve import Run, draw_curve
from ncp_agents.training.progress import read_progress
from ncp_agents.training.run_folder import RunFolder


def draw_training(run: RunFolder) -> None:
    """Draw a training run's curve.png from its progress.csv."""
    draw_curve(read_progress(run.progress), run.curve, run.recipe)


def draw_cloning(run: RunFolder) -> None:
    """Draw a cloning run's curve.png from its cloning.csv."""
    rows = [
        {name: value for name, value in asdict(epoch).items() if value is not None}
        for epoch in read_epochs(run.cloning)
    ]
    if rows:
        draw_cloning_curve(rows, run.curve, run.recipe.name)


def run_to_draw(run: RunFolder) -> Run:
    """Return a training run for `draw_curves`."""
    return Run(run.path.name, run.recipe, read_progress(run.progress))
