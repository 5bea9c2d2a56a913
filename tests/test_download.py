"""Fetching demos: a server that misbehaves, archives that mean harm, processes that are killed."""

import hashlib
import io
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import pytest
from archive_server import DATA, FILES, Server, zipped

from ncp_agents.datasets.download import Archive, fetch, unpack
from ncp_agents.errors import UserError


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "data" / "demos"


def get(archive: Archive, folder: Path) -> None:
    fetch(archive, folder, timeout=0.3, progress=False)


def assert_whole(folder: Path) -> None:
    """All files are there, and beside the folder nothing but its lock."""
    there = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert there == FILES
    assert {p.name for p in folder.parent.iterdir()} == {"demos", ".demos.lock"}


def assert_nothing(folder: Path, partial: bool) -> None:
    assert not folder.exists()
    names = {p.name for p in folder.parent.iterdir()} - {".demos.lock"}
    assert names == ({".demos.zip.part", ".demos.zip.part.json"} if partial else set())


def test_an_archive_becomes_a_folder(server, folder, capsys):
    fetch(server.archive, folder)
    assert_whole(folder)
    assert "demos.zip: 100%" in capsys.readouterr().err
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask
    assert stat.S_IMODE((folder / "a.bin").stat().st_mode) == 0o666 & ~umask
    get(server.archive, folder)
    assert len(server.requests) == 1  # it is there already


def test_without_a_digest_it_says_what_it_trusted(server, folder):
    with pytest.warns(UserWarning, match=f"on trust.*{server.archive.sha256}"):
        get(Archive(server.url), folder)
    assert_whole(folder)


@pytest.mark.parametrize("silent_for", [0.0, 1.0])
def test_a_cut_or_silent_download_goes_on_from_there(server, folder, silent_for):
    server.stop_after, server.silent_for = 100_000, silent_for
    what = "nothing came for 0.3 s" if silent_for else "the connection ended"
    with pytest.raises(UserError, match=f"{what} after 100,000 of .* goes on from there"):
        get(server.archive, folder)
    assert_nothing(folder, partial=True)
    server.stop_after, server.silent_for = None, 0.0
    get(server.archive, folder)
    assert server.requests[1] == ("bytes=100000-", '"one"')
    assert_whole(folder)


def test_a_server_without_ranges_starts_anew(server, folder):
    server.ranges, server.stop_after = False, 100_000
    with pytest.raises(UserError, match="after 100,000 of"):
        get(server.archive, folder)
    server.stop_after = None
    get(server.archive, folder)
    assert_whole(folder)


@pytest.mark.parametrize("etag", ['"two"', None])
def test_a_file_that_changed_in_between_starts_anew(server, folder, etag):
    """With an ETag the server says so; without one, the digest does."""
    server.data, server.stop_after = DATA[::-1], 100_000
    server.etag = etag and '"one"'
    archive = Archive(server.url, hashlib.sha256(DATA).hexdigest())
    with pytest.raises(UserError, match="goes on from there"):
        get(archive, folder)
    server.data, server.etag, server.stop_after = DATA, etag, None
    get(archive, folder)
    assert_whole(folder)
    assert len(server.requests) == (2 if etag else 3)


def test_a_shorter_file_than_before_starts_anew(server, folder):
    server.data, server.stop_after, server.etag = DATA * 3, len(DATA) * 2, None
    archive = Archive(server.url, hashlib.sha256(DATA).hexdigest())
    with pytest.raises(UserError, match="goes on from there"):
        get(archive, folder)
    server.data, server.stop_after = DATA, None
    get(archive, folder)  # its Range cannot be satisfied
    assert_whole(folder)


def test_what_nothing_vouches_for_is_not_gone_on_with(server, folder):
    server.etag, server.stop_after = None, 100_000
    with pytest.raises(UserError, match="starts anew"):
        get(Archive(server.url), folder)
    server.stop_after = None
    with pytest.warns(UserWarning, match="on trust"):
        get(Archive(server.url), folder)
    assert server.requests[1] == (None, None)
    assert_whole(folder)


