"""Demonstrations on disk: a folder of `dataset.json` and one compressed `.npz` file an episode.

`dataset.json` says what was recorded, by which policy and under which protocol, and of each file
its steps, return and SHA-256. An episode is listed only once its file is whole and on disk, so a
recorder that is killed at any moment leaves all finished episodes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from ncp_agents import registry
from ncp_agents.datasets.episode_file import (
    Episode,
    check_actions,
    decode_episode,
    encode_episode,
)
from ncp_agents.envs.games import action_meanings, normalise_game
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.errors import UserError
from ncp_agents.files import atomic_write, locked, remove_temporary_files, write_text
from ncp_agents.schema import Validated, parse_json

DATASET = "dataset.json"
FORMAT = 1
FILE = r"^episode_\d{6}\.npz$"
MAX_HEADERS = 4096  # bytes of an episode's arrays besides their values


@dataclass(frozen=True)
class Entry(Validated):
    """One episode in `dataset.json`."""

    file: Annotated[str, Field(pattern=FILE)]
    sha256: str
    steps: Annotated[int, Field(ge=1)]
    score: float


@dataclass(frozen=True)
class Provenance(Validated):
    """The origin of demonstrations: game, protocol of evaluation, and player."""

    game: str
    """Any spelling is normalised."""
    protocol: AtariProtocol
    """Its `evaluation()` is kept, as episodes are recorded whole and with unclipped rewards."""
    player: dict[str, Any]
    """Such as {"policy": "pong-cfc", "weights_sha256": …, "epsilon": 0.0, "seed": 0}."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "game", normalise_game(self.game))
        object.__setattr__(self, "protocol", self.protocol.evaluation())

    @property
    def actions(self) -> tuple[str, ...]:
        """The names of the actions, by index."""
        return action_meanings(self.game, self.protocol.full_action_space)


