"""Learning curves as pictures: of one run, and of several with their seeds together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncp_agents.agents.recipe import Recipe
from ncp_agents.envs.games import RANDOM_AND_HUMAN_SCORES
from ncp_agents.errors import UserError
from ncp_agents.evaluation.statistics import interval_of_seeds
from ncp_agents.rendering.figures import COLORS, calm, check_picture_path, save_figure
from ncp_agents.training.progress import read_progress
from ncp_agents.training.run_folder import RunFolder

Rows = Sequence[Mapping[str, float]]

POINTS = 400  # of a curve that several seeds share
MAX_STRETCH = 4.0  # of the curves' own range, to show a human's score beside them


def draw_curve(progress: Path, picture: Path, recipe: Recipe) -> None:
    """Draw the returns of `progress`, a progress.csv, into the PNG `picture`: the mean return of
    the last training games, the evaluations and, where one is known, a human's score.
    """
    rows = read_progress(progress)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    steps, returns = _curve(rows, "steps")
    if len(steps):
        label = f"training, mean of the last {recipe.schedule.window} games"
        axes.plot(steps, returns, color=COLORS[0], label=label)
    evaluations = [(r["steps"] / 1e6, r["eval_return"]) for r in rows if "eval_return" in r]
    if evaluations:
        label = f"evaluation, mean of {recipe.schedule.eval_episodes} games"
        axes.plot(*zip(*evaluations, strict=True), "o", color=COLORS[1], label=label)
    _finish(axes, "steps", recipe)
    axes.set_ylabel("return of a game")
    minutes = rows[-1]["seconds"] / 60 if rows else 0.0
    axes.set_title(f"{recipe.name}, seed {recipe.seed}, {minutes:.1f} minutes")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    save_figure(figure, picture)


def draw_curves(
    runs: Sequence[RunFolder], picture: Path, by: Sequence[str] = ("steps", "seconds")
) -> None:
    """Draw the training returns of runs over steps and over minutes, a row for each game.

    Runs that differ in nothing but their seed are drawn together, as their mean and its 95 %
    interval, as far as all of them got. They go by the recipe's name; another recipe of the same
    name goes by its run's folder.

    Args:
        by: "steps", "seconds" or both: a column for each.

    Raises:
        UserError: a run without progress yet, one that is named twice, seeds without steps in
            common, or no runs.
    """
    check_picture_path(picture)
    if not runs:
        raise UserError("there are no runs to draw; name some, such as runs/*")
    paths = [run.path.resolve() for run in runs]
    for run in runs:
        if paths.count(run.path.resolve()) > 1:
            raise UserError(f"{run.path} is named twice; name each run once")
    groups: dict[Recipe, list[Rows]] = {}
    names: dict[Recipe, str] = {}
    for run in runs:
        rows = [row for row in read_progress(run.progress) if "return_mean" in row]
        if not rows:
            raise UserError(f"{run.path} has no finished game in its progress.csv; leave it out")
        recipe = replace(run.recipe, seed=0)
        taken = recipe not in names and run.recipe.name in names.values()
        names.setdefault(recipe, run.path.name if taken else run.recipe.name)
        groups.setdefault(recipe, []).append(rows)
    games = sorted({recipe.environment.game for recipe in groups})
    size = (7.0 if len(by) == 1 else 5.5 * len(by), 4.4 * len(games))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(games), len(by), sharey="row", squeeze=False)
    for game, row in zip(games, panels, strict=True):
        drawn = {recipe: s for recipe, s in groups.items() if recipe.environment.game == game}
        for axes, unit in zip(row, by, strict=True):
            curves = {recipe: [_curve(rows, unit) for rows in s] for recipe, s in drawn.items()}
            for i, (recipe, seeds) in enumerate(curves.items()):
                _draw_group(axes, seeds, names[recipe], i)
            # The curves fill the panel, however wide an interval is where there are few seeds.
            values = np.concatenate([y for seeds in curves.values() for _, y in seeds])
            margin = 0.05 * max(float(np.ptp(values)), 1.0)
            axes.set_ylim(values.min() - margin, values.max() + margin)
            _finish(axes, unit, *drawn)
        row[0].set_ylabel(f"{game}: mean return of the last training games")
        row[0].legend(frameon=False, title="mean and 95 % interval", alignment="left")
    save_figure(figure, picture)


def _draw_group(
    axes: Axes, curves: Sequence[tuple[np.ndarray, np.ndarray]], name: str, index: int
) -> None:
    color = COLORS[index % len(COLORS)]
    start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if start > end:
        raise UserError(f"the runs of {name} have no steps in common; draw them apart")
    grid = np.linspace(start, end, POINTS)
    values = np.stack([np.interp(grid, x, y) for x, y in curves])
    seeds = "1 seed" if len(curves) == 1 else f"{len(curves)} seeds"
    axes.fill_between(grid, *interval_of_seeds(values), color=color, alpha=0.15, linewidth=0)
    axes.plot(grid, values.mean(0), color=color, label=f"{name}, {seeds}")


def _curve(rows: Rows, by: str) -> tuple[np.ndarray, np.ndarray]:
    """Millions of steps, or minutes, and the mean training return there."""
    unit = {"steps": 1e6, "seconds": 60}[by]
    points = [(row[by] / unit, row["return_mean"]) for row in rows if "return_mean" in row]
    x, y = np.array(points).reshape(-1, 2).T
    return x, y


def _finish(axes: Axes, by: str, *recipes: Recipe) -> None:
    """Recipes are of one game."""
    human = RANDOM_AND_HUMAN_SCORES.get(recipes[0].environment.game)
    if human is not None:
        low, high = axes.get_ylim()
        style = {"color": "grey", "linestyle": ":", "linewidth": 1.2}
        stretch, margin = MAX_STRETCH * (high - low), 0.05 * (high - low)
        if high - stretch < human[1] < low + stretch:
            axes.axhline(human[1], label="human", **style)
            axes.set_ylim(min(low, human[1] - margin), max(high, human[1] + margin))
        else:
            where = "above" if human[1] > high else "below"
            axes.plot([], [], label=f"human: {human[1]:,.0f}, far {where}", **style)
    axes.set_xlabel({"steps": "steps (millions; one is 4 frames)", "seconds": "minutes"}[by])
    calm(axes)
