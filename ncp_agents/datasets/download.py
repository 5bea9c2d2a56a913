"""Fetch an archive of demos: go on where an earlier download stopped, verify, unpack safely.

What comes over the net is not trusted. A folder appears only when all of the archive is verified
and in it; until then a partial file lies beside, which the next call goes on from.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock
from tqdm import tqdm

from ncp_agents.errors import UserError
from ncp_agents.files import atomic_folder, remove_temporary_folders, write_text

CHUNK = 2**20  # bytes
MAX_MEMBERS = 1_000_000
MAX_UNPACKED = 64 * 2**30  # bytes
MAX_RATIO = 300  # deflate reaches 1,032; raw frames of Pong 145, and arrays pack themselves


@dataclass(frozen=True)
class Archive:
    """A zip archive on the net.

    Raises:
        UserError: an address that is not of the web, or a digest of another form.
    """

    url: str
    sha256: str | None = None
    """64 hexadecimal digits. Without it whoever serves the archive is believed."""
    most_bytes: int = 8 * 2**30
    """A larger archive is refused."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"https?://[!-.0-~]+/[!-~]*", self.url):
            raise UserError(f"{self.url!r} is no address of an archive; one begins with https://")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise UserError(f"sha256 is {self.sha256!r}, expected 64 hexadecimal digits, small")


def fetch(
    archive: Archive,
    folder: Path,
    check: Callable[[Path], object] = lambda path: None,
    timeout: float = 30.0,
    progress: bool = True,
) -> None:
    """Download and unpack an archive as `folder`; nothing to do if that is there.

    Two processes may call this at once: one waits for the other.

    Args:
        check: called with the unpacked folder before it gets its name; what it raises ends all.
        timeout: seconds of silence after which a server is given up.

    Raises:
        UserError: a server that fails, falls silent, cuts off or serves too much, after which the
            same call goes on from there; another digest than expected; an archive that is
            damaged or unsafe; a full disk.
    """
    partial = folder.parent / f".{folder.name}.zip.part"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if folder.exists():
                return
            remove_temporary_folders(folder)
            digest = download(archive, partial, timeout, progress)
            try:
                with atomic_folder(folder) as unpacked:
                    unpack(partial, unpacked, name=archive.url)
                    check(unpacked)
            except UserError:
                _forget(partial)
                raise
            _forget(partial)
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or folder.parent}: {error.strerror or error}; "
            "mend that, and the same call goes on from what was fetched"
        ) from None
    if archive.sha256 is None:
        warnings.warn(
            f"{archive.url} was taken on trust; to ask for the same again: "
            f"Archive(url, sha256={digest!r})",
            stacklevel=2,
        )


def download(archive: Archive, partial: Path, timeout: float = 30.0, progress: bool = True) -> str:
    """Download to `partial`, from where an earlier call stopped if that is known to be safe → the
    SHA-256.

    It is safe if the server says that its file is the same (`ETag`, `Last-Modified`), or if a
    SHA-256 will tell.

    Raises:
        UserError: see `fetch`.
        OSError: a full disk, or a folder that is not to be written.
    """
    have = _resumable(archive, partial)
    while True:
        resumed = have > 0
        if not _receive(archive, partial, have, timeout, progress):
            have = 0
            continue
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if archive.sha256 in (None, digest):
            return digest
        size = partial.stat().st_size
        _forget(partial)
        if not resumed:
            raise UserError(
                f"{archive.url} has SHA-256 {digest} and {size:,} bytes, expected SHA-256 "
                f"{archive.sha256}; do not use it, or correct the digest"
            )
        have = 0  # the file changed between the two attempts


def _resumable(archive: Archive, partial: Path) -> int:
    """Bytes of an earlier attempt that this one can go on from."""
    note = _read_note(partial)
    if note.get("url") != archive.url or not (note.get("validator") or archive.sha256):
        return 0
    return partial.stat().st_size if partial.exists() else 0


