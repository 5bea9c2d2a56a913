"""Demonstrations on disk: a folder with `dataset.json` and one compressed `.npz` file an episode.

`dataset.json` says what was played, by whom and under which protocol, and of each file its steps,
its return and its SHA-256. An episode is in it only once its file is whole and on disk, so a
recorder killed at any moment leaves all finished episodes and nothing else that counts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from ncp_agents import registry
from ncp_agents.datasets.episode_file import Episode, check_actions, pack, unpack
from ncp_agents.envs.games import action_meanings, normalise_game
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.errors import UserError
from ncp_agents.files import atomic_write, remove_temporary_files, write_text

DATASET = "dataset.json"
FORMAT = 1
FILE = re.compile(r"episode_\d{6}\.npz")


@dataclass(frozen=True)
class Entry:
    """What `dataset.json` says of one episode."""

    file: str
    sha256: str
    steps: int
    score: float


@dataclass(frozen=True)
class Provenance:
    """What was played, how and by whom: whole games with unclipped rewards, so of the protocol its
    `evaluation()`.
    """

    game: str
    protocol: AtariProtocol
    player: dict[str, Any]
    """Such as {"policy": "pong-cfc", "weights_sha256": …, "epsilon": 0.0, "seed": 0}."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "game", normalise_game(self.game))
        object.__setattr__(self, "protocol", self.protocol.evaluation())

    @property
    def actions(self) -> tuple[str, ...]:
        """The names of the actions, by index."""
        return action_meanings(self.game, self.protocol.full_action_space)


class Demonstrations:
    """A demos folder. `Demonstrations.create` and `Demonstrations.append` write, `Demonstrations(path)` reads.

    Raises:
        UserError: no such folder; a `dataset.json` that is damaged or of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.provenance, self.entries = _read_dataset(path)

    @classmethod
    def create(cls, path: Path, provenance: Provenance) -> Self:
        """A new, empty folder of demos.

        Raises:
            UserError: there are demos already.
        """
        if (path / DATASET).exists():
            raise UserError(f"{path} holds demos already; --resume adds to them, or name another")
        if any(FILE.fullmatch(file.name) for file in path.glob("*")):
            raise UserError(
                f"{path} holds episodes, but no {DATASET}; restore it, or name another folder"
            )
        _write_dataset(path, provenance, [])
        return cls(path)

    @property
    def steps(self) -> int:
        return sum(entry.steps for entry in self.entries)

    @property
    def size(self) -> int:
        """Bytes of the episodes that are on disk."""
        return sum(
            (self.path / entry.file).stat().st_size
            for entry in self.entries
            if (self.path / entry.file).exists()
        )

    def split(self, name: str, share: float) -> list[int]:
        """The episodes of a split: "val", a share of them but at least one where there are two,
        or "train", the others. Which go where depends on nothing but the episodes.
        """
        games = sorted({entry.sha256 for entry in self.entries})  # some may be there twice
        held_out = {*games[: min(math.ceil(share * len(games)), len(games) - 1)]} if games else {}
        return [
            index
            for index, entry in enumerate(self.entries)
            if (entry.sha256 in held_out) == (name == "val")
        ]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """A context of the only one who writes, who sees what others wrote before; entering raises
        UserError while there is another.
        """
        lock = FileLock(self.path / ".recording.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"somebody else is recording to {self.path}; name another") from None
        try:
            self.provenance, self.entries = _read_dataset(self.path)
            remove_temporary_files(self.path / DATASET)
            remove_temporary_files(self.path / self._next_file)
            yield
        finally:
            lock.release()

    def append(self, episode: Episode) -> Entry:
        """Write one episode, then add it to `dataset.json`.

        Raises:
            ValueError: no steps, or actions that the game does not have.
        """
        if not len(episode):
            raise ValueError("the episode has no steps, expected at least one")
        self._check(episode)
        data = pack(episode)
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
        """Take an episode out, such as a damaged one.

        Raises:
            UserError: no episode has this file, or somebody is recording.
        """
        with self.lock():
            registry.get("episode", file, [entry.file for entry in self.entries])
            self.entries = [entry for entry in self.entries if entry.file != file]
            _write_dataset(self.path, self.provenance, self.entries)
            (self.path / file).unlink(missing_ok=True)

    def read(self, index: int) -> Episode:
        """One episode.

        Raises:
            UserError: a file that is gone, changed or truncated.
        """
        entry = self.entries[index]
        path = self.path / entry.file
        advice = (
            f"; drop it: ncp-agents record --output {shlex.quote(str(self.path))} --drop "
            f"{entry.file}, "
            "and record another with --resume"
        )
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{path} is missing{advice}") from None
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise UserError(f"{path} is truncated or was changed since it was recorded{advice}")
        try:
            episode = unpack(data, entry.steps, step_bytes=math.prod(self._frame))
            if len(episode) != entry.steps:
                raise ValueError(f"it has {len(episode)} steps, {DATASET} says {entry.steps}")
            self._check(episode)
        except ValueError as error:
            raise UserError(f"{path} is not an episode: {error}{advice}") from None
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


def _write_dataset(path: Path, provenance: Provenance, entries: Sequence[Entry]) -> None:
    data = {
        "format": FORMAT,
        "game": provenance.game,
        "actions": list(provenance.actions),
        "protocol": dataclasses.asdict(provenance.protocol),
        "player": provenance.player,
        "episodes": [dataclasses.asdict(entry) for entry in entries],
    }
    write_text(path / DATASET, json.dumps(data, indent=1) + "\n")


def _read_dataset(path: Path) -> tuple[Provenance, list[Entry]]:
    file = path / DATASET
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise UserError(f"{file} has format {data['format']}, expected {FORMAT}")
        provenance = Provenance(data["game"], AtariProtocol(**data["protocol"]), data["player"])
        entries = [Entry(**entry) for entry in data["episodes"]]
        if data["actions"] != list(provenance.actions):
            raise ValueError(f"actions are {data['actions']}, expected {provenance.actions}")
    except FileNotFoundError:
        raise UserError(
            f"no demos in {path}; record some: ncp-agents record pong-cfc --output {path}"
        ) from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}); restore it, or record elsewhere") from None
    if not isinstance(provenance.player, dict):
        raise UserError(f"{file} is damaged: its player is {provenance.player!r}")
    for entry in entries:
        if not isinstance(entry.file, str) or not FILE.fullmatch(entry.file):  # nor any other path
            raise UserError(f"{file} names {entry.file!r}, expected the like of episode_000000.npz")
        if type(entry.steps) is not int or entry.steps < 1:
            raise UserError(f"{file} is damaged: {entry.file} has {entry.steps!r} steps")
        if not isinstance(entry.sha256, str) or type(entry.score) not in (int, float):
            raise UserError(
                f"{file} is damaged: {entry.file} has sha256 {entry.sha256!r}, score "
                f"{entry.score!r}"
            )
    return provenance, entries
