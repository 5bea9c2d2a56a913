"""Demonstrations of ncps: `data_atari_seq/<game>/{train,val}_*.npz`, one file a short sequence.

Their arrays are obs (T, H, W, C) uint8 and actions (T,). Nothing says whether two files are of one
episode, so each counts as one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from ncp_agents.datasets.episode_file import Episode, check_actions, load_arrays
from ncp_agents.envs.games import action_meanings, games
from ncp_agents.errors import UserError

LAYOUT = "data_atari_seq"
MAX_BYTES = 2**30  # of a sequence's arrays


@dataclass(frozen=True)
class SequenceFile:
    """One file, and its number of steps."""

    path: Path
    steps: int


class UpstreamDemonstrations:
    """Sequences in the layout of ncps, read like `Demonstrations`.

    Raises:
        UserError: a damaged file.
    """

    def __init__(self, path: Path, game: str) -> None:
        self.path, self.game, self.entries = path, game, []
        for file in sorted([*path.glob("train_*.npz"), *path.glob("val_*.npz")]):
            with _naming(file):
                actions = load_arrays(file.read_bytes(), ("actions",), MAX_BYTES)["actions"]
            self.entries.append(SequenceFile(file, actions.size))

    @classmethod
    def find(cls, root: Path, game: str) -> Self | None:
        """Return those of a game in `root`, its `data_atari_seq`, or a folder of the game in there.

        None if there are none. The folder's name may be capitalised.
        """
        of_another = root.name.lower() in games() and root.name.lower() != game
        for folder in (root / LAYOUT,) if of_another else (root, root / LAYOUT):
            for path in (folder, folder / game, folder / game.capitalize()):
                if next(path.glob("train_*.npz"), None):
                    return cls(path, game)
        return None

    def split(self, name: str, fraction: float) -> list[int]:
        """Return the indices of a split, "train" or "val", as the files' names have it."""
        return [i for i, each in enumerate(self.entries) if each.path.name.startswith(f"{name}_")]

    def read(self, index: int) -> Episode:
        """Return one sequence, with rewards of 0.

        Raises:
            UserError: a damaged file.
        """
        path = self.entries[index].path
        with _naming(path):
            arrays = load_arrays(path.read_bytes(), ("obs", "actions"), MAX_BYTES)
            actions = arrays["actions"].astype(np.int64, casting="safe")
            check_actions(actions, len(action_meanings(self.game)))
            rewards = np.zeros(actions.shape, np.float32)
            return Episode(arrays["obs"], actions, rewards, terminated=False, truncated=False)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name a damaged file in a UserError."""
    try:
        yield
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {error}; remove this sequence") from None
