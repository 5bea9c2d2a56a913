"""Scores as tables for a terminal, and as the words in them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rich import box
from rich.table import Table

from ncp_agents.envs.games import HUMAN_SCORES_SOURCE
from ncp_agents.envs.protocol import STEPS_PER_SECOND
from ncp_agents.evaluation.formatting import number, percent, shares, span
from ncp_agents.evaluation.scores import Scores
from ncp_agents.evaluation.statistics import CONFIDENCE, STATISTICS


def table(scores: Scores) -> Table:
    """All there is to say of one way of playing, for rich to print."""
    result = Table("", scores.key, box=box.SIMPLE_HEAD)
    result.add_row("game", scores.game)
    for name in STATISTICS:
        value = number(getattr(scores, name))
        result.add_row(name.replace("_", " "), f"{value}  ({span(scores, name)})")
    for name, shown in (
        ("std", number(scores.std)),
        ("human-normalised", percent(scores.human_normalised)),
        ("games", str(len(scores.returns))),
        ("mean length", _duration(scores.mean_length)),
        ("steps/s", "–" if math.isnan(speed := scores.steps_per_second) else f"{speed:,.0f}"),
        ("actions", shares(scores)),
    ):
        result.add_row(name, shown)
    result.caption = (
        f"in brackets: {percent(CONFIDENCE)} bootstrap intervals; human-normalised by the scores "
        f"of {HUMAN_SCORES_SOURCE}"
    )
    return result


def comparison(rows: Iterable[tuple[str, Scores]]) -> Table:
    """A row for each policy and way of playing."""
    result = Table("policy", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    result.add_column("scored under", overflow="fold")
    for column in ("games", "mean", f"{percent(CONFIDENCE)} interval", "IQM", "human"):
        result.add_column(column, justify="right")
    for name, scores in rows:
        result.add_row(
            name,
            scores.key,
            str(len(scores.returns)),
            number(scores.mean),
            span(scores),
            number(scores.interquartile_mean),
            percent(scores.human_normalised),
        )
    return result


def _duration(steps: float) -> str:
    """1204 steps (1:20), minutes and seconds of the game's time."""
    if math.isnan(steps):
        return "–"
    minutes, seconds = divmod(round(steps / STEPS_PER_SECOND), 60)
    return f"{steps:.0f} steps ({minutes}:{seconds:02})"
