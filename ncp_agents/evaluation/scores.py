"""What a policy reached: whole games, what follows from them, how sure it is, and the file of it.

`scores.json`, beside the policy, holds an object for each way of playing, under a key that says
which, such as "v4-deterministic noise=0.1":

    game              "pong"
    protocol          "v4", or how it differs: "v4(max_frames=400)"
    deterministic     true: the likeliest action each step; false: actions are drawn
    seed              of the games and the drawn actions
    num_envs          games played side by side; seed and num_envs together fix what is drawn
    perturbation       null, or {"kind": "noise", "strength": 0.1, "timespans": false}; what the
                      kinds are is in `ncp_agents.envs.perturbations`
    returns           each game's score, unclipped and undiscounted
    lengths           each game's steps, 4 frames each
    actions           how often each action was taken in these games, by its name
    steps_per_second  all environments together, games that were not counted included
    weights_sha256    of the weights file that played, or null where that is not known

and what follows from these, for readers; it is computed anew when the file is read:

    mean, median, interquartile_mean
                      of the returns; the interquartile mean is that of the middle half
    std               of the sample, with n - 1 degrees of freedom
    intervals         {"mean": [low, high], ...}: 95 % bootstrap intervals of these three
    mean_length       steps a game
    human_normalised  the mean between random play, 0.0, and a professional tester's, 1.0
    human_normalised_source
                      where those two scores are from

Numbers that do not exist, such as the spread of one game, are null.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from ncp_agents.agents.saved_policy import WEIGHTS
from ncp_agents.envs.games import HUMAN_SCORES_SOURCE, human_normalised, normalise_game
from ncp_agents.envs.perturbations import Perturbation
from ncp_agents.errors import UserError
from ncp_agents.evaluation.statistics import STATISTICS, interval
from ncp_agents.files import sha256, write_text

SCORES = "scores.json"
LOCK = ".scores.lock"
PROTOCOL = re.compile(r"[\w(),.= -]+")


@dataclass(frozen=True)
class Scores:
    """Whole games of one policy, played in one way; the file's docstring explains the fields."""

    game: str
    protocol: str
    deterministic: bool
    seed: int
    num_envs: int
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    actions: Mapping[str, int]
    perturbation: Perturbation | None = None
    steps_per_second: float = field(default=math.nan, compare=False)
    weights_sha256: str | None = None

    def __post_init__(self) -> None:
        if len(self.returns) != len(self.lengths):
            raise ValueError(
                f"there are {len(self.returns)} returns and {len(self.lengths)} lengths, "
                "expected one of each a game"
            )

    @property
    def key(self) -> str:
        """What tells entries of a scores file apart: "v4", "v4-deterministic noise=0.1", ..."""
        way = self.protocol + ("-deterministic" if self.deterministic else "")
        return f"{way} {self.perturbation}" if self.perturbation else way

    def may_be_of(self, weights_sha256: str | None) -> bool:
        """Whether these weights played, as far as is known."""
        return None in (weights_sha256, self.weights_sha256) or (
            weights_sha256 == self.weights_sha256
        )

    @property
    def mean(self) -> float:
        return self._statistic("mean")

    @property
    def median(self) -> float:
        return self._statistic("median")

    @property
    def interquartile_mean(self) -> float:
        return self._statistic("interquartile_mean")

    @property
    def std(self) -> float:
        """NaN below two games."""
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else math.nan

    @cached_property
    def intervals(self) -> dict[str, tuple[float, ...]]:
        """Low and high by statistic; NaN below two games."""
        return {name: tuple(interval(np.array(self.returns), name).tolist()) for name in STATISTICS}

    @property
    def mean_length(self) -> float:
        """Steps a game; NaN without games."""
        return float(np.mean(self.lengths)) if self.lengths else math.nan

    @property
    def human_normalised(self) -> float | None:
        """None where no human score is known."""
        return human_normalised(self.game, self.mean)

    def _statistic(self, name: str) -> float:
        """NaN without games."""
        return float(STATISTICS[name](self.returns)) if self.returns else math.nan

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields, and for readers what follows from them (null where NaN)."""
        normalised = self.human_normalised
        return dataclasses.asdict(self) | {
            "steps_per_second": _or_none(self.steps_per_second),
            **{name: _or_none(getattr(self, name)) for name in (*STATISTICS, "std")},
            "intervals": {name: [*map(_or_none, both)] for name, both in self.intervals.items()},
            "mean_length": _or_none(self.mean_length),
            "human_normalised": _or_none(normalised),
            "human_normalised_source": None if normalised is None else HUMAN_SCORES_SOURCE,
        }

    @classmethod
    def from_dict(cls, data: Any) -> Scores:
        """What `to_dict` wrote; what follows from the games is computed anew.

        Raises:
            ValueError: a field that is missing or of another type.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"got {data!r}, expected the scores of one protocol")
        values = dict(data)
        for name, kinds in (
            ("game", (str,)),
            ("protocol", (str,)),
            ("deterministic", (bool,)),
            ("seed", (int,)),
            ("num_envs", (int,)),
            ("returns", (list,)),
            ("lengths", (list,)),
            ("actions", (dict,)),
            ("perturbation", (dict, type(None))),
            ("steps_per_second", (float, int, type(None))),
            ("weights_sha256", (str, type(None))),
        ):
            if type(values.get(name, ...)) not in kinds:
                got = values.get(name, "missing")
                raise ValueError(f"{name} is {got!r}, expected {kinds[0].__name__}")
        counts = list(values["actions"].values())
        for name, numbers, kinds in (
            ("returns", values["returns"], (int, float)),
            ("lengths", values["lengths"], (int,)),
            ("actions", counts, (int,)),
        ):
            for value in numbers:
                if type(value) not in kinds or not math.isfinite(value):
                    raise ValueError(f"{name} hold {value!r}, expected numbers")
        if not PROTOCOL.fullmatch(values["protocol"]):  # it becomes part of a picture's name
            raise ValueError(f"protocol is {values['protocol']!r}, expected the like of v4")
        if normalise_game(values["game"]) != values["game"]:
            raise ValueError(f"game is {values['game']!r}, expected the like of pong")
        speed, perturbation = values["steps_per_second"], values["perturbation"]
        if speed is not None and not math.isfinite(speed):
            raise ValueError(f"steps_per_second is {speed}, expected a number or null")
        return cls(
            game=values["game"],
            protocol=values["protocol"],
            deterministic=values["deterministic"],
            seed=values["seed"],
            num_envs=values["num_envs"],
            returns=tuple(map(float, values["returns"])),
            lengths=tuple(values["lengths"]),
            actions=values["actions"],
            perturbation=None if perturbation is None else Perturbation.from_dict(perturbation),
            steps_per_second=math.nan if speed is None else speed,
            weights_sha256=values["weights_sha256"],
        )


