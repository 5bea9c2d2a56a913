"""Download a zip archive of demonstrations and unpack it."""

from __future__ import annotations

import stat
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import pooch
from filelock import FileLock
from requests import RequestException

from ncp_agents.errors import UserError
from ncp_agents.files import atomic_folder, remove_temporary_files

MAX_UNPACKED = 64 * 2**30  # bytes


@dataclass(frozen=True)
class Archive:
    """A zip archive on the web."""

    url: str
    sha256: str | None = None
    """64 hexadecimal digits. None takes whatever the server sends."""


def fetch(
    archive: Archive,
    folder: Path,
    check: Callable[[Path], object] = lambda unpacked: None,
) -> None:
    """Download an archive and unpack it as `folder`, unless that exists.

    The folder appears when all of it is unpacked and checked. A second process that calls this at
    the same time waits for the first.

    Args:
        archive: what to download.
        folder: where to unpack it.
        check: called with the unpacked folder before it appears; its exception aborts.

    Raises:
        UserError: the server cannot be reached or breaks off, the SHA-256 is another one, the
            file is no zip archive or unsafe to unpack, or the disk is full.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if folder.exists():
                return
            remove_temporary_files(folder)
            with atomic_folder(folder) as unfinished:
                file = _download(archive, unfinished)
                _unpack(file, unfinished, archive.url)
                file.unlink()
                check(unfinished)
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or folder}: {error.strerror or error}"
        ) from None


def _download(archive: Archive, folder: Path) -> Path:
    try:
        return Path(
            pooch.retrieve(
                archive.url, archive.sha256, path=folder, progressbar=sys.stderr.isatty()
            )
        )
    except RequestException as error:
        if error.response is not None:
            error.response.close()
        raise UserError(
            f"cannot download {archive.url}: {error}; check the address, or try again later"
        ) from None
    except ValueError as error:  # another SHA-256, or a URL of another kind
        raise UserError(f"cannot download {archive.url}: {error}") from None


def _unpack(file: Path, folder: Path, url: str) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            for member in members:
                path = PureWindowsPath(member.filename)  # splits at / and \, and has drives
                is_link = stat.S_ISLNK(member.external_attr >> 16)
                if path.anchor or ".." in path.parts or is_link:
                    raise UserError(f"{url} is unsafe: {member.filename!r} leads out of its folder")
            size = sum(member.file_size for member in members)
            if size > MAX_UNPACKED:
                raise UserError(
                    f"{url} unpacks to {size:,} bytes, expected at most {MAX_UNPACKED:,}"
                )
            archive.extractall(folder)
    except (OSError, UserError):
        raise
    except Exception as error:  # of zipfile, zlib and codecs, for damage of a dozen kinds
        raise UserError(f"{url} is not a whole zip archive: {error}") from None
