"""`progress.csv`: the figures of a training, a row per rollout and per evaluation."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.logger import KVWriter

from ncp_agents.errors import UserError
from ncp_agents.files import atomic_write

COLUMNS = {
    # column: the logger's key
    "steps": "time/total_timesteps",
    "seconds": "time/seconds",
    "steps_per_second": "time/steps_per_second",
    "episodes": "time/episodes",
    "return_mean": "rollout/ep_rew_mean",
    "length_mean": "rollout/ep_len_mean",
    "eval_return": "eval/return",
    "learning_rate": "train/learning_rate",
    "policy_loss": "train/policy_gradient_loss",
    "value_loss": "train/value_loss",
    "entropy": "train/entropy",
    "kl": "train/approx_kl",
    "clip_fraction": "train/clip_fraction",
    "explained_variance": "train/explained_variance",
}


class ProgressCsv(KVWriter):
    """A logger's output to `progress.csv`, with fixed columns, on disk as soon as written.

    Rows after `last_step`, left by a crash after its last checkpoint, are dropped first.
    """

    def __init__(self, path: Path, last_step: int = 0) -> None:
        kept = [row for row in read_progress(path) if row["steps"] <= last_step]
        with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows({key: _cell(row.get(key)) for key in COLUMNS} for row in kept)
        self._file = path.open("a", newline="")
        self._writer = csv.DictWriter(self._file, COLUMNS)

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Append a row."""
        row = {column: _cell(key_values.get(key)) for column, key in COLUMNS.items()}
        self._writer.writerow(row)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _cell(value: Any) -> Any:
    """Return a number with six digits, a count whole, and an empty cell for NaN."""
    if value is None or value != value:
        return ""
    if not isinstance(value, float | np.floating):
        return value
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def read_progress(path: Path) -> list[Mapping[str, float]]:
    """Return the rows of a progress.csv, without empty cells; none where there is no file.

    A row that a crash cut short is left out.

    Raises:
        UserError: a damaged file.
    """
    if not path.is_file():
        return []
    rows = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            missing = {"steps", "seconds"} - {*(table.fieldnames or ())}
            if missing:
                raise ValueError(f"it has no column {', '.join(sorted(missing))}")
            for cells in table:
                if None not in cells.values():
                    row = {k: float(v) for k, v in cells.items() if v and k in COLUMNS}
                    if not all(map(math.isfinite, row.values())):
                        raise ValueError(f"row {len(rows) + 1} is not finite")
                    rows.append(row)
    except (ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return [row for row in rows if {"steps", "seconds"} <= row.keys()]
