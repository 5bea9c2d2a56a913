"""Downloads: servers that fail, archives that mean harm, processes that are killed."""

import io
import resource
import signal
import stat
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from archive_server import FILES, Server, zipped

from ncp_agents.datasets import AtariCloningDataset, atari_cloning, download
from ncp_agents.datasets.atari_cloning import SHIPPED
from ncp_agents.datasets.download import Archive, fetch
from ncp_agents.errors import UserError


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "data" / "demos"


def assert_whole(folder: Path) -> None:
    """All files are there, and beside the folder nothing but its lock."""
    there = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert there == FILES
    assert {path.name for path in folder.parent.iterdir()} == {"demos", ".demos.lock"}


def assert_fails(archive: Archive, folder: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        fetch(archive, folder)
    assert "\n" not in str(caught.value)
    assert [path.name for path in folder.parent.iterdir()] == [".demos.lock"]


def test_an_archive_becomes_a_folder_once(server, folder):
    fetch(server.archive, folder)
    fetch(server.archive, folder)
    assert server.requests == 1
    assert_whole(folder)


@pytest.mark.parametrize(
    ("failure", "message"),
    [({"status": 404}, "404"), ({"status": 503}, "503"), ({"missing": 5}, "5 more")],
)
def test_a_server_that_fails_is_named(server, folder, failure, message):
    vars(server).update(failure)
    assert_fails(server.archive, folder, f"{server.url}.*{message}")


def test_other_failures_of_a_download(server, folder):
    assert_fails(Archive(server.url, "0" * 64), folder, "0" * 64)
    assert_fails(Archive("http://127.0.0.1:9/demos.zip"), folder, "127.0.0.1:9")
    assert_fails(Archive("file:///etc/passwd"), folder, "file")


FETCH = """
import sys
from pathlib import Path
from ncp_agents.datasets.download import Archive, fetch
fetch(Archive(sys.argv[1], sys.argv[2]), Path(sys.argv[3]))
"""


def fetching(server: Server, folder: Path, **kwargs) -> subprocess.Popen:
    command = [sys.executable, "-c", FETCH, server.url, str(server.archive.sha256), str(folder)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **kwargs)


@pytest.mark.slow
def test_a_killed_download_is_not_taken_for_whole(server, folder):
    server.pause = 0.1
    process = fetching(server, folder)
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size > 50_000 for path in folder.parent.rglob("*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not folder.exists()
    server.pause = 0.0
    fetch(server.archive, folder)
    assert_whole(folder)


def test_two_processes_at_once_download_once(server, folder):
    server.pause = 0.02
    for process in [fetching(server, folder) for _ in range(2)]:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert server.requests == 1
    assert_whole(folder)


def test_a_full_disk_is_one_line(server, folder):
    """A limit on the size of files stands in for the disk's."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    _, errors = fetching(server, folder, preexec_fn=limit).communicate(timeout=60)
    assert "UserError: cannot write" in errors.splitlines()[-1]
    assert not folder.exists()


def link() -> bytes:
    info = zipfile.ZipInfo("evil")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (zipped({"../evil": b""}), "unsafe"),
        (zipped({"a/../../evil": b""}), "unsafe"),
        (zipped({"/tmp/evil": b""}), "unsafe"),
        (zipped({"C:evil": b""}), "unsafe"),
        (zipped({"..\\evil": b""}), "unsafe"),
        (link(), "unsafe"),
        (zipped({"a": bytes(400_001)}), "400,001 bytes"),
        (zipped(FILES)[:-30], "zip"),
        (zipped(FILES)[:5000] + b"\0\0\0\0" + zipped(FILES)[5004:], "zip"),
        (b"<!doctype html>", "zip"),
    ],
)
def test_archives_that_mean_harm_leave_nothing(data, message, server, folder, monkeypatch):
    monkeypatch.setattr(download, "MAX_UNPACKED", 400_000)
    server.data = data
    assert_fails(server.archive, folder, message)


@pytest.fixture
def pong() -> bytes:
    return zipped({f"pong/{path.name}": path.read_bytes() for path in (SHIPPED / "pong").iterdir()})


def test_a_dataset_downloads_into_its_root(server, tmp_path, pong):
    server.data, root = pong, tmp_path / "root"
    dataset = AtariCloningDataset("Pong", root_dir=root, download=server.archive)
    shipped = AtariCloningDataset("Pong")
    assert len(dataset) == len(shipped)
    assert (dataset[5][0] == shipped[5][0]).all()
    AtariCloningDataset("Pong", "val", root_dir=root, download=server.archive)
    assert server.requests == 1
    (tmp_path / "other" / "pong").mkdir(parents=True)
    with pytest.raises(UserError, match="other/pong"):
        AtariCloningDataset("Pong", root_dir=tmp_path / "other", download=server.archive)


def test_a_dataset_downloads_the_layout_of_ncps(server, tmp_path, monkeypatch):
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
        ("pong", "root", True, "no archive"),
        ("breakout", None, True, "root_dir"),
        ("pong", None, "archive", "root_dir"),
        ("breakout", "root", "archive", "demos.zip.* breakout"),
    ],
)
def test_a_dataset_names_what_is_missing(game, root, download, message, server, tmp_path, pong):
    server.data = pong
    download = server.archive if download == "archive" else download
    with pytest.raises(UserError, match=message):
        AtariCloningDataset(game, root_dir=root and tmp_path / root, download=download)
    assert not (tmp_path / "root" / game).exists()
