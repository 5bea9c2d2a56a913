"""Demonstrations: the format on disk, the dataset and the batches read from it."""

import io
import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ncp_agents.cli import main
from ncp_agents.datasets import AtariCloningDataset
from ncp_agents.datasets.demonstrations import Demonstrations, Provenance
from ncp_agents.datasets.episode_file import Episode, pack, unpack
from ncp_agents.datasets.sequences import Games, chunks, discounted_returns
from ncp_agents.envs.protocol import protocol
from ncp_agents.errors import UserError

TINY = replace(protocol("v4").evaluation(), frame_size=4)


def episode(steps: int, seed: int = 0, first: int = 0) -> Episode:
    """A game whose frames and actions count its steps from `first` on."""
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
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "is truncated or was changed"),
        (lambda path: path.unlink(), "is missing"),
    ],
)
def test_a_damaged_file_is_named_with_the_remedy(demos, damage, message):
    damage(demos.path / "episode_000001.npz")
    with pytest.raises(UserError, match=rf"episode_000001.npz {message}.*--drop episode_000001"):
        demos.read(1)
    assert main(["record", "--output", str(demos.path), "--drop", "episode_000001.npz"]) == 0
    assert [entry.steps for entry in Demonstrations(demos.path).entries] == [7, 13]


def test_bombs_and_code_are_refused():
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in vars(episode(50_000)).items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(array))
    with pytest.raises(ValueError, match="obs has 50000 steps, expected 10"):
        unpack(bomb.getvalue(), most_steps=10)
    code = io.BytesIO()
    np.savez(code, obs=np.array([print], dtype=object))
    with pytest.raises(ValueError, match="obs holds Python objects"):
        unpack(code.getvalue())
    with pytest.raises(ValueError, match="no archive"):
        unpack(b"nothing")


def test_a_dataset_file_that_leads_elsewhere_is_refused(demos):
    path = demos.path / "dataset.json"
    data = json.loads(path.read_text())
    data["episodes"][0]["file"] = "../secret.npz"
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"names '\.\./secret\.npz'"):
        Demonstrations(demos.path)


def test_a_player_a_sum_and_a_score_are_what_they_say(demos):
    file = demos.path / "dataset.json"
    data = json.loads(file.read_text())
    for change in ({"player": [1]}, {"episodes": [{**data["episodes"][0], "sha256": None}]}):
        file.write_text(json.dumps(data | change))
        with pytest.raises(UserError, match=r"dataset.json is damaged: "):
            Demonstrations(demos.path)


def test_episodes_without_their_dataset_file_are_not_written_over(demos):
    (demos.path / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"holds episodes, but no dataset\.json; restore it"):
        Demonstrations.create(demos.path, demos.provenance)


def test_splits_share_no_game(demos):
    train, val = demos.split("train", 0.1), demos.split("val", 0.1)
    assert len(val) == 1
    assert sorted(train + val) == [0, 1, 2]


def test_two_recorders_do_not_share_a_folder(demos):
    with (
        demos.lock(),
        pytest.raises(UserError, match="somebody else is recording"),
        Demonstrations(demos.path).lock(),
    ):
        pass


def test_a_recorder_sees_what_others_recorded_since(demos):
    late = Demonstrations(demos.path)
    with demos.lock():
        demos.append(episode(9, 3))
    with late.lock():
        assert late.append(episode(8, 4)).file == "episode_000004.npz"
    assert [entry.steps for entry in Demonstrations(demos.path).entries] == [7, 20, 13, 9, 8]
    with demos.lock(), pytest.raises(UserError, match="somebody else is recording"):
        Demonstrations(demos.path).drop("episode_000000.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.full(7, 44)}, r"actions are \[44\], expected 0 to 5"),
        (
            {"obs": np.zeros((0, 4, 4, 1), np.uint8), "actions": np.zeros(0, np.int64)},
            "no steps, expected at least one",
        ),
        (
            {"obs": np.zeros((7, 4, 5, 1), np.uint8), "actions": np.zeros(7, np.int64)},
            r"obs are \(4, 5, 1\), expected \(4, 4, 1\)",
        ),
    ],
)
def test_what_is_no_game_is_not_written(demos, change, message):
    steps = len(change["actions"])
    change = {"rewards": np.zeros(steps, np.float32), "resets": np.ones(steps, bool), **change}
    with pytest.raises(ValueError, match=message):
        demos.append(replace(episode(7, 0), **change))
    assert len(Demonstrations(demos.path).entries) == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"steps": 20', '"steps": 21', r"it has 20 steps, dataset.json says 21; drop it"),
        ('"steps": 20', '"steps": 19', r"has 20 steps, expected 19; drop it"),
        ('"NOOP"', '"FIRE"', r"dataset.json is damaged \(actions are"),
        ('"score":', '"score": null, "x":', "is damaged"),
        ('"frame_size": 4', '"frame_size": 5', r"obs are \(4, 4, 1\), expected \(5, 5, 1\)"),
    ],
)
def test_a_dataset_file_that_was_tampered_with_is_refused(demos, old, new, message):
    file = demos.path / "dataset.json"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        Demonstrations(demos.path).read(1)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"actions": np.int64(3)}, "actions is int64 of shape"),
        ({"obs": np.zeros((7, 99, 99, 1), np.uint8)}, "too many for"),
    ],
)
def test_arrays_that_are_no_episode_are_refused(arrays, message):
    file = io.BytesIO()
    np.savez_compressed(file, **{**vars(episode(7)), **arrays})
    with pytest.raises(ValueError, match=message):
        unpack(file.getvalue(), 7, step_bytes=16)


