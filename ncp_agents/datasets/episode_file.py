"""One recorded episode, and its file: a compressed `.npz`.

Nothing in such a file can run code. Axes: T steps, H, W, C image.
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Episode:
    """The observations, actions and rewards of one episode.

    Raises:
        ValueError: an array of another type or length.
    """

    obs: np.ndarray
    """(T, H, W, C) uint8: the observation before each action."""
    actions: np.ndarray
    """(T,) int64, action indices."""
    rewards: np.ndarray
    """(T,) float32, unclipped."""
    terminated: bool
    truncated: bool
    resets: np.ndarray = None  # type: ignore[assignment]
    """(T,) bool: the state is cleared before this step, as the episode starts or, where the
    protocol reports lost lives, a life. By default at the first step only."""

    def __post_init__(self) -> None:
        steps = len(self.obs) if self.obs.ndim else 0
        if self.resets is None:
            object.__setattr__(self, "resets", np.arange(steps) == 0)
        for name, dimensions, dtype in (
            ("obs", 4, np.uint8),
            ("actions", 1, np.int64),
            ("rewards", 1, np.float32),
            ("resets", 1, np.bool_),
        ):
            array: np.ndarray = getattr(self, name)
            if array.ndim != dimensions or array.dtype != dtype or len(array) != steps:
                raise ValueError(
                    f"{name} is {array.dtype} of shape {array.shape}, expected "
                    f"{np.dtype(dtype)} of {dimensions} dimensions and {steps} steps"
                )
        if not self.resets[:1].all():
            raise ValueError("resets is False at the first step, expected True")

    def __len__(self) -> int:
        return len(self.actions)


ARRAYS = tuple(field.name for field in dataclasses.fields(Episode))


def encode_episode(episode: Episode) -> bytes:
    """Return the bytes of an episode's file."""
    file = io.BytesIO()
    np.savez_compressed(file, **{name: getattr(episode, name) for name in ARRAYS})
    return file.getvalue()


def decode_episode(data: bytes, max_bytes: int) -> Episode:
    """Return the episode in the bytes of its file.

    Args:
        data: the bytes.
        max_bytes: a file whose arrays are larger is refused before they are decompressed.

    Raises:
        ValueError: bytes that are no episode.
    """
    arrays: dict[str, Any] = load_arrays(data, ARRAYS, max_bytes)
    arrays |= {name: bool(arrays[name]) for name in ("terminated", "truncated")}
    return Episode(**arrays)


def load_arrays(data: bytes, names: tuple[str, ...], max_bytes: int) -> dict[str, np.ndarray]:
    """Return some arrays of an `.npz` file's bytes, without `resets` where it has none.

    Raises:
        ValueError: a file that is damaged, lacks an array or holds more than `max_bytes`.
    """
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise ValueError("not an .npz file")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            size = sum(member.file_size for member in arrays.zip.infolist())
            if size > max_bytes:
                raise ValueError(f"{size:,} bytes of arrays, expected at most {max_bytes:,}")
            # Demonstrations of earlier versions have no resets.
            return {name: arrays[name] for name in names if name in arrays or name != "resets"}
    except Exception as error:  # NumPy, zipfile and zlib raise a dozen kinds for damaged files
        raise ValueError(f"damaged: {error}") from None


def check_actions(actions: np.ndarray, count: int) -> None:
    """Check that action indices are within 0 … count - 1.

    Raises:
        ValueError: others.
    """
    if not 0 <= actions.min(initial=0) <= actions.max(initial=0) < count:
        raise ValueError(f"actions are {sorted({*actions.tolist()})}, expected 0 to {count - 1}")
