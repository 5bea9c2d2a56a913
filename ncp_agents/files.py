"""Write files and folders so that a crash at any moment leaves the old or the new one, whole.

What is new is written into a temporary folder beside its destination and renamed when it is on
disk.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ncp_agents.errors import UserError

UNFINISHED = ".unfinished"  # suffix of temporary folders


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path, whose file replaces `path` on success.

    On an exception `path` is untouched. A link stays a link: the file that it points to is
    replaced. Permissions stay, too.

    Raises:
        UserError: `path` is a device, a pipe or a folder.
    """
    path = path.resolve()
    _check_regular(path)
    with _temporary(path) as temporary:
        yield temporary
        fsync(temporary)
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    fsync(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `path` on success and is removed on an exception.

    Raises:
        UserError: `path` exists.
    """
    _check_absent(path)
    with _temporary(path) as temporary:
        temporary.mkdir()
        yield temporary
        for each in (temporary, *temporary.rglob("*")):
            fsync(each)
        _check_absent(path)
        temporary.rename(path)
    fsync(path.parent)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Yield a path of the same name in a temporary folder beside `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{path.name}."
    with tempfile.TemporaryDirectory(UNFINISHED, prefix, path.parent) as folder:
        try:
            yield Path(folder, path.name)
        except OSError as error:
            if error.errno and not error.filename:  # a full disk does not name the file
                error.filename = str(path)
            raise


@contextmanager
def locked(path: Path, message: str) -> Iterator[None]:
    """Enter a context in which no other process holds the lock file `path`.

    Raises:
        UserError: another process holds it; with the message.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(message) from None
    try:
        yield
    finally:
        lock.release()


def remove_temporary_files(path: Path) -> None:
    """Remove what a killed process left of writing `path`, which no other may write now."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"):
        shutil.rmtree(left)


def fsync(path: Path) -> None:
    """Put on disk what a file holds, or the names in a folder; does nothing on Windows."""
    if os.name == "nt":  # it opens no folders for this, and files only to write
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Replace a text file."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def copy_files(sources: Iterable[Path], folder: Path) -> None:
    """Copy files into a folder, each replaced whole."""
    for source in sources:
        with atomic_write(folder / source.name) as temporary:
            shutil.copyfile(source, temporary)


def check_writable(path: Path, option: str) -> None:
    """Check that a file can be written, before work is spent on what goes into it.

    Raises:
        UserError: it cannot; the message names `option`, which gives another path.
    """
    path = path.resolve()
    try:
        _check_regular(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}); give another place: {option}"
        ) from None


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file; name another place")


def _check_absent(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} exists; remove it, or name another folder")
