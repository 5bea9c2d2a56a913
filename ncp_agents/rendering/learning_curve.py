"""Learning curves of one run, and of several with the seeds of a recipe together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncp_agents.agents.recipe import Recipe
from ncp_agents.envs.games import RANDOM_AND_HUMAN_SCORES
from ncp_agents.errors import UserError
from ncp_agents.evaluation.statistics import interval_of_seeds
from ncp_agents.rendering.figures import COLORS, save_figure, style_axes

Rows = Sequence[Mapping[str, float]]  # of a progress.csv

POINTS = 400  # of a curve that several seeds share
MAX_STRETCH = 4.0  # of the curves' own range, to include a human's score


class Run(NamedTuple):
    """A run to draw."""

    name: str  # of its folder
    recipe: Recipe
    rows: Rows


def draw_curve(rows: Rows, picture: Path, recipe: Recipe) -> None:
    """Draw one run's returns into the PNG `picture`.

    They are the mean return of the last training episodes, the evaluations and, where one is known,
    a human's score.
    """
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    steps, returns = _curve(rows, "steps")
    if len(steps):
        label = f"training, mean of the last {recipe.schedule.window} episodes"
        axes.plot(steps, returns, color=COLORS[0], label=label)
    evaluations = [(r["steps"] / 1e6, r["eval_return"]) for r in rows if "eval_return" in r]
    if evaluations:
        label = f"evaluation, mean of {recipe.schedule.eval_episodes} episodes"
        axes.plot(*zip(*evaluations, strict=True), "o", color=COLORS[1], label=label)
    _finish(axes, "steps", recipe.environment.game)
    axes.set_ylabel("return of an episode")
    minutes = rows[-1]["seconds"] / 60 if rows else 0.0
    axes.set_title(f"{recipe.name}, seed {recipe.seed}, {minutes:.1f} minutes")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    save_figure(figure, picture)


def draw_curves(
    runs: Sequence[Run], picture: Path, by: Sequence[str] = ("steps", "seconds")
) -> None:
    """Draw the training returns of runs over steps and over minutes, a row for each game.

    Runs that differ in nothing but their seed are drawn together, as their mean and its 95 %
    interval, as far as all of them got. The legend has the recipe's name; another recipe of the
    same name has the name of its run's folder.

    Args:
        runs: at least one.
        picture: the PNG.
        by: "steps", "seconds" or both: a column for each.

    Raises:
        UserError: a run without a finished episode, or seeds without steps in common.
    """
    seeds: dict[Recipe, list[Rows]] = {}
    names: dict[Recipe, str] = {}
    for run in runs:
        rows = [row for row in run.rows if "return_mean" in row]
        if not rows:
            raise UserError(f"{run.name} has no finished episode in its progress.csv; leave it out")
        recipe = replace(run.recipe, seed=0)
        taken = recipe not in names and run.recipe.name in names.values()
        names.setdefault(recipe, run.name if taken else run.recipe.name)
        seeds.setdefault(recipe, []).append(rows)
    games = sorted({recipe.environment.game for recipe in seeds})
    size = (7.0 if len(by) == 1 else 5.5 * len(by), 4.4 * len(games))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(games), len(by), sharey="row", squeeze=False)
    for game, row in zip(games, panels, strict=True):
        recipes = [recipe for recipe in seeds if recipe.environment.game == game]
        for axes, unit in zip(row, by, strict=True):
            curves = [[_curve(rows, unit) for rows in seeds[recipe]] for recipe in recipes]
            for i, (recipe, own) in enumerate(zip(recipes, curves, strict=True)):
                _draw_seeds(axes, own, names[recipe], COLORS[i % len(COLORS)])
            # The curves fill the panel, however wide an interval is where there are few seeds.
            values = np.concatenate([y for own in curves for _, y in own])
            margin = 0.05 * max(float(np.ptp(values)), 1.0)
            axes.set_ylim(values.min() - margin, values.max() + margin)
            _finish(axes, unit, game)
        row[0].set_ylabel(f"{game}: mean return of the last training episodes")
        row[0].legend(frameon=False, title="mean and 95 % interval", alignment="left")
    save_figure(figure, picture)


def _draw_seeds(
    axes: Axes, curves: Sequence[tuple[np.ndarray, np.ndarray]], name: str, color: str
) -> None:
    start, end = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    if start > end:
        raise UserError(f"the runs of {name} have no steps in common; draw them apart")
    grid = np.linspace(start, end, POINTS)
    values = np.stack([np.interp(grid, x, y) for x, y in curves])
    seeds = "1 seed" if len(curves) == 1 else f"{len(curves)} seeds"
    axes.fill_between(grid, *interval_of_seeds(values), color=color, alpha=0.15, linewidth=0)
    axes.plot(grid, values.mean(0), color=color, label=f"{name}, {seeds}")


def _curve(rows: Rows, by: str) -> tuple[np.ndarray, np.ndarray]:
    """Return millions of steps, or minutes, and the mean training returns there."""
    unit = {"steps": 1e6, "seconds": 60}[by]
    points = [(row[by] / unit, row["return_mean"]) for row in rows if "return_mean" in row]
    x, y = np.array(points).reshape(-1, 2).T
    return x, y


def _finish(axes: Axes, by: str, game: str) -> None:
    """Add a human's score, as a line if that leaves the curves readable, and label the x axis."""
    human = RANDOM_AND_HUMAN_SCORES.get(game)
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
    style_axes(axes)