def test_a_header_that_never_ends_is_refused():
    array, file = io.BytesIO(), io.BytesIO()
    np.save(array, episode(7).obs)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(
            "obs.npy", array.getvalue().replace(b"(7, 4, 4, 1), }", b"(7, 4, 4, 1 ,  ")
        )
    with pytest.raises(ValueError, match="a header of its arrays is damaged"):
        unpack(file.getvalue(), 7, scored=False)


def test_a_game_that_is_there_twice_is_on_one_side_of_the_split(tmp_path):
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


def test_what_a_killed_recorder_left_half_written_is_swept(demos):
    left = [demos.path / ".episode_000003.x1y2z3_4.npz", demos.path / ".dataset.x1y2z3_4.json"]
    for path in left:
        path.touch()
    with demos.lock():
        assert not any(path.exists() for path in left)
    assert len(Demonstrations(demos.path).entries) == 3


def test_returns_by_hand():
    rewards = np.array([0.0, 3.0, 0.0, -5.0])
    returns = discounted_returns(rewards, np.array([True, False, False, False]), 0.5)
    np.testing.assert_allclose(returns, [0.5 - 0.125, 1 - 0.25, -0.5, -1.0])
    returns = discounted_returns(rewards, np.array([True, False, True, False]), 0.5)
    np.testing.assert_allclose(returns, [0.5, 1.0, -0.5, -1.0])


@pytest.mark.parametrize(("streams", "length"), [(1, 5), (3, 4), (4, 100), (99, 1)])
def test_pieces_hold_every_step_once_and_say_where_lives_start(demos, streams, length):
    games = [Games(demos, (2, 0, 1))]
    seen, starts = [], 0
    for chunk in chunks(games, streams, length, 0.99):
        assert chunk.actions.shape[1] == length
        seen.append(chunk.obs[chunk.counts][:, 0, 0, 0] * 1000.0 + chunk.actions[chunk.counts])
        starts += int(chunk.resets.sum())
        assert (chunk.resets <= chunk.counts).all()
        # A life's first step is the one that its frame says.
        np.testing.assert_array_equal(
            chunk.resets[chunk.counts], chunk.obs[chunk.counts][:, 0, 0, 0] % 12 == 0
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


def test_windows_stay_within_games_and_cover_them(demos):
    dataset = AtariCloningDataset("pong", "train", demos.path, sequence_length=6, cache_bytes=1)
    seen = {index: set() for index in dataset.episodes}
    for obs, actions in dataset:  # type: ignore[attr-defined]
        steps = (obs[:, 0, 0, 0] * 255).round().long()
        assert (steps.diff() == 1).all()
        assert torch.equal(actions, steps % 6)
        row = (obs[:, 0, 1] * 255).round().numpy()[..., None]  # random, another in each game
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
            game = episode(32, number)
            np.savez(folder / f"{split}_{number}.npz", obs=game.obs, actions=game.actions)
    assert len(AtariCloningDataset("Pong", "train", tmp_path)) == 3
    assert len(AtariCloningDataset("Pong", "val", tmp_path)) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: AtariCloningDataset("breakout", "train"), "no demos of breakout come with"),
        (lambda path: AtariCloningDataset("breakout", "train", path), "demos of pong, not of"),
        (lambda path: AtariCloningDataset("pong", "test", path), "split 'test' is unknown"),
        (lambda path: AtariCloningDataset("pong", "val", path, 99), "no window of 99 steps"),
    ],
)
def test_a_dataset_refuses_with_the_remedy(demos, call, message):
    with pytest.raises(UserError, match=message):
        call(demos.path)


def test_packing_keeps_to_one_percent_for_pong():
    obs = AtariCloningDataset("pong").source.read(0)
    assert len(pack(obs)) < 0.01 * obs.obs.nbytes


def test_demos_from_before_lives_were_kept_are_read():
    whole = episode(30)
    arrays = {name: value for name, value in vars(whole).items() if name != "resets"}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    assert np.flatnonzero(unpack(file.getvalue()).resets).tolist() == [0]


def test_resets_that_leave_out_the_games_start_are_refused():
    with pytest.raises(ValueError, match="resets leave out the first step"):
        replace(episode(30), resets=np.zeros(30, bool))
