"""Scores as tables for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rich import box
from rich.table import Table

from ncp_agents.envs.games import HUMAN_SCORES_SOURCE
from ncp_agents.envs.protocol import STEPS_PER_SECOND
from ncp_agents.evaluation.formatting import action_fractions, number, percent, span
from ncp_agents.evaluation.scores import Scores
from ncp_agents.evaluation.statistics import CONFIDENCE, STATISTICS


def scores_table(scores: Scores) -> Table:
    """Return all statistics of one evaluation."""
    result = Table("", scores.key, box=box.SIMPLE_HEAD)
    result.add_row("game", scores.game)
    for name in STATISTICS:
        value = number(getattr(scores, name))
        result.add_row(name.replace("_", " "), f"{value}  ({span(scores, name)})")
    speed = scores.steps_per_second
    for name, cell in (
        ("std", number(scores.std)),
        ("human-normalised", percent(scores.human_normalised)),
        ("episodes", str(len(scores.returns))),
        ("mean length", _duration(scores.mean_length)),
        ("steps/s", "–" if speed is None else f"{speed:,.0f}"),
        ("actions", action_fractions(scores)),
    ):
        result.add_row(name, cell)
    result.caption = (
        f"in brackets: {percent(CONFIDENCE)} bootstrap intervals; human-normalised by the scores "
        f"of {HUMAN_SCORES_SOURCE}"
    )
    return result


def comparison_table(rows: Iterable[tuple[str, Scores]]) -> Table:
    """Return a row for each evaluation, with the name of its policy."""
    result = Table("policy", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    result.add_column("setting", overflow="fold")
    for column in ("n", "mean", f"{percent(CONFIDENCE)} interval", "IQM", "human"):
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
    result.caption = "n: episodes; IQM: interquartile mean; human: human-normalised mean"
    return result


def _duration(steps: float) -> str:
    """1204 steps (1:20), in minutes and seconds of the emulator's time."""
    if math.isnan(steps):
        return "–"
    minutes, seconds = divmod(round(steps / STEPS_PER_SECOND), 60)
    return f"{steps:.0f} steps ({minutes}:{seconds:02})"
