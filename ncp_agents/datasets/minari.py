"""Demonstrations to and from Minari: `pip install 'ncp-agents[minari]'`.

A Minari episode of T steps has T + 1 observations, the last one after the last action;
demonstrations hold the T observations before each action. So `from_minari` leaves the last one out,
and `to_minari` repeats the one before in its place. Everything else comes back bit for bit.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ale_py import Action
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from ncp_agents.datasets.demonstrations import Demonstrations, Provenance
from ncp_agents.datasets.episode_file import Episode
from ncp_agents.datasets.preprocessing import grey, preprocess
from ncp_agents.envs.games import action_meanings, normalise_game, screen_size
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.errors import UserError
from ncp_agents.files import atomic_folder
from ncp_agents.schema import parse_json

try:
    import minari
    from minari.data_collector import EpisodeBuffer
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
    """Write demonstrations as a Minari dataset, which `minari.load_dataset(dataset_id)` returns.

    Frames are stored as raw arrays. Player and protocol are in the metadata under "ncp_agents";
    there is no environment to recover. All episodes are in memory at once.

    Args:
        demos: at least one episode.
        dataset_id: such as "pong/clone-v0".

    Raises:
        UserError: a name that Minari does not accept or has already; no episodes, or a damaged one.
    """
    if not re.fullmatch(r"\w[\w/-]*-v\d+", dataset_id):
        raise UserError(f"dataset_id is {dataset_id!r}, expected the form of 'pong/expert-v0'")
    if not demos.entries:
        raise UserError(f"{demos.path} holds no episodes; record some")
    provenance = demos.provenance
    buffers = [_buffer(demos.read(index)) for index in range(len(demos.entries))]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of authors and environments that are not there
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                observation_space=spaces.Box(0, 255, demos.read(0).obs.shape[1:], np.uint8),
                action_space=spaces.Discrete(len(provenance.actions)),
                algorithm_name=str(provenance.player.get("policy", "unknown")),
                description=f"{provenance.game}, recorded by ncp-agents. The last observation of "
                "each episode repeats the one before.",
                jpeg_encoding=False,
            )
    except ValueError as error:
        raise UserError(str(error)) from None
    dataset.storage.update_metadata({OURS: asdict(provenance)})
    return dataset


def _buffer(episode: Episode) -> EpisodeBuffer:
    ends = np.zeros((2, len(episode)), bool)
    ends[:, -1] = episode.terminated, episode.truncated
    arrays: dict[str, Any] = {
        "observations": np.concatenate([episode.obs, episode.obs[-1:]]),
        "actions": episode.actions,
        "rewards": episode.rewards,
        "terminations": ends[0],
        "truncations": ends[1],
        "infos": {"resets": np.append(episode.resets, False)},
    }
    return EpisodeBuffer(**arrays)


def from_minari(
    dataset: str | minari.MinariDataset, output: Path, frame_skip: int = 4
) -> Demonstrations:
    """Write a Minari dataset's episodes as demonstrations.

    Datasets of raw frames, such as the published `atari/<game>/expert-v0`, are preprocessed as in
    our environments: grey, 84 by 84, the game's own actions. Where the dataset has every frame, a
    step is `frame_skip` frames, of which the maximum of the last two is observed. Where its
    environment skipped frames, only the last one of each step is there, so sprites that a game
    draws in every other frame may be missing; "frames" of the player in `dataset.json` says so, and
    "encoding" whether frames were stored as JPEG, which changes them a little.

    Args:
        dataset: the id of a dataset on this machine, or one or a part of one (`filter_episodes`).
        output: a folder that does not exist.
        frame_skip: frames a step of the demonstrations; a multiple of the dataset's own.

    Raises:
        UserError: no such dataset on this machine, or not of an Atari game's own frames; an action
            that the game does not have, or that changes within a step; `output` exists.
    """
    if isinstance(dataset, str):
        try:
            stored = minari.list_local_datasets()[dataset]
            # Without its spaces Minari makes the environment, which runs what the file names.
            if not {"observation_space", "action_space"} <= stored.keys():
                raise ValueError("its spaces are missing")
            dataset = minari.load_dataset(dataset)
        except Exception as error:  # of Minari's parsers, for a name or files of any kind
            raise UserError(
                f"cannot load the Minari dataset {dataset!r} ({error}); download it: minari "
                f"download {dataset}"
            ) from None
    metadata = dataset.storage.metadata
    if OURS in metadata:
        source = f"{dataset.id}, metadata of {OURS}"
        provenance = parse_json(Provenance, json.dumps(metadata[OURS]), source)
        episodes = _own_episodes(dataset)
    else:
        provenance, episodes = _raw_episodes(dataset, metadata, frame_skip)
    with atomic_folder(output) as folder:
        demos = Demonstrations.create(folder, provenance)
        for episode in episodes:
            demos.append(episode)
    return Demonstrations(output)


def _own_episodes(dataset: minari.MinariDataset) -> Iterator[Episode]:
    """Yield the episodes that `to_minari` wrote."""
    for data in dataset.iterate_episodes():
        resets = (data.infos or {}).get("resets")  # older datasets have none
        obs = np.asarray(data.observations)[:-1]
        resets = None if resets is None else resets[:-1]
        yield _episode(data, obs, data.actions, data.rewards, resets)


def _raw_episodes(
    dataset: minari.MinariDataset, metadata: dict[str, Any], frame_skip: int
) -> tuple[Provenance, Iterable[Episode]]:
    """Return the provenance and the episodes of a dataset of ALE's own frames."""
    spec = dataset.env_spec
    if spec is None or "game" not in spec.kwargs:
        raise UserError(f"{dataset.id} is not of an Atari game: its environment is {spec}")
    game = normalise_game(str(spec.kwargs["game"]))
    skipped = _check_raw(dataset, spec, game)
    if frame_skip % skipped:
        raise UserError(
            f"{dataset.id} has steps of {skipped} frames, frame_skip is {frame_skip}, expected a "
            "multiple"
        )
    max_frames = spec.kwargs.get("max_num_frames_per_episode") or AtariProtocol.max_frames
    if spec.max_episode_steps:
        max_frames = min(max_frames, spec.max_episode_steps * skipped)
    protocol = AtariProtocol(
        sticky_actions=float(spec.kwargs.get("repeat_action_probability", 0.25)),
        frame_skip=frame_skip,
        noop_max=0,
        max_frames=max_frames,
    )
    steps = frame_skip // skipped  # of the dataset, in one of the demonstrations
    pooled = skipped == 1 and frame_skip > 1
    player = {
        "minari": dataset.id,
        "policy": metadata.get("algorithm_name", "unknown"),
        "author": ", ".join(sorted(metadata.get("author", ()))),
        "frames": "maximum of a step's last two" if pooled else "last of each step",
        "encoding": "JPEG" if dataset.storage.jpeg_encoding else "raw",
    }
    names = action_meanings(game)
    full = dataset.action_space.n == len(ALL_ACTIONS)  # type: ignore[attr-defined]
    their_names = ALL_ACTIONS if full else names

    def episodes() -> Iterator[Episode]:
        for data in dataset.iterate_episodes():
            starts = np.arange(0, len(data), steps)
            actions = data.actions[starts]
            if (np.repeat(actions, steps)[: len(data)] != data.actions).any():
                raise UserError(
                    f"{dataset.id}, episode {data.id} changes its action within {frame_skip} "
                    "frames; take a smaller frame_skip"
                )
            used = {their_names[action] for action in np.unique(actions)}
            if not used <= {*names}:
                raise UserError(
                    f"{dataset.id}, episode {data.id} uses {', '.join(sorted(used - {*names}))}, "
                    f"expected only actions of {game}: {', '.join(names)}"
                )
            frames = data.observations[starts]
            if pooled:
                frames = grey(frames)
                frames[1:] = np.maximum(frames[1:], grey(data.observations[starts[1:] - 1]))
            obs = preprocess(frames, protocol.frame_size)
            own = np.array([names.index(their_names[action]) for action in actions])
            yield _episode(data, obs, own, np.add.reduceat(data.rewards, starts))

    return Provenance(game, protocol, player), episodes()


