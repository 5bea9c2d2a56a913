"""Demonstrations as a stream of batches for recurrent policies: whole games, a chunk at a time.

Axes: B games side by side, T steps of a chunk, C, H, W image.
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
    """T steps of B streams of games; the state is carried on from the chunk before."""

    obs: np.ndarray
    """(B, T, C, H, W) uint8"""
    actions: np.ndarray
    """(B, T) int64"""
    returns: np.ndarray
    """(B, T) float32: the discounted rewards, as -1, 0 or 1, from each step to the next reset."""
    resets: np.ndarray
    """(B, T) bool: a game starts with this step, or a life, see `Episode.resets`."""
    counts: np.ndarray
    """(B, T) bool: False where a stream has ended."""


class Games(NamedTuple):
    """Some games of a folder of demos, or of a `Cache` of one."""

    demos: Source
    indices: Sequence[int]


def discounted_returns(rewards: np.ndarray, resets: np.ndarray, gamma: float) -> np.ndarray:
    """rewards (T,), resets (T,) bool → what PPO's critic learns: the discounted sums (T,) of the
    rewards' signs, each to the step before the next reset.
    """
    lives = np.split(np.sign(rewards).astype(float), np.flatnonzero(resets)[1:])
    backward = (np.asarray(lfilter([1.0], [1.0, -gamma], life[::-1])) for life in lives)
    return np.concatenate([returns[::-1] for returns in backward]).astype(np.float32)


def chunks(
    games: Sequence[Games],
    streams: int,
    length: int,
    gamma: float,
    random: np.random.Generator | None = None,
) -> Iterator[Chunk]:
    """All games once, each step in one chunk.

    The games, shuffled by `random` if there is one, follow one another in a single row of steps,
    which is cut into equal streams. So games of any length fill every batch; the price is that the
    game in which a stream begins may begin there without its past. In memory are the games that
    the streams are at, and two chunks.
    """
    order = [(source.demos, index) for source in games for index in source.indices]
    if random is not None:
        order = [order[i] for i in random.permutation(len(order))]
    steps = [demos.entries[index].steps for demos, index in order]
    starts = np.cumsum([0, *steps])
    total = int(starts[-1])
    streams = min(streams, total)
    bounds = [total * i // streams for i in range(streams + 1)]
    readers = [_Reader(order, starts, begin, end, gamma) for begin, end in pairwise(bounds)]
    longest = max(reader.end - reader.at for reader in readers)
    with ThreadPoolExecutor(1) as ahead:  # the next chunk is read while this one is learnt from
        following = ahead.submit(_piece, readers, length)
        for _ in range(-(-longest // length)):
            chunk = following.result()
            following = ahead.submit(_piece, readers, length)
            yield chunk


class _Reader:
    """One stream: steps [at, end) of the row of all games."""

    def __init__(
        self,
        order: list[tuple[Source, int]],
        starts: np.ndarray,
        begin: int,
        end: int,
        gamma: float,
    ) -> None:
        self.gamma = gamma
        self.order, self.starts, self.at, self.end = order, starts, begin, end
        self.number = -1
        self.episode: Episode | None = None
        self.returns = np.empty(0, np.float32)

    def read(self, length: int) -> list[tuple[np.ndarray, ...]]:
        """Parts of obs, actions, returns and resets, of `length` steps together at most."""
        parts = []
        done = 0
        while done < length and self.at < self.end:
            number = int(np.searchsorted(self.starts, self.at, "right")) - 1
            if number != self.number:
                demos, index = self.order[number]
                self.number, self.episode = number, demos.read(index)
                self.returns = discounted_returns(
                    self.episode.rewards, self.episode.resets, self.gamma
                )
            assert self.episode is not None
            first = self.at - int(self.starts[number])
            last = min(first + length - done, len(self.episode), first + self.end - self.at)
            steps = slice(first, last)
            game = self.episode
            parts.append(
                (game.obs[steps], game.actions[steps], self.returns[steps], game.resets[steps])
            )
            done += last - first
            self.at += last - first
        return parts


def _piece(readers: list[_Reader], length: int) -> Chunk:
    resets = np.zeros((len(readers), length), bool)
    counts = np.zeros((len(readers), length), bool)
    actions = np.zeros((len(readers), length), np.int64)
    returns = np.zeros((len(readers), length), np.float32)
    frames: np.ndarray | None = None
    for row, reader in enumerate(readers):
        parts = reader.read(length)
        if not parts:
            continue
        obs, played, returned, began = (np.concatenate(kind) for kind in zip(*parts, strict=True))
        whole = np.moveaxis(obs, -1, 1)
        if frames is None:
            frames = np.zeros((len(readers), length, *whole.shape[1:]), np.uint8)
        frames[row, : len(whole)] = whole
        actions[row, : len(whole)] = played
        returns[row, : len(whole)] = returned
        resets[row, : len(whole)] = began
        counts[row, : len(whole)] = True
    if frames is None:  # past the end of all streams
        frames = np.zeros((len(readers), length, 0, 0, 0), np.uint8)
    return Chunk(frames, actions, returns, resets, counts)
