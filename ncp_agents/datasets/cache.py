"""Episodes in memory: decoded once, kept while there is room."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from threading import Lock
from typing import Any, Protocol

from cachetools import LRUCache, cachedmethod

from ncp_agents.datasets.episode_file import Episode


class Recorded(Protocol):
    """What is known of an episode before it is decoded."""

    @property
    def steps(self) -> int:
        """T."""
        ...


class Source(Protocol):
    """What episodes are read from: `Demonstrations`, `UpstreamDemonstrations` or a `Cache`."""

    @property
    def entries(self) -> Sequence[Recorded]:
        """One for each episode, by its index."""
        ...

    def read(self, index: int) -> Episode:
        """Return one episode."""
        ...


class Cache:
    """A source whose most recently used episodes stay in memory.

    Threads may share it. A copy in another process starts empty.

    Args:
        source: what episodes are read from.
        max_bytes: of the observations in memory; the latest episode stays whatever its size.
    """

    def __init__(self, source: Source, max_bytes: int = 2**30) -> None:
        self.source, self.max_bytes = source, max_bytes
        self._episodes: LRUCache[int, Episode] = LRUCache(
            max_bytes, getsizeof=lambda episode: min(episode.obs.nbytes, max_bytes)
        )
        self._lock = Lock()

    @property
    def entries(self) -> Sequence[Recorded]:
        """Those of the source."""
        return self.source.entries

    @cachedmethod(attrgetter("_episodes"), lock=attrgetter("_lock"))
    def read(self, index: int) -> Episode:
        """Return one episode, whose arrays are shared: do not change them."""
        return self.source.read(index)

    def __reduce__(self) -> tuple[Any, ...]:
        return Cache, (self.source, self.max_bytes)
