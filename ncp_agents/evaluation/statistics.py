"""Statistics of few episodes or seeds, and their confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import bootstrap, t, trim_mean

CONFIDENCE = 0.95  # of intervals
STATISTICS: dict[str, Callable[..., Any]] = {
    "mean": np.mean,
    "median": np.median,
    "interquartile_mean": lambda values, axis=-1: trim_mean(values, 0.25, axis),
}


def interval(values: np.ndarray, statistic: str = "mean", axis: int = 0) -> np.ndarray:
    """Return the 95 % bootstrap interval of a statistic along an axis, (2, …): low and high.

    Percentiles of 9,999 resamples with a fixed seed: the same values have the same interval. Below
    two values NaN. Source: Efron 1979; for few runs of reinforcement learning, and for the
    interquartile mean, Agarwal et al. 2021, arXiv:2108.13264.
    """
    values = np.asarray(values, float)
    if values.shape[axis] < 2:
        return np.full((2, *np.delete(values.shape, axis)), math.nan)
    low, high = bootstrap(
        (values,),
        STATISTICS[statistic],
        confidence_level=CONFIDENCE,
        method="percentile",
        axis=axis,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return np.stack([low, high])


def interval_of_seeds(values: np.ndarray) -> np.ndarray:
    """Return the 95 % Student's t interval of the mean over seeds: values (S, …) → (2, …).

    The percentiles of a bootstrap of three seeds are the least and the largest of them, which
    include the true mean in three of four cases only. Below two seeds NaN.
    """
    seeds = len(values)
    if seeds < 2:
        return np.full((2, *np.shape(values)[1:]), math.nan)
    error = np.std(values, 0, ddof=1) / math.sqrt(seeds)
    half_width = t.ppf(0.5 + CONFIDENCE / 2, seeds - 1) * error
    return np.mean(values, 0) + np.stack([-half_width, half_width])
