"""Demonstrations: the format on disk, the dataset and the batches read from it."""

import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ncp_agents.cli import main
from ncp_agents.datasets import AtariCloningDataset
from ncp_agents.datasets.demonstrations import Demonstrations, Provenance
from ncp_agents.datasets.episode_file import Episode, decode_episode, encode_episode
from ncp_agents.datasets.sequences import EpisodeSubset, chunks, discounted_returns
from ncp_agents.envs.protocol import protocol
from ncp_agents.errors import UserError

TINY = replace(protocol("v4").evaluation(), frame_size=4)


def episode(steps: int, seed: int = 0, first: int = 0) -> Episode:
    """An episode whose frames and actions count its steps from `first` on."""
    random = np.random.default_rng(seed)
    obs = random.integers(0, 255, (steps, 4, 4, 1), np.uint8)
    obs[:, 0, 0, 0] = (first + np.arange(steps)) % 256
    rewards = random.integers(-1, 2, steps).astype(np.float32)
    resets = np.arange(steps) % 12 == 0  # a life is 12 steps long
    return Episode(obs, (first + np.arange(steps)) % 6, rewards, True, False, resets)


@pytest.fixture
def demos(tmp_path) -> Demonstrations:
    made = Demonstrations.create(tmp_path / "demos", Provenance("pong", TINY, {"policy": "test"}))
    for seed, steps in enumerate((7, 20, 13)):
        made.append(episode(steps, seed))
    return made


def test_what_was_written_is_read_bit_for_bit(demos):
    again = Demonstrations(demos.path)
    assert again.provenance == demos.provenance
    assert again.steps == 40
    for seed, steps in enumerate((7, 20, 13)):
        for name, value in vars(episode(steps, seed)).items():
            np.testing.assert_array_equal(getattr(again.read(seed), name), value)


def test_numpy_reads_the_files_without_pickle(demos):
    with np.load(demos.path / "episode_000001.npz", allow_pickle=False) as arrays:
        assert arrays["obs"].shape == (20, 4, 4, 1)
        assert set(arrays) == {*vars(episode(20))}


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: path.unlink()]
)
def test_a_damaged_file_is_named_with_the_remedy(demos, damage):
    damage(demos.path / "episode_000001.npz")
    with pytest.raises(UserError, match=r"--drop episode_000001\.npz"):
        demos.read(1)
    assert main(["record", "--output", str(demos.path), "--drop", "episode_000001.npz"]) == 0
    assert [entry.steps for entry in Demonstrations(demos.path).entries] == [7, 13]


def packed(**arrays) -> bytes:
    """The file of an episode of 7 steps with other arrays."""
    file = io.BytesIO()
    np.savez_compressed(file, **{**vars(episode(7)), **arrays})
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"nothing", "npz"),
        (packed()[:500], "npz"),
        (packed().replace(b"obs.npy", b"sbo.npy"), "obs"),
        (packed()[:300] + bytes(50) + packed()[350:], "damaged"),
        (packed(obs=np.array([print], dtype=object)), "allow_pickle=False"),
        (packed(obs=np.zeros((9999, 4, 4, 1), np.uint8)), "expected at most 5,000"),
        (packed(actions=np.int64(3)), "actions is int64"),
        (packed(actions=np.zeros(7)), "actions is float64"),
        (packed(resets=np.zeros(7, bool)), "resets"),
    ],
)
def test_what_is_no_episode_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        decode_episode(data, max_bytes=5000)


def test_episodes_without_their_dataset_file_are_not_written_over(demos):
    (demos.path / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"dataset\.json"):
        Demonstrations.create(demos.path, demos.provenance)


def test_splits_share_no_game(demos):
    train, val = demos.split("train", 0.1), demos.split("val", 0.1)
    assert len(val) == 1
    assert sorted(train + val) == [0, 1, 2]


