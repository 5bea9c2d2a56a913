"""`AtariCloningDataset`: windows of recorded episodes for a `torch.utils.data.DataLoader`."""

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
from ncp_agents.validation import check_integer

if TYPE_CHECKING:
    import tensorflow as tf

SHIPPED = Path(__file__).parent / "demos"
VALIDATION = 0.1  # fraction of the episodes, at least one
ARCHIVES = {"breakout": Archive("https://people.csail.mit.edu/mlechner/datasets/breakout.zip")}
"""Published demonstrations: those that the examples of ncps download. No SHA-256 is published."""


class AtariCloningDataset(Dataset[tuple[Tensor, Tensor]]):
    """Windows of `sequence_length` steps of recorded episodes, for behaviour cloning.

    Item i is `(obs, actions)`: obs (T, C, H, W) float32 from 0 to 1 and the actions taken there,
    (T,) int64. No window crosses the end of an episode; an episode's last window ends with it, so
    it may overlap the one before. Episodes shorter than a window are left out.

    Args:
        env_name: game in any spelling. Without `root_dir`, the demonstrations that come with the
            package are read: Pong.
        split: "train" or "val". The split is by whole episodes, and depends on nothing but them.
        root_dir: a folder of demonstrations (`ncp-agents record` writes such), one that holds
            `<game>/dataset.json`, or one in the layout of ncps, `data_atari_seq/<game>/*.npz`.
        sequence_length: T, in steps.
        cache_bytes: of decoded episodes that are kept in memory, in each worker; others are
            decoded again when they are needed.
        download: where `root_dir` has no demonstrations of the game, download them to
            `<root_dir>/<game>`: from the archive given, or with True from that of `ARCHIVES`.

    Raises:
        UserError: no demonstrations of this game; a damaged file, named, when it is read; a split
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
        self.sequence_length = check_integer("sequence_length", sequence_length, 1)
        self.game = normalise_game(env_name)
        self.split: str = registry.get("split", split, ("train", "val"))
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
                f"{self.source.path} has no window of {sequence_length} steps for split {split!r} "
                f"in {len(self.source.entries)} episodes; record more, or take shorter windows"
            )
        self.cache = Cache(self.source, cache_bytes)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        frames, actions = self._window(index)
        obs = torch.from_numpy(np.moveaxis(frames, -1, 1).astype(np.float32) / 255)
        return obs, torch.from_numpy(actions.copy())

    def as_tf_dataset(self, shuffle: bool = False, seed: int | None = None) -> tf.data.Dataset:
        """Return the same windows for TensorFlow, whose images have their channels last.

        An element is `(obs, actions)`: obs (T, H, W, C) float32 from 0 to 1, actions (T,) int64.
        Batch them as usual: `dataset.as_tf_dataset(shuffle=True).batch(32)`.

        Args:
            shuffle: whether each epoch has another order.
            seed: of those orders; None samples one.

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
        """Return frames (T, H, W, C) uint8 and actions (T,) int64."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        index %= len(self)
        number = bisect_right(self._ends, index)
        window = index - (self._ends[number - 1] if number else 0)
        episode = self.cache.read(self.episodes[number])
        start = min(window * self.sequence_length, len(episode) - self.sequence_length)
        steps = slice(start, start + self.sequence_length)
        return episode.obs[steps], episode.actions[steps]


def find_demonstrations(
    game: str, root_dir: str | Path | None, download: bool | Archive = False
) -> Demonstrations | UpstreamDemonstrations:
    """Return the demonstrations of a game, see `AtariCloningDataset`."""
    if root_dir is None:
        if isinstance(download, Archive):
            raise UserError("a download needs a folder; name one as root_dir")
        if demos := _demonstrations_in(SHIPPED, game):
            return demos
        raise UserError(
            f"no demos of {game} come with the package; record some (ncp-agents record) or "
            "download some, and name their folder as root_dir"
        )
    root = Path(root_dir)
    if demos := _demonstrations_in(root, game):
        return demos
    if download:
        archive = download if isinstance(download, Archive) else ARCHIVES.get(game)
        if archive is None:
            raise UserError(
                f"no archive of demos of {game} is known; record some: ncp-agents record --output "
                f"{root}, or name one: download=Archive(url, sha256)"
            )
        fetch(archive, root / game, lambda folder: _require(folder, game, archive.url))
        return _require(root, game, f"{root / game}")
    raise UserError(f"no demos of {game} in {root}; record some: ncp-agents record --output {root}")


def _require(folder: Path, game: str, name: str) -> Demonstrations | UpstreamDemonstrations:
    if demos := _demonstrations_in(folder, game):
        return demos
    raise UserError(f"{name} holds no demos of {game}; name another, or remove the folder")


def _demonstrations_in(root: Path, game: str) -> Demonstrations | UpstreamDemonstrations | None:
    for path in (root, root / game, root / game / game):  # the last: as an archive had it
        if (path / DATASET).is_file():
            demos = Demonstrations(path)
            if demos.provenance.game != game:
                raise UserError(f"{path} holds demos of {demos.provenance.game}, not of {game}")
            return demos
    return UpstreamDemonstrations.find(root, game) or UpstreamDemonstrations.find(root / game, game)
