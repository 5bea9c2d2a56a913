"""Datasets that fetch their demos first, from a server on this machine."""

import io

import numpy as np
import pytest
from archive_server import zipped

from ncp_agents.datasets import AtariCloningDataset, atari_cloning
from ncp_agents.datasets.atari_cloning import SHIPPED
from ncp_agents.errors import UserError


@pytest.fixture
def pong() -> bytes:
    return zipped({f"pong/{path.name}": path.read_bytes() for path in (SHIPPED / "pong").iterdir()})


def test_a_dataset_fetches_into_its_root(server, tmp_path, monkeypatch, pong):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    server.data, root = pong, tmp_path / "root"
    dataset = AtariCloningDataset("Pong", root_dir=root, download=server.archive)
    shipped = AtariCloningDataset("Pong")
    assert len(dataset) == len(shipped)
    assert (dataset[5][0] == shipped[5][0]).all()
    assert not list(elsewhere.iterdir())
    AtariCloningDataset("Pong", "val", root_dir=root, download=server.archive)
    AtariCloningDataset("Pong", "val", root_dir=root)
    assert len(server.requests) == 1
    (tmp_path / "other" / "pong").mkdir(parents=True)
    with pytest.raises(UserError, match=r"is there, without demos of pong; remove it"):
        AtariCloningDataset("Pong", root_dir=tmp_path / "other", download=server.archive)


def test_a_dataset_fetches_the_layout_of_ncps(server, tmp_path, monkeypatch):
    file = io.BytesIO()
    obs = np.random.default_rng(0).integers(0, 255, (32, 84, 84, 1), np.uint8)
    np.savez(file, obs=obs, actions=np.zeros(32, np.int64))
    names = [f"data_atari_seq/breakout/{name}_0.npz" for name in ("train", "val")]
    server.data = zipped(dict.fromkeys(names, file.getvalue()))
    monkeypatch.setitem(atari_cloning.ARCHIVES, "breakout", server.archive)
    dataset = AtariCloningDataset("breakout", "val", tmp_path, download=True)
    assert len(dataset) == 1


@pytest.mark.parametrize(
    ("game", "root", "download", "message"),
    [
        ("pong", "root", True, "no archive of demos of pong is known; record some"),
        ("breakout", None, True, "name one as root_dir"),
        ("pong", None, "archive", "name one as root_dir"),
        ("breakout", "root", "archive", "demos.zip holds no demos of breakout"),
    ],
)
def test_a_dataset_refuses_with_the_remedy(game, root, download, message, server, tmp_path, pong):
    server.data = pong
    download = server.archive if download == "archive" else download
    with pytest.raises(UserError, match=message):
        AtariCloningDataset(game, root_dir=root and tmp_path / root, download=download)
    assert not (tmp_path / "root" / game).exists()