def test_a_locked_folder_is_of_one_process_that_reads_what_others_wrote(demos):
    late = Demonstrations(demos.path)
    with demos.lock():
        demos.append(episode(9, 3))
        for attempt in (late.lock().__enter__, lambda: late.drop("episode_000000.npz")):
            with pytest.raises(UserError, match="locked"):
                attempt()
    with late.lock():
        assert late.append(episode(8, 4)).file == "episode_000004.npz"
    assert [entry.steps for entry in Demonstrations(demos.path).entries] == [7, 20, 13, 9, 8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.full(7, 44)}, "44"),
        ({"obs": np.zeros((0, 4, 4, 1), np.uint8), "actions": np.zeros(0, np.int64)}, "steps"),
        ({"obs": np.zeros((7, 4, 5, 1), np.uint8)}, r"\(4, 5, 1\)"),
    ],
)
def test_what_is_no_episode_of_the_game_is_not_written(demos, change, message):
    steps = len(change.get("actions", range(7)))
    change = {"rewards": np.zeros(steps, np.float32), "resets": np.ones(steps, bool), **change}
    with pytest.raises(ValueError, match=message):
        demos.append(replace(episode(7, 0), **change))
    assert len(Demonstrations(demos.path).entries) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"format": 1', '"format": 2', "format is 2"),
        ('"game": "pong"', '"game": "pnog"', "pong"),
        ('"NOOP"', '"FIRE"', "actions"),
        ('"frame_skip": 4', '"frame_skip": 0', "frame_skip is 0"),
        ('"player": {', '"player": [], "x": {', "player"),
        ("episode_000001.npz", "../secret.npz", r"\.\./secret"),
        ('"steps": 20', '"steps": 0', "steps is 0"),
        ('"score":', '"score": null, "x":', "score"),
        ('"sha256": "', '"sha256": 3, "x": "', "sha256"),
        ("{", "", "JSON"),
    ],
)
def test_a_dataset_file_that_is_wrong_is_refused(demos, old, new, message):
    file = demos.path / "dataset.json"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=rf"dataset\.json.*{message}"):
        Demonstrations(demos.path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"steps": 20', '"steps": 21', "20 steps, expected 21"),
        ('"steps": 20', '"steps": 19', "20 steps, expected 19"),
        ('"frame_size": 4', '"frame_size": 5', r"\(4, 4, 1\), expected \(5, 5, 1\)"),
    ],
)
def test_a_dataset_file_and_an_episode_that_disagree_are_refused(demos, old, new, message):
    file = demos.path / "dataset.json"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        Demonstrations(demos.path).read(1)


def test_equal_episodes_are_on_one_side_of_the_split(tmp_path):
    made = Demonstrations.create(tmp_path / "twice", Provenance("pong", TINY, {}))
    for seed in (0, 1, 2, 0, 1, 2):
        made.append(episode(5, seed))
    for share in (0.1, 0.4, 0.9):
        train, val = (
            {made.entries[i].sha256 for i in made.split(name, share)} for name in ("train", "val")
        )
        assert train
        assert val
        assert not train & val


def test_what_a_killed_recorder_left_is_removed(demos):
    left = [demos.path / f".{name}.x.unfinished" for name in ("episode_000003.npz", "dataset.json")]
    for path in left:
        path.mkdir()
    with demos.lock():
        assert not any(path.exists() for path in left)


def test_returns_by_hand():
    rewards = np.array([0.0, 3.0, 0.0, -5.0])
    returns = discounted_returns(rewards, np.array([True, False, False, False]), 0.5)
    np.testing.assert_allclose(returns, [0.5 - 0.125, 1 - 0.25, -0.5, -1.0])
    returns = discounted_returns(rewards, np.array([True, False, True, False]), 0.5)
    np.testing.assert_allclose(returns, [0.5, 1.0, -0.5, -1.0])


@pytest.mark.parametrize(("streams", "length"), [(1, 5), (3, 4), (4, 100), (99, 1)])
def test_chunks_hold_every_step_once_and_say_where_lives_start(demos, streams, length):
    subsets = [EpisodeSubset(demos, (2, 0, 1))]
    seen, starts = [], 0
    for chunk in chunks(subsets, streams, length, 0.99):
        assert chunk.actions.shape[1] == length
        seen.append(chunk.obs[chunk.mask][:, 0, 0, 0] * 1000.0 + chunk.actions[chunk.mask])
        starts += int(chunk.resets.sum())
        assert (chunk.resets <= chunk.mask).all()
        # A life's first step is the one that its frame says.
        np.testing.assert_array_equal(
            chunk.resets[chunk.mask], chunk.obs[chunk.mask][:, 0, 0, 0] % 12 == 0
        )
    expected = [np.arange(n) * 1000.0 + np.arange(n) % 6 for n in (7, 20, 13)]
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.sort(np.concatenate(expected)))
    assert starts == 5


