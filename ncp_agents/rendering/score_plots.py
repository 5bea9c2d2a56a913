"""Plots of scores: policies beside each other, and returns against a perturbation's strength."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncp_agents.envs.games import RANDOM_AND_HUMAN_SCORES, human_normalised
from ncp_agents.envs.perturbations import KINDS
from ncp_agents.evaluation.scores import Scores
from ncp_agents.rendering.figures import COLORS, save_figure, style_axes


class _Scale:
    """Returns as they are where all scores are of one game, else human-normalised."""

    def __init__(self, scores: Iterable[Scores]) -> None:
        self.games = {each.game for each in scores}
        self.label = "human-normalised return"
        self.human: float | None = 1.0  # a professional tester's score
        if len(self.games) == 1:
            (game,) = self.games
            self.label = f"return of an episode of {game}"
            self.human = RANDOM_AND_HUMAN_SCORES.get(game, (None, None))[1]
        self.note = "" if self.human is None else "; grey: human"

    def __call__(self, scores: Scores, *returns: float) -> list[float]:
        """Return the scaled returns; NaN where no human's score is known."""
        if len(self.games) == 1:
            return list(returns)
        scaled = [human_normalised(scores.game, value) for value in returns]
        return [math.nan if value is None else value for value in scaled]

    def draw_human(self, line: Callable[..., Any]) -> None:
        if self.human is not None:
            line(self.human, color="grey", linestyle=":", linewidth=1.2)


def draw_comparison(scores: Sequence[tuple[str, Scores]], picture: Path) -> None:
    """Draw the mean of each policy with its 95 % bootstrap interval; its episodes as faint dots.

    Policies of several games are drawn human-normalised; the row of one whose human score is not
    known says so.
    """
    scale = _Scale(each for _, each in scores)
    figure = Figure(figsize=(7, 1.4 + 0.5 * len(scores)), layout="constrained")
    axes = figure.add_subplot()
    for row, (_, each) in enumerate(scores):
        color = COLORS[row % len(COLORS)]
        mean, low, high = scale(each, each.mean, *each.intervals["mean"])
        if math.isnan(mean):
            axes.annotate("no human score is known", (0, row), va="center", size=9, color="0.35")
            continue
        returns = scale(each, *each.returns)
        axes.plot(returns, [row + 0.22] * len(returns), "o", color=color, alpha=0.2, markersize=4)
        axes.plot([low, high], [row, row], color=color, linewidth=3, solid_capstyle="round")
        axes.plot(mean, row, "o", color=color, markersize=7, markeredgecolor="white")
        text = f"{mean:.1f}" if len(scale.games) == 1 else f"{mean:.2f}"
        axes.annotate(text, (mean, row), (0, 9), textcoords="offset points", ha="center", size=9)
    scale.draw_human(axes.axvline)
    axes.set_yticks(range(len(scores)), [name for name, _ in scores])
    axes.set_ylim(len(scores) - 0.5, -0.6)
    axes.set_xlabel(scale.label)
    title = f"means and their 95 % intervals; dots: episodes{scale.note}"
    axes.set_title(title, size=10, color="0.35")
    style_axes(axes)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    save_figure(figure, picture)


def draw_perturbations(policies: Mapping[str, Sequence[Scores]], picture: Path) -> None:
    """Draw mean returns with 95 % bootstrap intervals against the strength of perturbations.

    Args:
        policies: by name, the scores of each in one setting, perturbed and not.
        picture: the PNG; a panel for each kind of perturbation in the scores.
    """
    every = [each for scores in policies.values() for each in scores]
    scale = _Scale(every)
    kinds = [k for k in KINDS if any(s.perturbation and s.perturbation.kind == k for s in every)]
    columns = min(len(kinds), 2)
    rows = -(-len(kinds) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axes, kind in zip(panels, kinds, strict=False):
        jitter = kind == "frame_skip_jitter"
        lines = [(False, "-", "")]
        if jitter:
            lines = [(True, "-", ", with timespans"), (False, ":", ", without timespans")]
        for (name, scores), color in zip(policies.items(), itertools.cycle(COLORS)):
            for timespans, line, note in lines:
                points = _points(scores, kind, timespans, scale)
                _draw_sweep(axes, points, line, color=color, label=name + note)
        if jitter or len(policies) > 1:
            axes.legend(frameon=False, fontsize=9)
        scale.draw_human(axes.axhline)
        axes.set_xlabel(KINDS[kind])
        axes.set_xlim(left=0)
        if jitter:
            axes.set_xticks(range(1 + round(axes.get_xlim()[1])))
        style_axes(axes)
    for axes in panels[len(kinds) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel(scale.label)
    title = f"means of whole episodes, 95 % intervals{scale.note}"
    figure.suptitle(title, size=10, color="0.35")
    save_figure(figure, picture)


def _points(
    scores: Iterable[Scores], kind: str, timespans: bool, scale: _Scale
) -> list[tuple[float, ...]]:
    """Return strength, mean, low and high of each perturbation of a kind, and of none."""
    points = []
    for each in scores:
        found = each.perturbation
        if found is None or (found.kind == kind and found.timespans == timespans):
            strength = 0.0 if found is None else found.strength
            points.append((strength, *scale(each, each.mean, *each.intervals["mean"])))
    return sorted(points)


def _draw_sweep(axes: Axes, points: list[tuple[float, ...]], line: str, **style: Any) -> None:
    if not points:
        return
    strengths, means, low, high = zip(*points, strict=True)
    axes.fill_between(strengths, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.plot(strengths, means, line, marker="o", markersize=5, clip_on=False, **style)
