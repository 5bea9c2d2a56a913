"""`AtariCloningDataset`: windows of recorded games for a `torch.utils.data.DataLoader`."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ncp_agents import registry
from ncp_agents.datasets.cache import Cache
from ncp_agents.datasets.demonstrations import DATASET, Demonstrations
from ncp_agents.datasets.download import Archive, fetch
from ncp_agents.datasets.upstream import UpstreamDemonstrations
from ncp_agents.envs.games import normalise_game
from ncp_agents.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

SHIPPED = Path(__file__).parent / "demos"
VALIDATION = 0.1  # share of the games, at least one
ARCHIVES = {"breakout": Archive("https://people.csail.mit.edu/mlechner/datasets/breakout.zip")}
"""Published demos: the set that the examples of ncps fetch. Its SHA-256 is not published."""

Source = Demonstrations | UpstreamDemonstrations


class AtariCloningDataset(Dataset[tuple[Tensor, Tensor]]):
    """Windows of `sequence_length` steps of recorded games, for behaviour cloning.

    Item i is `(obs, actions)`: obs (T, C, H, W) float32 from 0 to 1, what the player saw, and
    actions (T,) int64, what it did then. No window crosses the end of a game; a game's last window
    ends with it, so it may overlap the one before. Games shorter than a window are left out.

    Args:
        env_name: game in any spelling. Without `root_dir`, the games that come with the package
            are taken: Pong.
        split: "train" or "val". The split is by whole games, and depends on nothing but them.
        root_dir: a folder of demos (`ncp-agents record` writes such), one that holds
            `<game>/dataset.json`, or one in the layout of ncps, `data_atari_seq/<game>/*.npz`.
        download: where `root_dir` has no demos of the game, fetch them to `<root_dir>/<game>`:
            from the archive given, or with True from that of `ARCHIVES`.
        sequence_length: T, in steps.
        cache_bytes: how much of the unpacked games is kept in memory, in each worker; the rest is
            read again when its turn comes.

    Raises:
        UserError: no demos of this game there; a damaged file, named, when it is read; a split
            without a single window; a download that failed, see `download.fetch`.
        UnknownNameError: an unknown game or split.
    """

    def __init__(
        self,
        env_name: str,
        split: Literal["train", "val"] = "train",
        root_dir: str | Path | None = None,
        sequence_length: int = 32,
        cache_bytes: int = 2**30,
        download: bool | Archive = False,
    ) -> None:
        if sequence_length < 1:
            raise ValueError(f"sequence_length is {sequence_length}, expected >= 1; usual is 32")
        self.game = normalise_game(env_name)
        self.split: str = registry.get("split", split, ("train", "val"))
        self.sequence_length = sequence_length
        self.source = find_demonstrations(self.game, root_dir, download)
        self.episodes = tuple(
            index
            for index in self.source.split(self.split, VALIDATION)
            if self.source.entries[index].steps >= sequence_length
        )
        windows = [
            -(-self.source.entries[index].steps // sequence_length) for index in self.episodes
        ]
        self._ends = [*accumulate(windows)]
        if not windows:
            raise UserError(
                f"{self.source.path} has no window of {sequence_length} steps for split {split!r}, "
                f"only {len(self.source.entries)} games; record more, or ask for shorter windows"
            )
        self.cache = Cache(self.source, cache_bytes)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        frames, actions = self._window(index)
        obs = torch.from_numpy(np.moveaxis(frames, -1, 1).astype(np.float32) / 255)
        return obs, torch.from_numpy(actions.copy())

    def as_tf_dataset(self, shuffle: bool = False, seed: int | None = None) -> tf.data.Dataset:
        """The same windows for TensorFlow, whose images have their channels last.

        An element is `(obs, actions)`: obs (T, H, W, C) float32 from 0 to 1, actions (T,) int64.
        Batch them as usual: `dataset.as_tf_dataset(shuffle=True).batch(32)`.

        Args:
            shuffle: whether the windows come in another order in each epoch.
            seed: of those orders; None draws one.

        Raises:
            ImportError: no TensorFlow.
        """
        try:
            import tensorflow as tf
        except ImportError as error:
            raise ImportError(
                "as_tf_dataset needs TensorFlow: pip install 'ncp-agents[tf]'"
            ) from error

        shapes = [values.shape for values in self._window(0)]

        def window(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            types: Any = (tf.uint8, tf.int64)
            frames, actions = tf.numpy_function(self._window, [index], types)
            frames, actions = (
                tf.ensure_shape(values, shape)
                for values, shape in zip((frames, actions), shapes, strict=True)
            )
            return tf.cast(frames, tf.float32) / 255, actions

        order = tf.data.Dataset.range(len(self))
        if shuffle:
            order = order.shuffle(len(self), seed=seed)
        return order.map(window).prefetch(tf.data.AUTOTUNE)

    def _window(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames (T, H, W, C) uint8 and actions (T,) int64."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        index %= len(self)
        place = bisect_right(self._ends, index)
        window = index - (self._ends[place - 1] if place else 0)
        episode = self.cache.read(self.episodes[place])
        start = min(window * self.sequence_length, len(episode) - self.sequence_length)
        steps = slice(start, start + self.sequence_length)
        return episode.obs[steps], episode.actions[steps]


def find_demonstrations(
    game: str, root_dir: str | Path | None, download: bool | Archive = False
) -> Source:
    """The demos of a game, in one of the places that `AtariCloningDataset` names."""
    own_archive = isinstance(download, Archive)
    if root_dir is None:
        if not own_archive and (shipped := _demos_in(SHIPPED, game)):
            return shipped
        if download:
            raise UserError("a download needs a folder for its demos; name one as root_dir")
        raise UserError(
            f"no demos of {game} come with the package; record some (ncp-agents record) and name "
            "their folder as root_dir"
        )
    root = Path(root_dir)
    if download and _demos_in(root, game) is None:
        archive = download if own_archive else ARCHIVES.get(game)
        if archive is None:
            raise UserError(
                f"no archive of demos of {game} is known; record some: ncp-agents record --output "
                f"{root}, or name one: download=Archive(url, sha256)"
            )
        _fetch(archive, root, game)
        if _demos_in(root, game) is None:
            raise UserError(f"{root / game} is there, without demos of {game}; remove it to fetch")
    if demos := _demos_in(root, game):
        return demos
    raise UserError(f"no demos of {game} in {root}; record some: ncp-agents record --output {root}")


def _demos_in(root: Path, game: str) -> Source | None:
    for path in (root, root / game, root / game / game):  # the last: as an archive had it
        if (path / DATASET).is_file():
            demos = Demonstrations(path)
            if demos.provenance.game != game:
                raise UserError(f"{path} holds demos of {demos.provenance.game}, not of {game}")
            return demos
    return UpstreamDemonstrations.find(root, game) or UpstreamDemonstrations.find(root / game, game)


def _fetch(archive: Archive, root: Path, game: str) -> None:
    def check(folder: Path) -> None:
        if _demos_in(folder, game) is None:
            raise UserError(f"{archive.url} holds no demos of {game}; name the archive that does")

    fetch(archive, root / game, check)