def test_the_shipped_pong_set_is_ready():
    """As the seed document has it, offline on a fresh machine."""
    dataset = AtariCloningDataset(env_name="Pong", split="train")
    obs, actions = next(iter(DataLoader(dataset, batch_size=32, shuffle=True)))
    assert obs.shape == (32, 32, 1, 84, 84)
    assert obs.dtype == torch.float32
    assert 0.0 <= obs.min() < obs.max() <= 1.0
    assert actions.dtype == torch.int64
    validation = AtariCloningDataset("ALE/Pong-v5", "val")
    assert not set(dataset.episodes) & set(validation.episodes)
    assert sum(entry.steps for entry in dataset.source.entries) >= 10_000


def test_windows_stay_within_episodes_and_cover_them(demos):
    dataset = AtariCloningDataset("pong", "train", demos.path, sequence_length=6, cache_bytes=1)
    seen = {index: set() for index in dataset.episodes}
    for obs, actions in dataset:  # type: ignore[attr-defined]
        steps = (obs[:, 0, 0, 0] * 255).round().long()
        assert (steps.diff() == 1).all()
        assert torch.equal(actions, steps % 6)
        row = (obs[:, 0, 1] * 255).round().numpy()[..., None]  # random, another in each episode
        for index in seen:
            whole = dataset.source.read(index).obs
            if steps[-1] < len(whole) and np.array_equal(whole[steps, 1], row):
                seen[index] |= set(steps.tolist())
    for index, steps in seen.items():
        assert steps == set(range(dataset.source.entries[index].steps))
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[0][0], dataset[0][0])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same(demos, method):
    dataset = AtariCloningDataset("pong", "train", demos.path, sequence_length=6)
    alone = list(DataLoader(dataset, batch_size=2))
    shared = list(DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=method))
    for one, other in zip(alone, shared, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_layout_of_ncps_reads_too(tmp_path):
    folder = tmp_path / "data_atari_seq" / "pong"
    folder.mkdir(parents=True)
    for split, count in (("train", 3), ("val", 2)):
        for number in range(count):
            one = episode(32, number)
            np.savez(folder / f"{split}_{number}.npz", obs=one.obs, actions=one.actions)
    dataset = AtariCloningDataset("Pong", "train", tmp_path)
    assert len(dataset) == 3
    assert len(AtariCloningDataset("Pong", "val", tmp_path)) == 2
    assert torch.equal(dataset[1][1], torch.from_numpy(episode(32, 1).actions))
    (folder / "train_1.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"train_1\.npz"):
        AtariCloningDataset("Pong", "train", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("breakout", "train"), "breakout"),
        (("breakout", "train", "demos"), "demos of pong, not of breakout"),
        (("pong", "test", "demos"), "'test'"),
        (("pong", "val", "demos", 99), "99 steps"),
        (("pong", "val", "demos", 0), "sequence_length"),
        (("pong", "val", "none"), "none"),
    ],
)
def test_a_dataset_names_what_is_missing(demos, monkeypatch, arguments, message):
    monkeypatch.chdir(demos.path.parent)
    with pytest.raises(ValueError, match=message):
        AtariCloningDataset(*arguments)


def test_files_have_one_percent_of_pongs_frames():
    pong = AtariCloningDataset("pong").source.read(0)
    assert len(encode_episode(pong)) < 0.01 * pong.obs.nbytes


def test_demonstrations_without_resets_are_read():
    arrays = {name: value for name, value in vars(episode(30)).items() if name != "resets"}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    assert np.flatnonzero(decode_episode(file.getvalue(), 10_000).resets).tolist() == [0]
