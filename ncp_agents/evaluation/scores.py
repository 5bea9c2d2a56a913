"""Scores of a policy, their statistics, and `scores.json`, the file beside the policy.

The file has an object for each setting that was evaluated, under a key such as
"v4-deterministic noise=0.1":

    game              "pong"
    protocol          "v4", or how it differs: "v4(max_frames=400)"
    deterministic     true: greedy actions; false: sampled actions
    seed              of environments and sampled actions
    num_envs          parallel environments; seed and num_envs together fix the episodes
    returns           of each episode, unclipped and undiscounted
    lengths           of each episode, in steps of 4 frames
    actions           how often each action was taken in these episodes, by its name
    perturbation      null, or {"kind": "noise", "strength": 0.1, "timespans": false}; the kinds are
                      described in `ncp_agents.envs.perturbations`
    steps_per_second  of all environments together, uncounted episodes included, or null
    weights_sha256    of the weights file that was evaluated, or null where that is not known

and, for readers, statistics; they are computed again when the file is read:

    mean, median, interquartile_mean
                      of the returns; the interquartile mean is that of the middle half
    std               of the sample, with n - 1 degrees of freedom
    intervals         {"mean": [low, high], ...}: 95 % bootstrap intervals of these three
    mean_length       of an episode, in steps
    human_normalised  the mean on a scale of random play, 0.0, to a professional tester, 1.0
    human_normalised_source
                      of those two scores

Statistics that do not exist, such as the spread of one episode, are null.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from filelock import FileLock
from pydantic import ConfigDict, Field

from ncp_agents.agents.saved_policy import WEIGHTS
from ncp_agents.envs.games import HUMAN_SCORES_SOURCE, human_normalised
from ncp_agents.envs.perturbations import Perturbation
from ncp_agents.errors import UserError
from ncp_agents.evaluation.statistics import STATISTICS, interval
from ncp_agents.files import remove_temporary_files, sha256, write_text
from ncp_agents.schema import Finite, Validated, parse_json

SCORES = "scores.json"
LOCK = ".scores.lock"
PROTOCOL = r"^[\w(),.= -]+$"  # it becomes part of a picture's file name


@dataclass(frozen=True)
class Scores(Validated):
    """Episodes of one policy in one setting; the fields are those of the file, see above."""

    __pydantic_config__ = ConfigDict(extra="ignore", strict=True)  # statistics are computed again

    game: str
    protocol: Annotated[str, Field(pattern=PROTOCOL)]
    deterministic: bool
    seed: int
    num_envs: int
    returns: tuple[Finite, ...]
    lengths: tuple[int, ...]
    actions: Mapping[str, int]
    perturbation: Perturbation | None = None
    steps_per_second: Finite | None = field(default=None, compare=False)
    weights_sha256: str | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if len(self.returns) != len(self.lengths):
            raise ValueError(
                f"lengths are {len(self.lengths)}, expected one for each of "
                f"{len(self.returns)} returns"
            )

    @property
    def key(self) -> str:
        """The setting: "v4", "v4-deterministic noise=0.1", ..."""
        key = self.protocol + ("-deterministic" if self.deterministic else "")
        return f"{key} {self.perturbation}" if self.perturbation else key

    def may_be_of(self, weights_sha256: str | None) -> bool:
        """Return whether these weights were evaluated, as far as is known."""
        return None in (weights_sha256, self.weights_sha256) or (
            weights_sha256 == self.weights_sha256
        )

    @property
    def mean(self) -> float:
        """NaN without episodes, as the other statistics."""
        return self._statistic("mean")

    @property
    def median(self) -> float:
        """The median of the returns."""
        return self._statistic("median")

    @property
    def interquartile_mean(self) -> float:
        """The mean of the middle half of the returns."""
        return self._statistic("interquartile_mean")

    @property
    def std(self) -> float:
        """NaN below two episodes."""
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else math.nan

    @cached_property
    def intervals(self) -> dict[str, tuple[float, ...]]:
        """Low and high by statistic; NaN below two episodes."""
        return {name: tuple(interval(np.array(self.returns), name).tolist()) for name in STATISTICS}

    @property
    def mean_length(self) -> float:
        """Steps an episode."""
        return float(np.mean(self.lengths)) if self.lengths else math.nan

    @property
    def human_normalised(self) -> float | None:
        """None where no human score is known."""
        return human_normalised(self.game, self.mean)

    def _statistic(self, name: str) -> float:
        return float(STATISTICS[name](self.returns)) if self.returns else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and statistics for JSON; NaN becomes None."""
        normalised = self.human_normalised
        return dataclasses.asdict(self) | {
            **{name: _or_none(getattr(self, name)) for name in (*STATISTICS, "std")},
            "intervals": {name: [*map(_or_none, both)] for name, both in self.intervals.items()},
            "mean_length": _or_none(self.mean_length),
            "human_normalised": _or_none(normalised),
            "human_normalised_source": None if normalised is None else HUMAN_SCORES_SOURCE,
        }


def write_scores(path: Path, scores: Scores, keep_larger: bool = False) -> Scores:
    """Put scores into a scores file, in place of those of the same key.

    Other entries stay, except those of other weights.

    Args:
        path: the file.
        scores: the new entry.
        keep_larger: an entry of the same key and weights with more episodes stays.

    Returns:
        The entry that the file now has under the key.

    Raises:
        UserError: the file exists and is not a scores file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(LOCK)):
        remove_temporary_files(path)
        known = read_scores(path) if path.exists() else {}
        entries = {k: each for k, each in known.items() if each.may_be_of(scores.weights_sha256)}
        before = entries.get(scores.key)
        if keep_larger and before is not None and len(before.returns) > len(scores.returns):
            return before
        entries[scores.key] = scores
        blocks = []
        for key in sorted(entries):
            fields = entries[key].to_dict().items()
            lines = [f"    {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in fields]
            blocks.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n  }")
        write_text(path, "{\n" + ",\n".join(blocks) + "\n}\n")
        return scores


def read_scores(path: Path) -> dict[str, Scores]:
    """Return a scores file's entries by `Scores.key`.

    Raises:
        UserError: no such file, or not a scores file.
    """
    if not path.exists():
        raise UserError(f"there is no {path}; evaluate: ncp-agents evaluate {path.parent}")
    entries = parse_json(dict[str, Scores], path.read_bytes(), path)
    for key, scores in entries.items():
        if not scores.returns:
            raise UserError(f"{path}: {key} has no episodes, expected at least one")
    return {scores.key: scores for scores in entries.values()}


def scores_of(folder: Path) -> dict[str, Scores]:
    """Return the scores of a saved policy's current weights, by `Scores.key`.

    Raises:
        UserError: not a scores file.
    """
    if not (folder / SCORES).exists():
        return {}
    now = sha256(folder / WEIGHTS) if (folder / WEIGHTS).exists() else None
    return {key: each for key, each in read_scores(folder / SCORES).items() if each.may_be_of(now)}


def _or_none(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
