"""Writing files and folders so that a crash at any moment leaves the old one or the new one, whole."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ncp_agents.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there takes its place on success.

    The data is on disk before the name is (`fsync`, then `rename`). On an exception the temporary
    file goes and `path` is untouched. A link stays one; what it points to is replaced.

    Raises:
        UserError: a device, a pipe or a folder is there.
    """
    path = path.resolve()
    check_regular(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode if path.exists() else 0o666 & ~umask()
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # mkstemp's files are private
        temporary.replace(path)
    except OSError as error:
        if error.errno and not error.filename:  # a full disk does not say which file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    fsync(path.parent)


def umask() -> int:
    """The permissions that new files of this process go without."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def remove_temporary_files(path: Path) -> None:
    """Remove what a process that was killed in `atomic_write(path)` left beside it; nobody else may
    be writing there.
    """
    for left in path.parent.glob(f".{glob.escape(path.stem)}.????????{path.suffix}"):
        left.unlink()


def check_regular(path: Path) -> None:
    """Raises UserError where something else than a file is, which must not be replaced."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a regular file; name another place")


def fsync(path: Path) -> None:
    """What a file holds, or the names in a folder, are on disk after this. Windows opens neither
    for it, and is left to do so by itself.
    """
    if os.name == "nt":
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
    return hashlib.sha256(path.read_bytes()).hexdigest()


def copy_files(sources: Iterable[Path], folder: Path) -> None:
    """Copy files into a folder, each replaced whole."""
    for source in sources:
        with atomic_write(folder / source.name) as temporary:
            shutil.copyfile(source, temporary)


def check_writable(path: Path, option: str) -> None:
    """Find out now, not after minutes of play.

    Raises:
        UserError: the path cannot be written; names `option`, which gives another.
    """
    path = path.resolve()
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        check_regular(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}); give another place: {option}"
        ) from None


UNFINISHED = ".unfinished"


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, to fill; on success it becomes `path`.

    All in it is on disk before it gets its name. On an exception it goes.

    Raises:
        UserError: there is something at `path`.
    """
    _refuse_present(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED))
    try:
        yield made
        made.chmod(0o777 & ~umask())  # mkdtemp's folders are private
        for folder, _, files in os.walk(made):
            for name in [*files, ""]:  # "" is the folder itself
                fsync(Path(folder, name))
        _refuse_present(path)
        made.rename(path)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    fsync(path.parent)


def remove_temporary_folders(path: Path) -> None:
    """Remove what a killed process left of its `atomic_folder(path)`; no other may be at work."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{UNFINISHED}"):
        shutil.rmtree(left)


def _refuse_present(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} is there already; remove it, or name another folder")