def test_another_part_than_asked_for_is_not_appended(server, folder):
    server.stop_after = 100_000
    with pytest.raises(UserError, match="goes on"):
        get(server.archive, folder)
    server.stop_after, server.wrong_range = None, True
    get(server.archive, folder)
    assert_whole(folder)
    assert server.requests[2] == (None, None)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (len(DATA) + 5, f"ended after {len(DATA):,} of {len(DATA) + 5:,} bytes"),
        (len(DATA) - 5, "has SHA-256 .* expected SHA-256"),
        (10**12, "has 1,000,000,000,000 bytes or more, expected at most"),
    ],
)
def test_a_lying_length_is_found_out(server, folder, declared, message):
    server.declared = declared
    with pytest.raises(UserError, match=message):
        get(server.archive, folder)
    assert not folder.exists()


def test_without_a_length_the_body_ends_with_the_connection(server, folder):
    server.declared = -1
    get(server.archive, folder)
    assert_whole(folder)


def test_an_endless_body_is_cut(server, folder):
    server.declared = -1
    with pytest.raises(UserError, match=r"or more, expected at most 50,000; .*most_bytes"):
        get(Archive(server.url, most_bytes=50_000), folder)
    assert not folder.exists()


def test_another_digest_is_refused_and_forgotten(server, folder):
    with pytest.raises(UserError, match=r"has SHA-256 .* do not use it"):
        get(Archive(server.url, "0" * 64), folder)
    assert_nothing(folder, partial=False)


@pytest.mark.parametrize(
    ("status", "message"),
    [(404, "answers 404 .*check the address"), (503, "answers 503 .*try again later")],
)
def test_a_refusal_is_passed_on(server, folder, status, message):
    server.status = status
    with pytest.raises(UserError, match=message):
        get(server.archive, folder)
    assert_nothing(folder, partial=False)


def test_no_server_is_one_line(folder):
    with pytest.raises(UserError, match=r"the connection failed .*try again later"):
        get(Archive("http://127.0.0.1:9/demos.zip"), folder)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b.zip", "demos.zip", "http://a b/"])
def test_only_addresses_of_the_web(url):
    with pytest.raises(UserError, match="is no address of an archive"):
        Archive(url)
    with pytest.raises(UserError, match="expected 64 hexadecimal digits"):
        Archive("https://example.org/demos.zip", "abc")


FETCH = """
import sys
from pathlib import Path
from ncp_agents.datasets.download import Archive, fetch
fetch(Archive(sys.argv[1], sys.argv[2]), Path(sys.argv[3]), progress=False)
"""


def fetching(server: Server, folder: Path, **kwargs) -> subprocess.Popen:
    command = [sys.executable, "-c", FETCH, server.url, str(server.archive.sha256), str(folder)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **kwargs)


@pytest.mark.slow
def test_a_killed_download_goes_on(server, folder):
    server.pause = 0.1
    process = fetching(server, folder)
    partial = folder.parent / ".demos.zip.part"
    deadline = time.monotonic() + 60
    while not partial.exists() or partial.stat().st_size < 50_000:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = partial.stat().st_size
    assert 50_000 <= left < len(DATA)
    # What a process killed while it unpacks leaves goes too.
    (folder.parent / ".demos.abc.unfinished").mkdir()
    server.pause = 0.0
    get(server.archive, folder)
    assert server.requests[1] == (f"bytes={left}-", '"one"')
    assert_whole(folder)


