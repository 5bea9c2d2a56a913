"""The layout of ncps's demos: `data_atari_seq/<game>/{train,val}_*.npz`, one file a short sequence.

Their arrays are obs (T, H, W, C) uint8 and actions (T,); nothing says whether two files are of one
game, so each counts as one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from ncp_agents.datasets.demonstrations import Entry
from ncp_agents.datasets.episode_file import Episode, check_actions, read_steps, unpack
from ncp_agents.envs.games import action_meanings, games
from ncp_agents.errors import UserError

LAYOUT = "data_atari_seq"


class UpstreamDemonstrations:
    """Sequences in ncps's layout, to be read like `Demonstrations`.

    Raises:
        UserError: a file that is damaged or of another kind.
    """

    def __init__(self, path: Path, game: str) -> None:
        self.path = path
        self.actions = len(action_meanings(game))
        files = sorted([*path.glob("train_*.npz"), *path.glob("val_*.npz")])
        self.entries = [Entry(file.name, "", self._steps(file), 0.0) for file in files]

    @classmethod
    def find(cls, root: Path, game: str) -> Self | None:
        """Those of a game in `root`, its `data_atari_seq`, or folders in there that spell the
        game with or without capitals; None if there are none.
        """
        names_another = root.name.lower() in games() and root.name.lower() != game
        for folder in (root / LAYOUT,) if names_another else (root, root / LAYOUT):
            for path in (folder, *(folder / name for name in (game, game.capitalize()))):
                if next(path.glob("train_*.npz"), None):
                    return cls(path, game)
        return None

    def split(self, name: str, share: float) -> list[int]:
        """The files that say so in their names."""
        return [i for i, entry in enumerate(self.entries) if entry.file.startswith(f"{name}_")]

    def read(self, index: int) -> Episode:
        path = self.path / self.entries[index].file
        try:
            episode = unpack(path.read_bytes(), self.entries[index].steps, scored=False)
            check_actions(episode.actions, self.actions)
            return episode
        except (ValueError, OSError) as error:
            raise UserError(f"{path} is not a sequence of demos: {error}; remove it") from None

    @staticmethod
    def _steps(path: Path) -> int:
        try:
            return read_steps(path)
        except ValueError as error:
            raise UserError(f"{path} is not a sequence of demos: {error}; remove it") from None