@dataclass(frozen=True)
class _Dataset(Validated):
    """The contents of `dataset.json`."""

    format: Literal[1]
    game: str
    actions: tuple[str, ...]
    protocol: AtariProtocol
    player: dict[str, Any]
    episodes: tuple[Entry, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.actions != self.provenance.actions:
            raise ValueError(f"actions are {self.actions}, expected {self.provenance.actions}")

    @property
    def provenance(self) -> Provenance:
        return Provenance(self.game, self.protocol, self.player)


class Demonstrations:
    """A folder of demonstrations.

    `Demonstrations.create` makes one, `append` writes to it, `Demonstrations(path)` opens it.

    Raises:
        UserError: no such folder, or a damaged `dataset.json`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_dataset()

    @classmethod
    def create(cls, path: Path, provenance: Provenance) -> Self:
        """Make a new, empty folder of demonstrations.

        Raises:
            UserError: it holds demonstrations already.
        """
        if (path / DATASET).exists():
            raise UserError(f"{path} holds demos already; --resume adds to them, or name another")
        if any(re.match(FILE, file.name) for file in path.glob("*")):
            raise UserError(
                f"{path} holds episodes, but no {DATASET}; restore it, or name another folder"
            )
        _write_dataset(path, provenance, [])
        return cls(path)

    @property
    def steps(self) -> int:
        """Steps of all episodes."""
        return sum(entry.steps for entry in self.entries)

    @property
    def size(self) -> int:
        """Bytes of the episodes on disk."""
        files = [self.path / entry.file for entry in self.entries]
        return sum(file.stat().st_size for file in files if file.exists())

    def split(self, name: str, fraction: float) -> list[int]:
        """Return the indices of the episodes of a split.

        Which episodes go where depends on nothing but the episodes; equal ones stay together.

        Args:
            name: "val", or "train" for the others.
            fraction: of the episodes for "val"; at least one where there are two.
        """
        hashes = sorted({entry.sha256 for entry in self.entries})
        count = min(math.ceil(fraction * len(hashes)), len(hashes) - 1)
        held_out = {*hashes[: max(count, 0)]}
        return [
            index
            for index, entry in enumerate(self.entries)
            if (entry.sha256 in held_out) == (name == "val")
        ]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder for writing, and read again what other processes wrote to it.

        Raises:
            UserError: it is locked by another process.
        """
        message = f"{self.path} is locked by another process; name another"
        with locked(self.path / ".recording.lock", message):
            self._read_dataset()
            remove_temporary_files(self.path / DATASET)
            remove_temporary_files(self.path / self._next_file)
            yield

    def append(self, episode: Episode) -> Entry:
        """Write one episode, then add it to `dataset.json`.

        Raises:
            ValueError: no steps, or observations or actions of another game or protocol.
        """
        self._check(episode)
        data = encode_episode(episode)
        entry = Entry(
            file=self._next_file,
            sha256=hashlib.sha256(data).hexdigest(),
            steps=len(episode),
            score=float(episode.rewards.sum()),
        )
        with atomic_write(self.path / entry.file) as temporary:
            temporary.write_bytes(data)
        self.entries = [*self.entries, entry]
        _write_dataset(self.path, self.provenance, self.entries)
        return entry

    def drop(self, file: str) -> None:
        """Remove an episode, such as a damaged one.

        Raises:
            UserError: no episode has this file, or the folder is locked by another process.
        """
        with self.lock():
            registry.get("episode", file, [entry.file for entry in self.entries])
            self.entries = [entry for entry in self.entries if entry.file != file]
            _write_dataset(self.path, self.provenance, self.entries)
            (self.path / file).unlink(missing_ok=True)

    def read(self, index: int) -> Episode:
        """Return one episode.

        Raises:
            UserError: its file is missing, was changed or is damaged.
        """
        entry = self.entries[index]
        path = self.path / entry.file
        max_bytes = entry.steps * (math.prod(self._frame) + 16) + MAX_HEADERS
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                raise ValueError("truncated, or changed since it was recorded")
            episode = decode_episode(data, max_bytes)
            if len(episode) != entry.steps:
                raise ValueError(f"{len(episode)} steps, expected {entry.steps} as in {DATASET}")
            self._check(episode)
        except (FileNotFoundError, ValueError) as error:
            reason = "missing" if isinstance(error, FileNotFoundError) else error
            raise UserError(
                f"{path}: {reason}; drop it: ncp-agents record --output "
                f"{shlex.quote(str(self.path))} --drop {entry.file}, and record another with "
                "--resume"
            ) from None
        return episode

    @property
    def _next_file(self) -> str:
        number = 1 + max((int(entry.file[8:14]) for entry in self.entries), default=-1)
        return f"episode_{number:06d}.npz"

    @property
    def _frame(self) -> tuple[int, int, int]:
        rules = self.provenance.protocol
        return rules.frame_size, rules.frame_size, rules.frame_stack

    def _check(self, episode: Episode) -> None:
        if episode.obs.shape[1:] != self._frame:
            raise ValueError(f"obs are {episode.obs.shape[1:]}, expected {self._frame}")
        check_actions(episode.actions, len(self.provenance.actions))

    def _read_dataset(self) -> None:
        file = self.path / DATASET
        try:
            data = parse_json(_Dataset, file.read_bytes(), file)
        except FileNotFoundError:
            raise UserError(
                f"no demos in {self.path}; record some: ncp-agents record pong-cfc --output "
                f"{self.path}"
            ) from None
        self.provenance, self.entries = data.provenance, list(data.episodes)


def _write_dataset(path: Path, provenance: Provenance, entries: list[Entry]) -> None:
    fields = (provenance.game, provenance.actions, provenance.protocol, provenance.player)
    data = dataclasses.asdict(_Dataset(FORMAT, *fields, tuple(entries)))
    write_text(path / DATASET, json.dumps(data, indent=1) + "\n")
