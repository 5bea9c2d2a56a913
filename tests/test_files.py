"""Files and folders are replaced whole, and nothing but files is."""

import os
from contextlib import suppress

import pytest

from ncp_agents.errors import UserError
from ncp_agents.files import (
    atomic_folder,
    atomic_write,
    check_writable,
    remove_temporary_files,
    write_text,
)


def test_a_link_stays_a_link(tmp_path):
    target, link = tmp_path / "there" / "file.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_permissions_are_the_old_files_or_the_usual(tmp_path):
    file, usual = tmp_path / "file.txt", tmp_path / "usual.txt"
    usual.touch()
    write_text(file, "old")
    assert file.stat().st_mode == usual.stat().st_mode
    file.chmod(0o600)
    write_text(file, "new")
    assert file.stat().st_mode & 0o777 == 0o600
    (tmp_path / "usual").mkdir()
    with atomic_folder(tmp_path / "folder"):
        pass
    assert (tmp_path / "folder").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_what_cannot_be_written_is_refused_before(tmp_path):
    link, pipe = tmp_path / "link.json", tmp_path / "pipe.png"
    link.symlink_to("/proc/nowhere/scores.json")
    os.mkfifo(pipe)
    for path, named in ((link, "/proc/nowhere"), (pipe, "pipe.png"), (tmp_path, str(tmp_path))):
        with pytest.raises(UserError, match=named):
            check_writable(path, "--output")
    with pytest.raises(UserError, match="pipe"):
        write_text(pipe, "")
    assert pipe.is_fifo()


def test_on_an_exception_the_old_file_stays(tmp_path):
    file = tmp_path / "file.txt"
    write_text(file, "old")
    with suppress(ZeroDivisionError), atomic_write(file) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    with suppress(ZeroDivisionError), atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "file").touch()
        raise ZeroDivisionError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_appears_whole_and_replaces_nothing(tmp_path):
    folder = tmp_path / "folder"
    with atomic_folder(folder) as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "file").write_text("new")
        assert not folder.exists()
    assert (folder / "deep" / "file").read_text() == "new"
    with pytest.raises(UserError, match="exists"), atomic_folder(folder):
        pass
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_killed_process_left_is_removed(tmp_path):
    with suppress(SystemExit), atomic_write(tmp_path / "file.txt") as temporary:
        left = temporary.parent
        raise SystemExit
    left.mkdir()
    (left / "file.txt").write_text("half")
    other = tmp_path / ".file.txt.bak"
    other.touch()
    remove_temporary_files(tmp_path / "file.txt")
    assert list(tmp_path.iterdir()) == [other]
