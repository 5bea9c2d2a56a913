"""One game, and its file: a compressed `.npz` of what was seen, done and won at each step.

Nothing in such a file can run code, and what it unpacks to is limited before it is read.

Axes: T steps, H, W, C image.
"""

from __future__ import annotations

import dataclasses
import io
import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

MAX_STEP_BYTES = 4 * 250 * 160 * 3  # four of the largest screens in colour
NO_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(RuntimeError, NotImplementedError),  # encrypted; compressed in a way that zipfile cannot read
)


@dataclass(frozen=True)
class Episode:
    """One game as the player saw it: what was on the screen, what was done, what came of it."""

    obs: np.ndarray
    """(T, H, W, C) uint8: what the player saw before each action."""
    actions: np.ndarray
    """(T,) int64, action indices."""
    rewards: np.ndarray
    """(T,) float32, unclipped."""
    terminated: bool
    truncated: bool
    resets: np.ndarray = None  # type: ignore[assignment]
    """(T,) bool: before this step the player forgets, as the game starts or, where the protocol
    reports lost lives, a life. Unless given, at the first step only."""

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
            raise ValueError("resets leave out the first step, where the game starts")

    def __len__(self) -> int:
        return len(self.actions)


ARRAYS = tuple(field.name for field in dataclasses.fields(Episode))


def pack(episode: Episode) -> bytes:
    """The bytes of an episode's file: an .npz, deflated."""
    file = io.BytesIO()
    np.savez_compressed(file, **{name: getattr(episode, name) for name in ARRAYS})
    return file.getvalue()


def unpack(
    data: bytes,
    most_steps: int | None = None,
    scored: bool = True,
    step_bytes: int = MAX_STEP_BYTES,
) -> Episode:
    """An episode from the bytes of its file.

    Args:
        most_steps: more than these are refused before they are unpacked.
        scored: without it only obs and actions are there; the rewards become zeros.
        step_bytes: more than these a step are refused, too.

    Raises:
        ValueError: bytes that are no episode, or that unpack to more than their headers say.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = ARRAYS if scored else ("obs", "actions")
            if scored and "resets.npy" not in archive.namelist():  # older demos
                names = names[:-1]
            arrays = _arrays(archive, names, most_steps, step_bytes)
    except NO_ARCHIVE as error:
        raise ValueError(f"no archive of arrays ({error})") from None
    if not np.can_cast(arrays["actions"].dtype, np.int64):
        raise ValueError(f"actions are {arrays['actions'].dtype}, expected integers")
    rewards = arrays.get("rewards", np.zeros(arrays["actions"].size, np.float32))
    return Episode(
        obs=arrays["obs"],
        actions=arrays["actions"].astype(np.int64, copy=False),
        rewards=rewards,
        terminated=bool(arrays.get("terminated", False)),
        truncated=bool(arrays.get("truncated", False)),
        resets=arrays.get("resets"),  # type: ignore[arg-type]
    )


def read_steps(path: Path) -> int:
    """The number of steps in an episode's file, from the header of its actions.

    Raises:
        ValueError: a file that is no episode.
    """
    try:
        with zipfile.ZipFile(path) as archive, _member(archive, "actions") as file:
            shape, _ = _header(file)
    except NO_ARCHIVE as error:
        raise ValueError(f"no archive of arrays ({error})") from None
    return shape[0] if shape else 0


def _arrays(
    archive: zipfile.ZipFile, names: Sequence[str], most_steps: int | None, step_bytes: int
) -> dict[str, np.ndarray]:
    arrays = {}
    for name in names:
        with _member(archive, name) as file:
            shape, dtype = _header(file)
            if dtype.hasobject:
                raise ValueError(f"{name} holds Python objects")
            if min(shape, default=0) < 0:
                raise ValueError(f"{name} has shape {shape}")
            if most_steps is not None and shape and shape[0] > most_steps:
                raise ValueError(f"{name} has {shape[0]} steps, expected {most_steps}")
            size = math.prod(shape) * dtype.itemsize
            if size > max(step_bytes, 8) * max(shape[:1], default=1):
                raise ValueError(f"{name} has {size} bytes, too many for {shape[:1]} steps")
            data = file.read(size)  # no more, whatever else the archive holds
            if len(data) < size:
                raise ValueError(f"{name} is cut short")
            arrays[name] = np.frombuffer(data, dtype).reshape(shape)
    return arrays


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    try:
        return archive.open(f"{name}.npy")
    except KeyError:
        there = ", ".join(archive.namelist()) or "nothing"
        raise ValueError(f"it has no {name}, only {there}") from None


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    old = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    try:
        shape, fortran, dtype = read(file)
    except tokenize.TokenError as error:
        raise ValueError(f"a header of its arrays is damaged ({error})") from None
    if fortran:
        raise ValueError("its arrays are in Fortran's order")
    return shape, dtype


def check_actions(actions: np.ndarray, known: int) -> None:
    """Raises ValueError where there are others than 0 … known - 1."""
    if not 0 <= actions.min(initial=0) <= actions.max(initial=0) < known:
        raise ValueError(f"actions are {sorted({*actions.tolist()})}, expected 0 to {known - 1}")
