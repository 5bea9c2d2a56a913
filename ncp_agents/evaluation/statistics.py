"""What few episodes or seeds tell: statistics of returns and their confidence intervals."""

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
    """95 % bootstrap interval of a statistic along an axis → (2, …), low and high.

    Percentiles of 9,999 resamples, drawn from a fixed seed: the same values have the same interval.
    Below two values NaN. Source: Efron 1979; for few runs of reinforcement learning, and for the
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
    """95 % interval of the mean over seeds, by Student's t: values (S, …) → (2, …), low and high.

    Seeds are few: of three the percentiles of a bootstrap are the least and the largest, and the
    true mean is between them in three of four cases only. Below two seeds NaN.
    """
    seeds = len(values)
    if seeds < 2:
        return np.full((2, *np.shape(values)[1:]), math.nan)
    error = np.std(values, 0, ddof=1) / math.sqrt(seeds)
    reach = t.ppf(0.5 + CONFIDENCE / 2, seeds - 1) * error
    return np.mean(values, 0) + np.stack([-reach, reach])
