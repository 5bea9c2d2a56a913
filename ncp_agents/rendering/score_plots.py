"""Scores as pictures: policies beside each other, and return against a perturbation's strength."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncp_agents.envs.games import RANDOM_AND_HUMAN_SCORES, human_normalised
from ncp_agents.envs.perturbations import KINDS
from ncp_agents.evaluation.scores import Scores
from ncp_agents.rendering.figures import COLORS, calm, save_figure


def draw_comparison(scores: Sequence[tuple[str, Scores]], picture: Path) -> None:
    """The mean of each policy with its 95 % bootstrap interval; its games as faint dots.

    Policies of several games are drawn human-normalised; where no human's score is known, the row
    says so.
    """
    games = {each.game for _, each in scores}
    figure = Figure(figsize=(7, 1.4 + 0.5 * len(scores)), layout="constrained")
    axes = figure.add_subplot()
    for row, (_, each) in enumerate(scores):
        color = COLORS[row % len(COLORS)]
        low, high = _scaled(each, each.intervals["mean"], games)
        (mean,) = _scaled(each, [each.mean], games)
        if math.isnan(mean):
            axes.annotate("no human score is known", (0, row), va="center", size=9, color="0.35")
            continue
        returns = _scaled(each, each.returns, games)
        axes.plot(returns, [row + 0.22] * len(returns), "o", color=color, alpha=0.2, markersize=4)
        axes.plot([low, high], [row, row], color=color, linewidth=3, solid_capstyle="round")
        axes.plot(mean, row, "o", color=color, markersize=7, markeredgecolor="white")
        text = f"{mean:.1f}" if len(games) == 1 else f"{mean:.2f}"
        axes.annotate(text, (mean, row), (0, 9), textcoords="offset points", ha="center", size=9)
    _human_line(axes.axvline, games)
    axes.set_yticks(range(len(scores)), [name for name, _ in scores])
    axes.set_ylim(len(scores) - 0.5, -0.6)
    axes.set_xlabel(_measure(games))
    human = "; grey: human" if _human(games) is not None else ""
    axes.set_title(f"means and their 95 % intervals; dots: games{human}", size=10, color="0.35")
    calm(axes)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    save_figure(figure, picture)


def draw_perturbations(policies: Mapping[str, Sequence[Scores]], picture: Path) -> None:
    """Mean return against the strength of each kind of perturbation, with 95 % bootstrap intervals.

    Args:
        policies: by name, what each policy scored in one way of playing, perturbed and not.
        picture: the PNG. A panel for each kind there is.
    """
    every = [each for known in policies.values() for each in known]
    games = {each.game for each in every}
    kinds = [k for k in KINDS if any(s.perturbation and s.perturbation.kind == k for s in every)]
    columns = min(len(kinds), 2)
    rows = -(-len(kinds) // columns)
    figure = Figure(figsize=(5.2 * columns, 3.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axes, kind in zip(panels, kinds, strict=False):
        jitter = kind == "frame_skip_jitter"
        for (name, known), color in zip(policies.items(), itertools.cycle(COLORS)):
            if jitter:
                _draw_sweep(axes, known, kind, True, games, color, "-", f"{name}, told the time")
                _draw_sweep(axes, known, kind, False, games, color, ":", f"{name}, not told")
            else:
                _draw_sweep(axes, known, kind, False, games, color, "-", name)
        if jitter or len(policies) > 1:
            axes.legend(frameon=False, fontsize=9)
        _human_line(axes.axhline, games)
        axes.set_xlabel(KINDS[kind])
        axes.set_xlim(left=0)
        if jitter:
            axes.set_xticks(range(1 + round(axes.get_xlim()[1])))
        calm(axes)
    for axes in panels[len(kinds) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel(_measure(games))
    human = "; grey: human" if _human(games) is not None else ""
    figure.suptitle(f"mean of whole games, 95 % intervals{human}", size=10, color="0.35")
    save_figure(figure, picture)


def _draw_sweep(
    axes: Axes,
    known: Sequence[Scores],
    kind: str,
    told: bool,
    games: set[str],
    color: str,
    line: str,
    label: str,
) -> None:
    points = []
    for each in known:
        way = each.perturbation
        if way is None or (way.kind == kind and way.timespans == told):
            (mean,) = _scaled(each, [each.mean], games)
            low, high = _scaled(each, each.intervals["mean"], games)
            points.append((way.strength if way else 0.0, mean, low, high))
    if not points:
        return
    strengths, means, low, high = zip(*sorted(points), strict=True)
    axes.fill_between(strengths, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(
        strengths, means, line, marker="o", color=color, label=label, markersize=5, clip_on=False
    )


def _scaled(scores: Scores, values: Sequence[float], games: set[str]) -> list[float]:
    """Returns as they are where all are of one game, else human-normalised; NaN where no human's
    score is known.
    """
    if len(games) == 1:
        return list(values)
    if scores.game not in RANDOM_AND_HUMAN_SCORES:
        return [math.nan] * len(values)
    return [human_normalised(scores.game, value) or 0.0 for value in values]


def _human(games: set[str]) -> float | None:
    """A professional tester's score, in the units of `_scaled`."""
    scores = RANDOM_AND_HUMAN_SCORES.get(next(iter(games))) if len(games) == 1 else (0.0, 1.0)
    return None if scores is None else scores[1]


def _human_line(line: Callable[..., Any], games: set[str]) -> None:
    if (human := _human(games)) is not None:
        line(human, color="grey", linestyle=":", linewidth=1.2)


def _measure(games: set[str]) -> str:
    return f"return of a game of {next(iter(games))}" if len(games) == 1 else "human-normalised"
