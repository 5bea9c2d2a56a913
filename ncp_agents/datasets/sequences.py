"""Batches for truncated back-propagation through time: whole episodes, a chunk at a time.

Axes: B streams, T steps of a chunk, C, H, W image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.signal import lfilter

from ncp_agents.datasets.cache import Source
from ncp_agents.datasets.episode_file import Episode


class Chunk(NamedTuple):
    """T steps of B streams, which continue those of the previous chunk."""

    obs: np.ndarray
    """(B, T, C, H, W) uint8"""
    actions: np.ndarray
    """(B, T) int64"""
    returns: np.ndarray
    """(B, T) float32: discounted sums of the rewards' signs, from each step to the next reset."""
    resets: np.ndarray
    """(B, T) bool: an episode starts with this step, or a life, see `Episode.resets`."""
    mask: np.ndarray
    """(B, T) bool: False where a stream has ended."""


class EpisodeSubset(NamedTuple):
    """Some episodes of a source, such as a `Cache` of demonstrations."""

    demos: Source
    indices: Sequence[int]


def discounted_returns(rewards: np.ndarray, resets: np.ndarray, gamma: float) -> np.ndarray:
    """Return the targets of PPO's critic.

    Args:
        rewards: (T,), of which the signs count.
        resets: (T,) bool, where an episode or a life starts.
        gamma: the discount a step.

    Returns:
        (T,) float32, the discounted sums up to the step before the next reset.
    """
    lives = np.split(np.sign(rewards).astype(float), np.flatnonzero(resets)[1:])
    backward = (np.asarray(lfilter([1.0], [1.0, -gamma], life[::-1])) for life in lives)
    return np.concatenate([returns[::-1] for returns in backward]).astype(np.float32)


def chunks(
    subsets: Sequence[EpisodeSubset],
    streams: int,
    length: int,
    gamma: float,
    random: np.random.Generator | None = None,
) -> Iterator[Chunk]:
    """Yield all episodes once, each step in one chunk.

    The episodes follow one another in a single row of steps, which is cut into equal streams, so
    that episodes of any length fill every batch. The price: a stream may begin in the middle of an
    episode, without its past. In memory are the episodes that the streams are at, and two chunks.

    Args:
        subsets: the episodes.
        streams: B, or fewer where there are fewer steps.
        length: T.
        gamma: the discount a step, of the returns.
        random: shuffles the episodes; None keeps their order.
    """
    order = [(subset.demos, index) for subset in subsets for index in subset.indices]
    if random is not None:
        order = [order[i] for i in random.permutation(len(order))]
    starts = np.cumsum([0, *(demos.entries[index].steps for demos, index in order)])
    total = int(starts[-1])
    streams = min(streams, total)
    bounds = [total * i // streams for i in range(streams + 1)]
    readers = [_Stream(order, starts, begin, end, gamma) for begin, end in pairwise(bounds)]
    longest = max(reader.end - reader.position for reader in readers)
    with ThreadPoolExecutor(1) as ahead:  # reads the next chunk while this one is used
        following = ahead.submit(_read_chunk, readers, length)
        for _ in range(-(-longest // length)):
            chunk = following.result()
            following = ahead.submit(_read_chunk, readers, length)
            yield chunk


class _Stream:
    """One stream: steps [position, end) of the row of all episodes."""

    def __init__(
        self,
        order: list[tuple[Source, int]],
        starts: np.ndarray,
        begin: int,
        end: int,
        gamma: float,
    ) -> None:
        self.gamma = gamma
        self.order, self.starts, self.position, self.end = order, starts, begin, end
        self.number = -1
        self.episode: Episode | None = None
        self.returns = np.empty(0, np.float32)

    def read(self, length: int) -> list[tuple[np.ndarray, ...]]:
        """Return parts of obs, actions, returns and resets, of at most `length` steps together."""
        parts = []
        done = 0
        while done < length and self.position < self.end:
            number = int(np.searchsorted(self.starts, self.position, "right")) - 1
            if number != self.number:
                demos, index = self.order[number]
                self.number, self.episode = number, demos.read(index)
                self.returns = discounted_returns(
                    self.episode.rewards, self.episode.resets, self.gamma
                )
            episode = self.episode
            assert episode is not None
            first = self.position - int(self.starts[number])
            last = min(first + length - done, len(episode), first + self.end - self.position)
            steps = slice(first, last)
            parts.append(
                (
                    episode.obs[steps],
                    episode.actions[steps],
                    self.returns[steps],
                    episode.resets[steps],
                )
            )
            done += last - first
            self.position += last - first
        return parts


def _read_chunk(readers: list[_Stream], length: int) -> Chunk:
    shape = (len(readers), length)
    actions, returns = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    resets, mask = np.zeros(shape, bool), np.zeros(shape, bool)
    obs = np.zeros((*shape, 0, 0, 0), np.uint8)  # past the end of all streams
    for row, reader in enumerate(readers):
        parts = reader.read(length)
        if not parts:
            continue
        frames, *columns = (np.concatenate(kind) for kind in zip(*parts, strict=True))
        images = np.moveaxis(frames, -1, 1)
        if not obs.size:
            obs = np.zeros((*shape, *images.shape[1:]), np.uint8)
        steps = slice(len(images))
        obs[row, steps] = images
        for target, column in zip((actions, returns, resets), columns, strict=True):
            target[row, steps] = column
        mask[row, steps] = True
    return Chunk(obs, actions, returns, resets, mask)
