"""Files are replaced whole, and nothing but files is."""

import os

import pytest

from ncp_agents.errors import UserError
from ncp_agents.files import atomic_write, check_writable, write_text


def test_a_link_stays_one(tmp_path):
    target, link = tmp_path / "there" / "file.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_link_into_nothing_is_found_out_before(tmp_path):
    link = tmp_path / "link.json"
    link.symlink_to("/proc/nowhere/scores.json")
    with pytest.raises(UserError, match="cannot write /proc/nowhere"):
        check_writable(link, "--output")


def test_permissions_stay(tmp_path):
    file = tmp_path / "file.txt"
    write_text(file, "old")
    file.chmod(0o600)
    write_text(file, "new")
    assert file.stat().st_mode & 0o777 == 0o600


def test_devices_and_pipes_stay_what_they_are(tmp_path):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for call in (lambda: write_text(pipe, ""), lambda: check_writable(pipe, "--output")):
        with pytest.raises(UserError, match=r"pipe\.png is not a regular file"):
            call()
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_on_an_exception_the_old_file_stays(tmp_path):
    file = tmp_path / "file.txt"
    write_text(file, "old")

    def fail():
        with atomic_write(file) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
