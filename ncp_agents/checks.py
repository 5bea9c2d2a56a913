"""What the torch and MLX ports check at their border; nothing here needs a framework."""

from __future__ import annotations

import math
from typing import Any


def check_step(x: Any, h: Any, timespan: Any, inputs: int, neurons: int) -> Any:
    """x (B, I), h (B, N), timespan a float, (B,) or (B, 1), all also without B → timespan as a
    float or (B, 1).

    Raises:
        ValueError: another shape; one of (B,) would otherwise spread over the neurons where B = N.
    """
    if x.shape[-1] != inputs or tuple(h.shape) != (*x.shape[:-1], neurons):
        raise ValueError(
            f"input has shape {tuple(x.shape)} and state {tuple(h.shape)}, expected (B, {inputs}) "
            f"and (B, {neurons})"
        )
    shape, rows = tuple(getattr(timespan, "shape", ())), tuple(x.shape[:-1])
    if shape in ((), (*rows, 1)):
        return timespan
    if shape != rows:
        raise ValueError(f"timespan has shape {shape}, expected a float, {rows} or {(*rows, 1)}")
    return timespan[..., None]


def check_times(least: float, most: float) -> None:
    """Raises ValueError for timespans below 0 or not finite."""
    if not 0.0 <= least <= most < math.inf:
        wrong = most if least >= 0.0 else least
        raise ValueError(f"timespans has {wrong}, expected finite steps of at least 0")


def check_epsilon(epsilon: float) -> None:
    """Raises ValueError for what cannot be added to a conductance."""
    if not (isinstance(epsilon, int | float) and 0.0 <= epsilon < math.inf):
        raise ValueError(f"epsilon is {epsilon!r}, expected a number of at least 0; usual is 1e-8")
