"""Scores as short text, for tables, model cards and plots."""

from __future__ import annotations

import math

from ncp_agents.evaluation.scores import Scores


def number(value: float) -> str:
    """Return a score to one decimal; – for NaN."""
    return "–" if math.isnan(value) else f"{value:.1f}"


def span(scores: Scores, statistic: str = "mean") -> str:
    """Return the interval of a statistic: 19.5 … 20.3."""
    return " … ".join(map(number, scores.intervals[statistic]))


def percent(value: float | None) -> str:
    """0.95 → 95 %; – for None and NaN."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.0f} %"


def action_fractions(scores: Scores) -> str:
    """Return the fraction of each action: NOOP 12 %, FIRE 3 %, ..."""
    total = sum(scores.actions.values()) or 1
    return ", ".join(f"{name} {percent(count / total)}" for name, count in scores.actions.items())