def _receive(archive: Archive, partial: Path, have: int, timeout: float, progress: bool) -> bool:
    """Append to the first `have` bytes all others → whether the server agreed to that."""
    note = _read_note(partial) if have else {}
    if have and have == note.get("size"):
        return True
    headers = {"User-Agent": "ncp-agents", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if note.get("validator"):
            headers["If-Range"] = note["validator"]
    try:
        response = urlopen(Request(archive.url, headers=headers), timeout=timeout)
    except HTTPError as error:
        with error:
            if error.code == 416 and have:  # Range Not Satisfiable: a shorter file than before
                return False
            advice = "try again later" if error.code >= 500 else "check the address"
            raise UserError(
                f"{archive.url} answers {error.code} {error.reason}; {advice}"
            ) from None
    except (OSError, HTTPException) as error:
        raise UserError(f"{archive.url}: {_reason(error, timeout)}; try again later") from None
    with response:
        size = _size(response)
        if response.status == 206:
            first, last, whole = _range(response)
            if first != have or (note.get("size") and whole not in (None, note["size"])):
                if not have:
                    raise UserError(f"{archive.url} sends another part than asked for")
                return False
            size = whole or (last + 1 if last is not None else None)
        else:
            have = 0
        if size is not None and size > archive.most_bytes:
            _refuse_size(archive, size)
        _store(archive, response, partial, have, size, timeout, progress)
    return True


def _store(
    archive: Archive,
    response: HTTPResponse,
    partial: Path,
    have: int,
    size: int | None,
    timeout: float,
    progress: bool,
) -> None:
    """Write the body of a response behind the first `have` bytes."""
    bar = tqdm(
        total=size,
        initial=have,
        unit="B",
        unit_scale=True,
        desc=archive.url.rsplit("/", 1)[-1],
        disable=not progress,
    )
    failure = None
    with bar, partial.open("ab" if have else "wb") as file:
        if not have:  # the file is empty before its note changes
            _write_note(archive, partial, response, size)
        while size is None or have < size:
            try:
                data = response.read1(CHUNK if size is None else min(CHUNK, size - have))
            except (OSError, HTTPException) as error:
                failure = _reason(error, timeout)
                break
            if not data:
                break
            have += len(data)
            if have > archive.most_bytes:
                _refuse_size(archive, have)
            file.write(data)
            file.flush()
            bar.update(len(data))
    if failure or size not in (None, have):
        raise UserError(
            f"{archive.url}: {failure or 'the connection ended'} after {have:,}"
            f"{f' of {size:,}' if size else ''} bytes; the same call again "
            + ("goes on from there" if _resumable(archive, partial) else "starts anew")
        )


def _refuse_size(archive: Archive, size: int) -> NoReturn:
    raise UserError(
        f"{archive.url} has {size:,} bytes or more, expected at most {archive.most_bytes:,}; "
        "if that is right, raise most_bytes of its Archive"
    )


def _reason(error: Exception, timeout: float) -> str:
    if isinstance(error, URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, TimeoutError):
        return f"nothing came for {timeout:g} s"
    return f"the connection failed ({str(error) or type(error).__name__})"


def _size(response: HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None


def _range(response: HTTPResponse) -> tuple[int | None, int | None, int | None]:
    """First byte, last byte and size of the whole, from `Content-Range: bytes 5-9/10`."""
    text = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", text)
    if match is None:
        return None, None, None
    first, last, whole = match.groups()
    return int(first), int(last), None if whole == "*" else int(whole)


def _note_path(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _read_note(partial: Path) -> dict[str, Any]:
    """What is known of a partial file: url, validator, size."""
    try:
        note = json.loads(_note_path(partial).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _write_note(archive: Archive, partial: Path, response: HTTPResponse, size: int | None) -> None:
    tag = response.headers.get("ETag", "")
    validator = tag if tag.startswith('"') else response.headers.get("Last-Modified")
    note = {"url": archive.url, "validator": validator, "size": size}
    write_text(_note_path(partial), json.dumps(note))


def _forget(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _note_path(partial).unlink(missing_ok=True)


def unpack(
    file: Path, folder: Path, most_bytes: int = MAX_UNPACKED, name: str | None = None
) -> None:
    """Unpack a zip archive into `folder`, if nothing in it could do harm.

    Args:
        most_bytes: of all that is in it, unpacked.
        name: of the archive in errors.

    Raises:
        UserError: no whole archive; a path that leads elsewhere, a link, a name that comes twice,
            an encrypted member, more bytes than allowed or than declared.
        OSError: a full disk.
    """
    name = name or str(file)
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if reason := _danger(members, file.stat().st_size, most_bytes):
                raise UserError(f"{name} is refused: {reason}")
            for member in members:
                path = folder / member.filename
                if member.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                _extract(archive, member, path)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,
        UnicodeDecodeError,  # of a member's name
    ) as error:
        raise UserError(f"{name} is no whole zip archive: {error}") from None


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Unpack one file, which ZipFile reads to its declared size and no further."""
    done = 0
    with archive.open(member) as packed, path.open("xb") as file:
        while data := packed.read(CHUNK):
            done += file.write(data)
    if done != member.file_size:
        raise zipfile.BadZipFile(f"{member.filename!r} is cut short")


def _danger(members: list[zipfile.ZipInfo], size: int, most_bytes: int) -> str | None:
    """What is wrong with an archive of `size` bytes, in words."""
    if len(members) > MAX_MEMBERS:
        return f"it has {len(members):,} members, more than {MAX_MEMBERS:,}"
    unpacked = sum(member.file_size for member in members)
    if unpacked > most_bytes:
        return f"it unpacks to {unpacked:,} bytes, more than {most_bytes:,}"
    if unpacked > MAX_RATIO * size:
        return f"it unpacks to {unpacked:,} bytes, more than {MAX_RATIO} times its own size"
    files: set[str] = set()
    folders: set[str] = set()
    for member in members:
        shown, kind = repr(member.filename), stat.S_IFMT(member.external_attr >> 16)
        *parents, last = member.filename.removesuffix("/").split("/")
        if member.filename != member.orig_filename or not _is_plain([*parents, last]):
            return f"{member.orig_filename!r} leads elsewhere"
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            return f"{shown} is a link or a device"
        if member.flag_bits & 1:
            return f"{shown} is encrypted"
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"{shown} is packed by another method than deflate"
        path = _folded("/".join([*parents, last]))
        if path in files or (path in folders and not member.is_dir()):
            return f"{shown} comes twice"
        (folders if member.is_dir() else files).add(path)
        above = {_folded("/".join(parents[: i + 1])) for i in range(len(parents))}
        if above & files:
            return f"{shown} lies in what is a file"
        folders |= above
    return None


def _is_plain(parts: list[str]) -> bool:
    return all(
        part not in ("", ".", "..") and not re.search(r"[\\:\x00-\x1f]", part) for part in parts
    )


def _folded(path: str) -> str:
    """Equal for names that some disks take for the same."""
    return unicodedata.normalize("NFC", path).casefold()