def _check_raw(dataset: minari.MinariDataset, spec: EnvSpec, game: str) -> int:
    """Check that observations and steps are ALE's own → frames a step."""
    space, screen = dataset.observation_space, screen_size(game)
    skipped = spec.kwargs.get("frameskip", 4)
    wrappers = {wrapper.name for wrapper in spec.additional_wrappers} - HARMLESS_WRAPPERS
    modes = [spec.kwargs.get(name) for name in ("mode", "difficulty")]
    counts = (len(action_meanings(game)), len(ALL_ACTIONS))
    for wrong, problem in (
        (space.shape not in (screen, (*screen, 3)), f"observations of {space.shape}, not {screen}"),
        (wrappers, f"wrappers: {', '.join(sorted(wrappers))}"),
        (any(modes), f"mode and difficulty {modes}"),
        (not isinstance(skipped, int) or skipped < 1, f"frameskip {skipped}"),
        (getattr(dataset.action_space, "n", 0) not in counts, f"actions {dataset.action_space}"),
    ):
        if wrong:
            raise UserError(f"{dataset.id} has {problem}, expected plain {game} of ALE")
    return skipped


def _episode(
    data: minari.EpisodeData,
    obs: np.ndarray,
    actions: np.ndarray,
    rewards: np.ndarray,
    resets: np.ndarray | None = None,
) -> Episode:
    return Episode(
        obs=np.ascontiguousarray(obs),
        actions=np.asarray(actions, np.int64),
        rewards=np.asarray(rewards, np.float32),
        terminated=bool(data.terminations[-1]),
        truncated=bool(data.truncations[-1]),
        resets=resets,  # type: ignore[arg-type]
    )