def test_two_processes_at_once_fetch_once(server, folder):
    server.pause = 0.02
    processes = [fetching(server, folder) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert len(server.requests) == 1
    assert_whole(folder)


def test_a_full_disk_is_one_line_and_loses_nothing(server, folder):
    """A limit on the size of files stands in for the disk's."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    _, errors = fetching(server, folder, preexec_fn=limit).communicate(timeout=60)
    assert "UserError: cannot write" in errors.splitlines()[-1]
    assert_nothing(folder, partial=True)
    get(server.archive, folder)
    assert server.requests[1][0] == "bytes=100000-"
    assert_whole(folder)


def link(name: str, target: str) -> bytes:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(info, target)
    return file.getvalue()


def twice(*names: str) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile warns of duplicates that it writes
        for name in names:
            archive.writestr(name, b"x" if not name.endswith("/") else b"")
    return file.getvalue()


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    """Bytes of the first entry of the central directory changed."""
    at = data.index(b"PK\x01\x02") + offset
    return data[:at] + value + data[at + len(value) :]


def overlapping() -> bytes:
    """Two hundred names for one member of 300 kB."""
    one = zipped({"0000": bytes(300_000)})
    start, end = one.index(b"PK\x01\x02"), one.index(b"PK\x05\x06")
    entry = one[start:end]
    entries = b"".join(entry.replace(b"0000", b"%04d" % i) for i in range(200))
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 200, 200, len(entries), start, 0)
    return one[:start] + entries + tail


MALICIOUS = {
    "escape": (zipped({"../evil": b"x"}), "'../evil' leads elsewhere"),
    "deep escape": (zipped({"a/../../evil": b"x"}), "leads elsewhere"),
    "absolute": (zipped({"/tmp/evil": b"x"}), "leads elsewhere"),
    "drive": (zipped({"C:evil": b"x"}), "leads elsewhere"),
    "backslash": (zipped({"..\\evil": b"x"}), "leads elsewhere"),
    "zero byte": (zipped({"evil0.npz": b"x"}).replace(b"evil0", b"evil\0"), "leads elsewhere"),
    "link": (link("evil", "/etc/passwd"), "'evil' is a link or a device"),
    "duplicate": (twice("a", "a"), "'a' comes twice"),
    "duplicate but for case": (twice("a/B", "A/b"), "'A/b' comes twice"),
    "file as folder": (twice("a", "a/b"), "'a/b' lies in what is a file"),
    "folder as file": (twice("a/b", "a"), "'a' comes twice"),
    "encrypted": (patched(zipped({"a": b"x"}), 8, b"\x01\x00"), "'a' is encrypted"),
    "other packing": (patched(zipped({"a": b"x"}), 10, b"\x0c\x00"), "another method than deflate"),
    "bomb": (zipped({"a": bytes(10**7)}), "unpacks to 10,000,000 bytes, more than 300 times"),
    "bomb by overlap": (overlapping(), "unpacks to 60,000,000 bytes, more than 300 times"),
    "declares too much": (
        patched(zipped({"a": bytes(1000)}), 24, struct.pack("<I", 2**31)),
        "more than 300 times",
    ),
    "declares too little": (
        patched(zipped({"a": FILES["a.bin"]}), 24, struct.pack("<I", 10)),
        "no whole zip archive: Bad CRC-32",
    ),
    "name of no letters": (
        zipped({"é": b"x"}).replace("é".encode(), b"\xff\xff"),
        "no whole zip archive: 'utf-8' codec can't decode",
    ),
    "cut": (DATA[:-30], "no whole zip archive"),
    "damaged": (DATA[:5000] + b"\0\0\0\0" + DATA[5004:], "no whole zip archive"),
    "nothing": (b"", "no whole zip archive"),
    "a web page": (b"<!doctype html>", "no whole zip archive"),
}


@pytest.mark.parametrize("kind", MALICIOUS)
def test_malicious_archives_leave_nothing(kind, server, folder, tmp_path):
    server.data, message = MALICIOUS[kind]
    with pytest.raises(UserError, match=message):
        get(server.archive, folder)
    assert_nothing(folder, partial=False)
    assert not list(tmp_path.rglob("*evil*"))


def test_no_more_is_read_than_declared(tmp_path):
    """A member of 100 MB that says it has 10 bytes."""
    data = patched(zipped({"a": bytes(10**8)}), 24, struct.pack("<I", 10))
    (tmp_path / "bomb.zip").write_bytes(data)
    with pytest.raises(UserError, match="Bad CRC-32"):
        unpack(tmp_path / "bomb.zip", tmp_path / "out")
    assert sum(path.stat().st_size for path in (tmp_path / "out").rglob("*")) <= 10


def test_the_total_is_limited(tmp_path):
    (tmp_path / "a.zip").write_bytes(DATA)
    with pytest.raises(UserError, match=r"unpacks to 300,005 bytes, more than 1,000"):
        unpack(tmp_path / "a.zip", tmp_path / "out", most_bytes=1000)
