"""Games in memory: decoded once, kept while there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any, Protocol

from ncp_agents.datasets.demonstrations import Entry
from ncp_agents.datasets.episode_file import Episode


class Source(Protocol):
    """What games are read from: `Demonstrations`, `UpstreamDemonstrations` or a `Cache` of them."""

    @property
    def entries(self) -> Sequence[Entry]: ...

    def read(self, index: int) -> Episode: ...


class Cache:
    """A source whose latest games stay in memory, up to `most_bytes` but at least one.

    Threads may share it. Another process that gets it fills its own.
    """

    def __init__(self, source: Source, most_bytes: int = 2**30) -> None:
        self.source, self.most_bytes = source, most_bytes
        self._games: OrderedDict[int, Episode] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @property
    def entries(self) -> Sequence[Entry]:
        return self.source.entries

    def read(self, index: int) -> Episode:
        """One game, to be looked at only: others get the same arrays."""
        with self._lock:
            if index in self._games:
                self._games.move_to_end(index)
                return self._games[index]
        game = self.source.read(index)  # two threads may both do so, which costs time only
        with self._lock:
            if index not in self._games:
                self._games[index] = game
                self._bytes += game.obs.nbytes
            while len(self._games) > 1 and self._bytes > self.most_bytes:
                self._bytes -= self._games.popitem(last=False)[1].obs.nbytes
        return game

    def __getstate__(self) -> dict[str, Any]:
        return {"source": self.source, "most_bytes": self.most_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)
