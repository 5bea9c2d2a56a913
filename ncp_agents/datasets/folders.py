"""Whole folders that appear at once, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from ncp_agents.errors import UserError
from ncp_agents.files import sync, umask

UNFINISHED = ".unfinished"


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
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
                sync(Path(folder, name))
        _refuse_present(path)
        made.rename(path)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    sync(path.parent)


def remove_unfinished(path: Path) -> None:
    """Remove what a killed process left of its `new_folder(path)`; no other may be at work."""
    for left in path.parent.glob(f".{escape(path.name)}.*{UNFINISHED}"):
        shutil.rmtree(left)


def _refuse_present(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} is there already; remove it, or name another folder")
