"""Demonstrations to and from Minari: `pip install 'ncp-agents[minari]'`.

Two things differ. A Minari episode of T steps has T + 1 observations, the last one after the last
action; demos hold what the player saw before each action, T. So `from_minari` leaves the last one
out, and `to_minari` repeats the one before in its place. All else comes back bit for bit:
demos → Minari → demos are the same files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ale_py import Action
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from ncp_agents.datasets.demonstrations import Demonstrations, Provenance
from ncp_agents.datasets.episode_file import Episode
from ncp_agents.datasets.preprocessing import grey, observed
from ncp_agents.envs.games import action_meanings, normalise_game, screen_size
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.errors import UserError
from ncp_agents.files import atomic_folder

try:
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.dataset.minari_storage import MinariStorage
    from minari.namespace import create_namespace, list_local_namespaces
    from minari.storage import get_dataset_path
except ModuleNotFoundError as error:
    if error.name != "minari":
        raise
    raise ImportError(
        "ncp_agents.datasets.minari needs Minari: pip install 'ncp-agents[minari]'"
    ) from None

OURS = "ncp_agents"  # our entry in Minari's metadata
ALL_ACTIONS = tuple(Action(index).name for index in range(18))
HARMLESS_WRAPPERS = {"RecordEpisodeStatistics", "RecordVideo", "TimeLimit"}


def to_minari(demos: Demonstrations, dataset_id: str) -> minari.MinariDataset:
    """Write demos as a Minari dataset, which `minari.load_dataset(dataset_id)` then finds.

    Frames are kept as raw arrays, not as JPEG, and uncompressed, as Minari does. Who played, and by
    which protocol, is in the metadata under "ncp_agents"; there is no environment to recover.

    Args:
        dataset_id: such as "pong/clone-v0".

    Raises:
        UserError: a name that Minari does not take, or has already; no demos; a damaged episode.
    """
    try:
        namespace, _, _ = parse_dataset_id(dataset_id)
    except (TypeError, ValueError):
        raise UserError(
            f"dataset_id is {dataset_id!r}, expected a name like 'pong/expert-v0'"
        ) from None
    if not demos.entries:
        raise UserError(f"{demos.path} holds no games; record some")
    there, path = demos.provenance, get_dataset_path(dataset_id)
    with atomic_folder(path) as folder:
        storage = MinariStorage.new(
            folder / "data",
            spaces.Box(0, 255, demos.read(0).obs.shape[1:], np.uint8),
            spaces.Discrete(len(there.actions)),
            jpeg_encoding=False,
        )
        storage.update_metadata(
            {
                "dataset_id": dataset_id,
                "minari_version": minari.__version__,
                "algorithm_name": str(there.player.get("policy", "unknown")),
                "description": f"{there.game}, recorded by ncp-agents. The last observation of "
                "each episode repeats the one before: what came after the last action is not kept.",
                OURS: {
                    "game": there.game,
                    "protocol": asdict(there.protocol),
                    "player": there.player,
                },
            }
        )
        for index in range(len(demos.entries)):
            storage.update_episodes([_buffer(demos.read(index))])
    if namespace is not None and namespace not in list_local_namespaces():
        create_namespace(namespace)
    return minari.MinariDataset(path / "data")


def from_minari(
    dataset: str | minari.MinariDataset, output: Path, frame_skip: int = 4
) -> Demonstrations:
    """Write a Minari dataset's episodes as demos.

    Sets of raw frames, such as the published `atari/<game>/expert-v0`, are preprocessed as our
    environments do: grey, 84 by 84, and the game's own actions. Where the set has every frame, its
    steps are joined to `frame_skip` frames, and each shows the maximum of its last two. Where its
    environment skipped frames, the last one of each step is all there is, so that sprites which
    a game draws in every other frame may be missing; "frames" of the player in `dataset.json` says
    so, and "encoding" whether they were kept as JPEG, which changes them a little.

    Args:
        dataset: a set on this machine by its id, or part of one (`filter_episodes`).
        output: a folder that is not there yet.
        frame_skip: frames a step of the demos; a multiple of the set's own.

    Raises:
        UserError: no such set on this machine; not of an Atari game, or through wrappers; an
            action that the game does not have; one that changes within a step; a folder that is
            there already.
    """
    source = _open(dataset) if isinstance(dataset, str) else dataset
    metadata = source.storage.metadata
    if OURS in metadata:
        provenance, episodes = _ours(source, metadata[OURS])
    else:
        provenance, episodes = _raw(source, metadata, frame_skip)
    with atomic_folder(output) as folder:
        demos = Demonstrations.create(folder, provenance)
        for episode in episodes:
            demos.append(episode)
    return Demonstrations(output)


def _open(dataset_id: str) -> minari.MinariDataset:
    path = get_dataset_path(dataset_id) / "data"
    try:
        # Minari makes the environment where a space is missing, which runs what the file names.
        if not {"observation_space", "action_space"} <= set(MinariStorage.read_raw_metadata(path)):
            raise UserError(f"{path} does not say its spaces; make it with Minari 0.5 or later")
        return minari.MinariDataset(path)
    except UserError:
        raise
    except (ValueError, KeyError, AssertionError, OSError) as error:
        raise UserError(
            f"no Minari dataset {dataset_id!r} on this machine ({error}); "
            f"fetch it: minari download {dataset_id}"
        ) from None


def _buffer(episode: Episode) -> EpisodeBuffer:
    ends = np.zeros((2, len(episode)), bool)
    ends[:, -1] = episode.terminated, episode.truncated
    return EpisodeBuffer(
        observations=np.concatenate([episode.obs, episode.obs[-1:]]),  # type: ignore[arg-type]
        actions=episode.actions,  # type: ignore[arg-type]
        rewards=episode.rewards,  # type: ignore[arg-type]
        terminations=ends[0],  # type: ignore[arg-type]
        truncations=ends[1],  # type: ignore[arg-type]
        infos={"resets": np.append(episode.resets, False)},
    )


def _ours(source: minari.MinariDataset, there: Any) -> tuple[Provenance, Iterator[Episode]]:
    """What `to_minari` wrote."""
    try:
        protocol = AtariProtocol(**there["protocol"])
        provenance = Provenance(there["game"], protocol, dict(there["player"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source.id}: its {OURS!r} metadata is damaged ({error})") from None

    def episodes() -> Iterator[Episode]:
        for theirs in _games(source):
            resets = (theirs.infos or {}).get("resets")  # older sets have none
            obs = np.asarray(theirs.observations)[:-1]
            own = None if resets is None else resets[:-1]
            yield _episode(source, theirs, obs, theirs.actions, resets=own)

    return provenance, episodes()


def _raw(
    source: minari.MinariDataset, metadata: dict[str, Any], frame_skip: int
) -> tuple[Provenance, Iterator[Episode]]:
    """Episodes of ALE's own frames."""
    spec = source.env_spec
    if spec is None or "game" not in spec.kwargs:
        raise UserError(
            f"{source.id} does not say which Atari game it is of (its environment is "
            f"{spec and spec.id}), so it cannot become demos"
        )
    game = normalise_game(str(spec.kwargs["game"]))
    skipped = _check(source, spec, game)
    if frame_skip % skipped:
        raise UserError(
            f"{source.id} has steps of {skipped} frames, frame_skip is {frame_skip}; "
            f"expected a multiple of {skipped}"
        )
    try:
        frames = spec.kwargs.get("max_num_frames_per_episode") or AtariProtocol.max_frames
        if spec.max_episode_steps:
            frames = min(frames, spec.max_episode_steps * skipped)
        protocol = AtariProtocol(
            sticky_actions=float(spec.kwargs.get("repeat_action_probability", 0.25)),
            frame_skip=frame_skip,
            noop_max=0,
            max_frames=frames,
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{source.id}: its environment's arguments are damaged ({error})") from None
    pools = skipped == 1 and frame_skip > 1
    player = {
        "minari": source.id,
        "policy": metadata.get("algorithm_name", "unknown"),
        "author": ", ".join(sorted(metadata.get("author", ()))),
        "frames": "maximum of a step's last two" if pools else "last of each step",
        "encoding": "JPEG" if source.storage.jpeg_encoding else "raw",
    }
    table = _action_table(game, int(source.action_space.n))  # type: ignore[attr-defined]

    def episodes() -> Iterator[Episode]:
        for theirs in _games(source):
            starts = np.arange(0, len(theirs), frame_skip // skipped)
            actions = _held(source, theirs, starts, frame_skip)
            shown = theirs.observations[starts]
            if pools:
                before = theirs.observations[starts[1:] - 1]
                shown = grey(shown)
                shown[1:] = np.maximum(shown[1:], grey(before))
            names = ALL_ACTIONS if len(table) == len(ALL_ACTIONS) else action_meanings(game)
            for action in np.unique(actions):
                if table[action] < 0:
                    raise UserError(
                        f"{source.id}, episode {theirs.id} uses {names[action]}, an action that "
                        f"{game} does not have; expected {', '.join(action_meanings(game))}"
                    )
            obs = observed(shown, protocol.frame_size)
            yield _episode(source, theirs, obs, table[actions], starts)

    return Provenance(game, protocol, player), episodes()


def _check(source: minari.MinariDataset, spec: EnvSpec, game: str) -> int:
    """Refuse what is not ALE's own frames and steps → frames a step."""
    space, expected = source.observation_space, screen_size(game)
    if space.shape not in (expected, (*expected, 3)) or space.dtype != np.uint8:
        raise UserError(
            f"{source.id} has observations {space.dtype} of shape {space.shape}, expected uint8 of "
            f"{expected} or {(*expected, 3)}, the screen of {game}"
        )
    through = {wrapper.name for wrapper in spec.additional_wrappers} - HARMLESS_WRAPPERS
    if through:
        raise UserError(
            f"{source.id} was made through {', '.join(sorted(through))}, which may change steps "
            "and frames; expected ALE's own"
        )
    for name in ("mode", "difficulty"):
        if spec.kwargs.get(name):
            raise UserError(f"{source.id} has {name} {spec.kwargs[name]} of {game}, expected 0")
    skipped = spec.kwargs.get("frameskip", 4)
    whole = type(skipped) is int and skipped >= 1
    if not whole or not isinstance(source.action_space, spaces.Discrete):
        raise UserError(
            f"{source.id} has frameskip {skipped} and actions {source.action_space}, expected a "
            "whole number from 1 on and Discrete"
        )
    return skipped


def _games(source: minari.MinariDataset) -> Iterator[minari.EpisodeData]:
    """The episodes, each of them one whole game."""
    for theirs in source.iterate_episodes():
        steps, name = len(theirs), f"{source.id}, episode {theirs.id}"
        if not steps or len(theirs.observations) != steps + 1 or len(theirs.actions) != steps:
            raise UserError(
                f"{name} has {len(theirs.observations)} observations, {len(theirs.actions)} "
                f"actions and {steps} rewards, expected one observation more than the others"
            )
        if theirs.terminations[:-1].any() or theirs.truncations[:-1].any():
            raise UserError(f"{name} goes on after an end, expected one game")
        yield theirs


def _action_table(game: str, number: int) -> np.ndarray:
    """(number,): our index of each of their actions, -1 where the game does not have it."""
    ours = action_meanings(game)
    if number == len(ours):
        return np.arange(number)
    if number != len(ALL_ACTIONS):
        raise UserError(f"{number} actions are neither the {len(ours)} of {game} nor all 18")
    return np.array([ours.index(name) if name in ours else -1 for name in ALL_ACTIONS])


def _held(
    source: minari.MinariDataset, theirs: minari.EpisodeData, starts: np.ndarray, frame_skip: int
) -> np.ndarray:
    """The action of each step that begins at one of `starts`, held until the next one."""
    actions = theirs.actions[starts]
    held = np.repeat(actions, np.diff([*starts, len(theirs)]))
    changes = np.flatnonzero(held != theirs.actions)
    if len(changes):
        raise UserError(
            f"{source.id}, episode {theirs.id} changes its action within {frame_skip} frames, in "
            f"its step {changes[0]}; take its own steps, with a smaller frame_skip"
        )
    return actions


def _episode(
    source: minari.MinariDataset,
    theirs: minari.EpisodeData,
    obs: np.ndarray,
    actions: np.ndarray,
    starts: np.ndarray | None = None,
    resets: np.ndarray | None = None,
) -> Episode:
    """An episode of demos, with the rewards of the steps that begin at `starts` summed."""
    rewards = theirs.rewards if starts is None else np.add.reduceat(theirs.rewards, starts)
    try:
        return Episode(
            obs=np.ascontiguousarray(obs),
            actions=np.asarray(actions, np.int64),
            rewards=np.asarray(rewards, np.float32),
            terminated=bool(theirs.terminations[-1]),
            truncated=bool(theirs.truncations[-1]),
            resets=resets,  # type: ignore[arg-type]
        )
    except ValueError as error:
        raise UserError(f"{source.id}, episode {theirs.id}: {error}") from None
