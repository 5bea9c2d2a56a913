"""Games kept in memory: decoded once while there is room, the longest unused go first."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ncp_agents.datasets.cache import Cache
from ncp_agents.datasets.episode_file import Episode


class Counted:
    """Four games of 100 bytes, and which were decoded."""

    entries = ()

    def __init__(self) -> None:
        self.reads: list[int] = []

    def read(self, index: int) -> Episode:
        self.reads.append(index)
        obs = np.full((1, 10, 10, 1), index, np.uint8)
        return Episode(obs, np.zeros(1, np.int64), np.zeros(1, np.float32), True, False)


def test_what_fits_is_decoded_once():
    source = Counted()
    cache = Cache(source, most_bytes=400)
    for index in (0, 1, 2, 3, 0, 1, 2, 3):
        assert cache.read(index).obs[0, 0, 0, 0] == index
    assert source.reads == [0, 1, 2, 3]


def test_the_longest_unused_goes_first():
    source = Counted()
    cache = Cache(source, most_bytes=200)
    for index in (0, 1, 0, 2, 0, 1):  # 2 takes the place of 1
        cache.read(index)
    assert source.reads == [0, 1, 2, 1]


def test_the_last_one_stays_whatever_its_size():
    source = Counted()
    cache = Cache(source, most_bytes=1)
    for index in (0, 0, 1, 0):
        cache.read(index)
    assert source.reads == [0, 1, 0]


def test_another_process_gets_an_empty_one(tmp_path: Path):
    cache = Cache(Counted(), most_bytes=400)
    cache.read(0)
    other = pickle.loads(pickle.dumps(cache))
    assert len(pickle.dumps(other)) < 500
    other.read(0)
    assert other.source.reads == [0, 0]
    assert other.most_bytes == 400


def test_threads_share_it():
    cache = Cache(Counted(), most_bytes=200)
    order = np.random.default_rng(0).integers(4, size=2000)
    with ThreadPoolExecutor(8) as pool:
        for index, game in zip(order, pool.map(cache.read, order), strict=True):
            assert game.obs[0, 0, 0, 0] == index
    assert cache._bytes == sum(game.obs.nbytes for game in cache._games.values()) == 200