def write_scores(path: Path, scores: Scores) -> None:
    """Put scores into a scores file, in place of earlier ones of the same key. The others stay,
    but for those of weights that these have taken the place of.

    Raises:
        UserError: the file is there and not a scores file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(LOCK)):  # another evaluation may be at its end, too
        known = read_scores(path) if path.exists() else {}
        entries = {k: each for k, each in known.items() if each.may_be_of(scores.weights_sha256)}
        entries[scores.key] = scores
        blocks = []
        for key in sorted(entries):
            fields = entries[key].to_dict().items()
            lines = [f"    {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in fields]
            blocks.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(lines) + "\n  }")
        write_text(path, "{\n" + ",\n".join(blocks) + "\n}\n")


def read_scores(path: Path) -> dict[str, Scores]:
    """A scores file's entries by `Scores.key`.

    Raises:
        UserError: no such file, or not a scores file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, Mapping):
            raise ValueError(f"got {type(data).__name__}, expected an object")
        found = {key: Scores.from_dict(entry) for key, entry in data.items()}
        for key, entry in found.items():
            if key != entry.key:
                raise ValueError(f"{key!r} holds the scores of {entry.key!r}")
        return found
    except FileNotFoundError:
        raise UserError(
            f"there is no {path}; play for it: ncp-agents evaluate {path.parent}"
        ) from None
    # ValueError: bad JSON, bad UTF-8 or a bad entry; the others: of a depth or size beyond use.
    except (ValueError, OSError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path} is not a scores file ({error}); move it away and evaluate again"
        ) from None


def scores_of(folder: Path) -> dict[str, Scores]:
    """The scores of a saved policy as its weights are now, by `Scores.key`; none where there is no
    scores file, or it is of earlier weights.

    Raises:
        UserError: not a scores file.
    """
    if not (folder / SCORES).exists():
        return {}
    now = sha256(folder / WEIGHTS) if (folder / WEIGHTS).exists() else None
    return {key: each for key, each in read_scores(folder / SCORES).items() if each.may_be_of(now)}


def _or_none(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
