"""What a policy reached: games, their mean and its interval, on disk and as a table."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from scipy.special import stdtrit

from ncp_agents.envs.games import human_normalised
from ncp_agents.errors import UserError
from ncp_agents.files import write_text
from ncp_agents.recipe import read_recipe
from ncp_agents.rendering import STEPS_PER_SECOND
from ncp_agents.saved_policy import RECIPE, WEIGHTS, zoo

SCORES = "scores.json"
CONFIDENCE = 0.95  # of Scores.interval


@dataclass(frozen=True)
class Scores:
    """Whole games of one policy under one protocol."""

    game: str
    protocol: str  # "v4", or how it differs: "v4(max_frames=400)"
    deterministic: bool  # the likeliest action each step, not a sampled one
    seed: int
    returns: tuple[float, ...]  # each game's score
    lengths: tuple[int, ...]  # each game's steps

    def __post_init__(self) -> None:
        if len(self.returns) != len(self.lengths):
            raise ValueError(
                f"there are {len(self.returns)} returns and {len(self.lengths)} lengths, "
                "expected one of each a game"
            )

    @property
    def key(self) -> str:
        """What tells entries of a scores file apart: "v4", "v4-deterministic", ..."""
        return self.protocol + ("-deterministic" if self.deterministic else "")

    @property
    def mean(self) -> float:
        """NaN without games."""
        return float(np.mean(self.returns)) if self.returns else math.nan

    @property
    def std(self) -> float:
        """Of the sample, with n - 1 degrees of freedom; NaN below two games."""
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the mean, mean ± t(n - 1) · std / √n; NaN below two games.

        Student's t takes games as independent and their scores as roughly normal.
        """
        games = len(self.returns)
        if games < 2:
            return math.nan, math.nan
        quantile = float(stdtrit(games - 1, (1 + CONFIDENCE) / 2))
        half = quantile * self.std / math.sqrt(games)
        return self.mean - half, self.mean + half

    @property
    def mean_length(self) -> float:
        """Steps a game; NaN without games."""
        return float(np.mean(self.lengths)) if self.lengths else math.nan

    @property
    def human_normalised(self) -> float | None:
        """The mean between random play, 0.0, and a professional tester's, 1.0, where known."""
        return human_normalised(self.game, self.mean)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the fields, and for readers what follows from them (null where NaN)."""
        return dataclasses.asdict(self) | {
            "mean": _or_none(self.mean),
            "std": _or_none(self.std),
            "interval": [_or_none(bound) for bound in self.interval],
            "mean_length": _or_none(self.mean_length),
            "human_normalised": _or_none(self.human_normalised),
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
        for name, kind in (
            ("game", str),
            ("protocol", str),
            ("deterministic", bool),
            ("seed", int),
            ("returns", list),
            ("lengths", list),
        ):
            if type(values.get(name)) is not kind:
                raise ValueError(f"{name} is {values.get(name)!r}, expected {kind.__name__}")
        for name, kinds in (("returns", (int, float)), ("lengths", (int,))):
            for value in values[name]:
                if type(value) not in kinds or not math.isfinite(value):
                    raise ValueError(f"{name} hold {value!r}, expected numbers")
        return cls(
            game=values["game"],
            protocol=values["protocol"],
            deterministic=values["deterministic"],
            seed=values["seed"],
            returns=tuple(map(float, values["returns"])),
            lengths=tuple(values["lengths"]),
        )


def write_scores(path: Path, scores: Scores) -> None:
    """Put scores into a scores file, in place of earlier ones of the same protocol and way of
    choosing actions; the others stay.

    Raises:
        UserError: the file is there and not a scores file.
    """
    entries = (read_scores(path) if path.exists() else {}) | {scores.key: scores}
    data = {key: entries[key].to_dict() for key in sorted(entries)}
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def read_scores(path: Path) -> dict[str, Scores]:
    """A scores file's entries by `Scores.key`.

    Raises:
        UserError: no such file, or not a scores file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, Mapping):
            raise ValueError(f"got {type(data).__name__}, expected an object")
        return {key: Scores.from_dict(entry) for key, entry in data.items()}
    except FileNotFoundError:
        raise UserError(
            f"there is no {path}; play for it: ncp-agents evaluate {path.parent}"
        ) from None
    except (ValueError, OSError) as error:  # ValueError: bad JSON, bad UTF-8 or a bad entry
        raise UserError(
            f"{path} is not a scores file ({error}); move it away and evaluate again"
        ) from None


def table(*scores: Scores) -> Table:
    """One column for each, for rich to print; 80 characters hold three."""
    result = Table("", *(each.key for each in scores))
    for name, show in (
        ("game", lambda each: each.game),
        ("mean", lambda each: _number(each.mean)),
        ("std", lambda each: _number(each.std)),
        (f"{CONFIDENCE:.0%} interval", _interval),
        ("games", lambda each: str(len(each.returns))),
        ("mean length", lambda each: _duration(each.mean_length)),
        ("human-normalised", lambda each: _percent(each.human_normalised)),
    ):
        result.add_row(name, *map(show, scores))
    return result


def policies_table() -> Table:
    """The saved policies that `ncp-agents` knows by name, a row for each of their scores.

    Raises:
        UserError: a broken recipe or scores file.
    """
    result = Table("policy", "game", "scored under")
    for column in ("games", "mean", f"{CONFIDENCE:.0%} interval", "human"):
        result.add_column(column, justify="right")
    for name, folder in sorted(zoo().items()):
        game = read_recipe(folder / RECIPE).environment.game
        path = folder / SCORES
        for each in read_scores(path).values() if path.exists() else ():
            result.add_row(
                name,
                game,
                each.key,
                str(len(each.returns)),
                _number(each.mean),
                _interval(each),
                _percent(each.human_normalised),
            )
        if not path.exists():
            trained = (folder / WEIGHTS).exists()
            result.add_row(name, game, "not scored yet" if trained else "not trained yet")
    return result


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"


def _interval(scores: Scores) -> str:
    return " … ".join(map(_number, scores.interval))


def _duration(steps: float) -> str:
    """1204 steps (1:20), minutes and seconds of the game's time."""
    if math.isnan(steps):
        return "–"
    minutes, seconds = divmod(round(steps / STEPS_PER_SECOND), 60)
    return f"{steps:.0f} steps ({minutes}:{seconds:02})"


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1%}"


def _or_none(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
