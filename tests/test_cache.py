"""Episodes in memory: decoded once while there is room, the least recently used leave first."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ncp_agents.datasets.cache import Cache
from ncp_agents.datasets.episode_file import Episode


class CountingSource:
    """Four episodes of 100 bytes, and the indices of those that were decoded."""

    entries = ()

    def __init__(self) -> None:
        self.reads: list[int] = []

    def read(self, index: int) -> Episode:
        self.reads.append(index)
        obs = np.full((1, 10, 10, 1), index, np.uint8)
        return Episode(obs, np.zeros(1, np.int64), np.zeros(1, np.float32), True, False)


@pytest.mark.parametrize(
    ("max_bytes", "reads", "decoded"),
    [
        (400, [0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 2, 3]),
        (200, [0, 1, 0, 2, 0, 1], [0, 1, 2, 1]),  # 2 takes the place of 1
        (1, [0, 0, 1, 0], [0, 1, 0]),  # the latest stays whatever its size
    ],
)
def test_what_fits_is_decoded_once(max_bytes, reads, decoded):
    source = CountingSource()
    cache = Cache(source, max_bytes)
    for index in reads:
        assert cache.read(index).obs[0, 0, 0, 0] == index
    assert source.reads == decoded


def test_a_copy_in_another_process_starts_empty():
    cache = Cache(CountingSource(), 400)
    cache.read(0)
    other = pickle.loads(pickle.dumps(cache))
    assert len(pickle.dumps(other)) < 500
    other.read(0)
    assert other.source.reads == [0, 0]
    assert other.max_bytes == 400


def test_threads_share_it():
    cache = Cache(CountingSource(), 200)
    order = np.random.default_rng(0).integers(4, size=2000)
    with ThreadPoolExecutor(8) as pool:
        for index, episode in zip(order, pool.map(cache.read, order), strict=True):
            assert episode.obs[0, 0, 0, 0] == index
