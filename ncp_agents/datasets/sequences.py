"""Demos as a stream of batches for recurrent policies: whole games, a piece at a time.

Axes: B games side by side, L steps of a piece, C, H, W image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ncp_agents.datasets.episodes import Demos, Episode


class Piece(NamedTuple):
    """L steps of B streams of games; the state is carried on from the piece before."""

    obs: np.ndarray
    """(B, L, C, H, W) uint8"""
    actions: np.ndarray
    """(B, L) int64"""
    resets: np.ndarray
    """(B, L) bool: a game starts with this step."""
    counts: np.ndarray
    """(B, L) bool: False where a stream has ended."""


class Games(NamedTuple):
    """Some games of a demos folder."""

    demos: Demos
    indices: Sequence[int]


def pieces(
    games: Sequence[Games], streams: int, length: int, random: np.random.Generator | None = None
) -> Iterator[Piece]:
    """All games once, each step in one piece.

    The games, shuffled by `random` if there is one, follow one another in a single row of steps,
    which is cut into equal streams. So games of any length fill every batch; the price is that the
    game in which a stream begins may begin there without its past. In memory are the games that
    the streams are at, and two pieces.
    """
    order = [(source.demos, index) for source in games for index in source.indices]
    if random is not None:
        order = [order[i] for i in random.permutation(len(order))]
    steps = [demos.entries[index].steps for demos, index in order]
    starts = np.cumsum([0, *steps])
    total = int(starts[-1])
    streams = min(streams, total)
    bounds = [total * i // streams for i in range(streams + 1)]
    readers = [_Reader(order, starts, begin, end) for begin, end in pairwise(bounds)]
    longest = max(reader.end - reader.at for reader in readers)
    with ThreadPoolExecutor(1) as ahead:  # the next piece is read while this one is learnt from
        following = ahead.submit(_piece, readers, length)
        for _ in range(-(-longest // length)):
            piece = following.result()
            following = ahead.submit(_piece, readers, length)
            yield piece


class _Reader:
    """One stream: steps [at, end) of the row of all games."""

    def __init__(
        self, order: list[tuple[Demos, int]], starts: np.ndarray, begin: int, end: int
    ) -> None:
        self.order, self.starts, self.at, self.end = order, starts, begin, end
        self.number = -1
        self.episode: Episode | None = None

    def read(self, length: int) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
        """Parts of obs and actions, of `length` steps together at most, and where games start."""
        obs, actions, games = [], [], []
        done = 0
        while done < length and self.at < self.end:
            number = int(np.searchsorted(self.starts, self.at, "right")) - 1
            if number != self.number:
                demos, index = self.order[number]
                self.number, self.episode = number, demos.read(index)
            assert self.episode is not None
            first = self.at - int(self.starts[number])
            last = min(first + length - done, len(self.episode), first + self.end - self.at)
            obs.append(self.episode.obs[first:last])
            actions.append(self.episode.actions[first:last])
            if first == 0:
                games.append(done)
            done += last - first
            self.at += last - first
        return obs, actions, games


def _piece(readers: list[_Reader], length: int) -> Piece:
    resets = np.zeros((len(readers), length), bool)
    counts = np.zeros((len(readers), length), bool)
    actions = np.zeros((len(readers), length), np.int64)
    frames: np.ndarray | None = None
    for row, reader in enumerate(readers):
        parts, played, games = reader.read(length)
        if not parts:
            continue
        whole = np.moveaxis(np.concatenate(parts), -1, 1)
        if frames is None:
            frames = np.zeros((len(readers), length, *whole.shape[1:]), np.uint8)
        frames[row, : len(whole)] = whole
        actions[row, : len(whole)] = np.concatenate(played)
        counts[row, : len(whole)] = True
        resets[row, games] = True
    if frames is None:  # past the end of all streams
        frames = np.zeros((len(readers), length, 0, 0, 0), np.uint8)
    return Piece(frames, actions, resets, counts)
