"""Demonstrations to Minari and back, and Minari's raw Atari frames preprocessed as ours."""

import copy
import functools
import json
from dataclasses import replace
from pathlib import Path

import ale_py
import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from ncp_agents.datasets.demonstrations import Demonstrations, Provenance
from ncp_agents.datasets.episode_file import Episode
from ncp_agents.datasets.minari import ALL_ACTIONS, from_minari, to_minari
from ncp_agents.datasets.preprocessing import grey, preprocess
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.games import action_meanings
from ncp_agents.envs.protocol import AtariProtocol, protocol
from ncp_agents.errors import UserError

gym.register_envs(ale_py)
PLAIN = AtariProtocol(noop_max=0)


@pytest.fixture(autouse=True)
def minari_folder(tmp_path, monkeypatch) -> Path:
    """Where Minari keeps its datasets."""
    path = tmp_path / "minari"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(path))
    return path


def play(game_id: str, steps: int, hold: int = 1, **kwargs):
    """An episode of random actions, each held for so many steps, in Gymnasium's environment."""
    return copy.deepcopy(_play(game_id, steps, hold, **kwargs))


@functools.cache
def _play(game_id: str, steps: int, hold: int, seed: int = 0, **kwargs):
    env = gym.make(game_id, repeat_action_probability=0.0, max_episode_steps=steps, **kwargs)
    random = np.random.default_rng(seed)
    frames, actions, rewards, ends = [env.reset(seed=seed)[0]], [], [], []
    while not ends or not any(ends[-1]):
        held = len(actions) % hold
        actions.append(actions[-1] if held else int(random.integers(env.action_space.n)))
        frame, reward, *end, _ = env.step(actions[-1])
        frames.append(frame)
        rewards.append(reward)
        ends.append(end)
    ends = np.array(ends)
    spec = env.spec
    env.close()
    game = EpisodeBuffer(
        observations=np.array(frames),
        actions=np.array(actions),
        rewards=np.array(rewards),
        terminations=ends[:, 0],
        truncations=ends[:, 1],
    )
    return spec, game


def saved(
    folder: Path, spec: EnvSpec | None, games: list[EpisodeBuffer], actions: int = 6, **kwargs
) -> str:
    """A Minari dataset `raw/game-v0`."""
    data = folder / "raw" / "game-v0" / "data"
    data.parent.mkdir(parents=True)
    space = gym.spaces.Box(0, 255, games[0].observations.shape[1:], np.uint8)
    storage = MinariStorage.new(
        data, space, gym.spaces.Discrete(actions), env_spec=spec, jpeg_encoding=False, **kwargs
    )
    storage.update_metadata(
        {
            "dataset_id": "raw/game-v0",
            "minari_version": minari.__version__,
            "author": {"A", "B"},
            "algorithm_name": "random",
        }
    )
    storage.update_episodes(games)
    return "raw/game-v0"


def ours(game: str, frame_skip: int, actions: np.ndarray, seed: int = 0):
    """The same game in our environment → obs (T, 84, 84, 1), rewards (T,)."""
    env = AtariVecEnv(game, 1, replace(PLAIN, frame_skip=frame_skip), seed=seed)
    obs, rewards = [env.reset()[0, 0]], []
    for action in actions:
        frame, reward, _, _ = env.step(np.array([action]))
        obs.append(frame[0, 0])
        rewards.append(reward[0])
    env.close()
    return np.array(obs)[:-1, ..., None], np.array(rewards)


def assert_same_frames(frames: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for means between two grey levels, which may be rounded either way."""
    difference = np.abs(frames.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).sum((1, 2, 3)).max() <= 4


def test_every_colour_becomes_the_grey_of_ale():
    """All that ALE can show, from a screen of each game with many colours."""
    for game in ("pong", "ms_pacman", "seaquest", "qbert"):
        emulator = ale_py.ALEInterface()
        emulator.loadROM(str(ale_py.roms.get_rom_path(game)))
        for _ in range(300):
            emulator.act(ale_py.Action.FIRE)
        expected = emulator.getScreenGrayscale()
        np.testing.assert_array_equal(grey(emulator.getScreenRGB()[None])[0], expected)


def test_areas_by_hand():
    """3 by 3 pixels to 2 by 2: a new pixel covers one and a half old ones each way."""
    frame = np.array([[0, 90, 0], [0, 0, 0], [90, 0, 180]], np.uint8)[None]
    expected = [[(90 * 0.5) / 2.25, (90 * 0.5) / 2.25], [90 / 2.25, 180 / 2.25]]
    np.testing.assert_array_equal(preprocess(frame, 2)[0, ..., 0], np.rint(expected))


@pytest.mark.parametrize("game", ["Pong", "Breakout", "MsPacman"])
def test_every_frame_becomes_what_our_environment_shows(game, minari_folder, tmp_path):
    """Joined to steps of four frames, maximum of the last two, grey, small; rewards added up."""
    spec, raw = play(f"ALE/{game}-v5", 199, hold=4, frameskip=1)
    actions = 4 if game == "Breakout" else 9 if game == "MsPacman" else 6
    demos = from_minari(saved(minari_folder, spec, [raw], actions), tmp_path / "demos")
    there, episode = demos.provenance, demos.read(0)
    assert there.protocol == replace(PLAIN, max_frames=199)
    assert there.player["frames"] == "maximum of a step's last two"
    assert (there.player["policy"], there.player["author"]) == ("random", "A, B")
    assert len(episode) == 50
    np.testing.assert_array_equal(episode.actions, raw.actions[::4])
    obs, rewards = ours(there.game, 4, episode.actions)
    assert_same_frames(episode.obs, obs)
    np.testing.assert_array_equal(episode.rewards[:49], rewards[:49])  # the last has 3 frames
    assert episode.rewards.sum() == raw.rewards.sum()
    assert (episode.terminated, episode.truncated) == (False, True)


def test_skipped_frames_show_the_last_of_each_step(minari_folder, tmp_path):
    """As in the published sets: ALE/…-v5 with its four frames a step, without sticky actions."""
    spec, raw = play("ALE/Pong-v5", 60)
    demos = from_minari(saved(minari_folder, spec, [raw]), tmp_path / "demos")
    there, episode = demos.provenance, demos.read(0)
    assert there.player["frames"] == "last of each step"
    assert there.protocol.frame_skip == 4
    obs, rewards = ours("pong", 4, raw.actions)
    np.testing.assert_array_equal(episode.obs, preprocess(raw.observations[:-1], 84))
    # Pong draws nothing in every other frame only, but the maximum shows what moves twice.
    assert np.abs(episode.obs.astype(int) - obs).mean() < 1.0
    np.testing.assert_array_equal(episode.rewards, rewards)
    with pytest.raises(UserError, match="within 8 frames"):
        from_minari("raw/game-v0", tmp_path / "eight", frame_skip=8)
    with pytest.raises(UserError, match="frame_skip is 3"):
        from_minari("raw/game-v0", tmp_path / "three", frame_skip=3)
    assert {path.name for path in tmp_path.iterdir()} == {"minari", "demos"}


def test_a_game_over_is_kept(minari_folder, tmp_path):
    spec, raw = play("ALE/Pong-v5", 5)
    raw.terminations[-1], raw.truncations[-1] = True, False
    demos = from_minari(saved(minari_folder, spec, [raw, raw]), tmp_path / "demos")
    assert [(e.terminated, e.truncated) for e in map(demos.read, (0, 1))] == [(True, False)] * 2


def test_all_eighteen_actions_become_the_games_own(minari_folder, tmp_path):
    spec, raw = play("ALE/Pong-v5", 12, full_action_space=True)
    names = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    raw.actions[:] = [ALL_ACTIONS.index(name) for name in names * 2]
    dataset = saved(minari_folder, spec, [raw], 18)
    demos = from_minari(dataset, tmp_path / "demos")
    assert action_meanings("pong") == names
    np.testing.assert_array_equal(demos.read(0).actions, [*range(6)] * 2)
    assert not demos.provenance.protocol.full_action_space


def test_an_action_that_the_game_lacks_is_named(minari_folder, tmp_path):
    spec, raw = play("ALE/Pong-v5", 12, full_action_space=True)
    raw.actions[:] = 0
    raw.actions[3] = ALL_ACTIONS.index("UPFIRE")
    with pytest.raises(UserError, match="episode 0 uses UPFIRE"):
        from_minari(saved(minari_folder, spec, [raw], 18), tmp_path / "demos")
    assert [path.name for path in tmp_path.iterdir()] == ["minari"]


def changed(spec: EnvSpec, **changes) -> EnvSpec:
    """A spec with other kwargs, or with wrappers."""
    wrappers = tuple(
        WrapperSpec(name, f"nowhere:{name}", {}) for name in changes.pop("wrappers", ())
    )
    return replace(spec, kwargs={**spec.kwargs, **changes}, additional_wrappers=wrappers)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda spec, raw: (None, raw), "Atari"),
        (lambda spec, raw: (gym.spec("CartPole-v1"), raw), "CartPole-v1"),
        (lambda spec, raw: (changed(spec, game=5), raw), "game '5'"),
        (lambda spec, raw: (changed(spec, frameskip=(2, 5)), raw), r"frameskip \[2, 5\]"),
        (lambda spec, raw: (changed(spec, frameskip=0), raw), "frameskip 0"),
        (lambda spec, raw: (changed(spec, mode=1), raw), "mode"),
        (lambda spec, raw: (changed(spec, wrappers=["Skip"]), raw), "wrappers: Skip"),
        (
            lambda spec, raw: (spec, replace(raw, observations=raw.observations[:, :84, :84])),
            r"\(84, 84, 3\)",
        ),
    ],
)
def test_what_is_no_plain_atari_dataset_is_refused(make, message, minari_folder, tmp_path):
    spec, raw = make(*play("ALE/Pong-v5", 6))
    with pytest.raises(UserError, match=message):
        from_minari(saved(minari_folder, spec, [raw]), tmp_path / "demos")
    assert [path.name for path in tmp_path.iterdir()] == ["minari"]


def test_harmless_wrappers_and_jpeg_are_read(minari_folder, tmp_path):
    """Minari stores frames as JPEG by default, which the provenance says."""
    spec, raw = play("ALE/Pong-v5", 6)
    spec = changed(spec, wrappers=["RecordEpisodeStatistics"])
    dataset = minari.create_dataset_from_buffers
    with pytest.warns(UserWarning, match="is set to None"):
        dataset("jpeg/pong-v0", [raw], spec.id, algorithm_name="random", jpeg_encoding=True)
    demos = from_minari("jpeg/pong-v0", tmp_path / "jpeg")
    assert demos.provenance.player["encoding"] == "JPEG"
    plain = from_minari(saved(minari_folder, spec, [raw]), tmp_path / "plain")
    assert plain.provenance.player["encoding"] == "raw"
    difference = np.abs(demos.read(0).obs.astype(int) - plain.read(0).obs)
    assert 0 < difference.mean() < 5


def written(path: Path, stack: int = 1, **changes) -> Demonstrations:
    """Demonstrations of random frames and uneven games."""
    rules = protocol("v4", frame_stack=stack, **changes)
    demos = Demonstrations.create(path, Provenance("pong", rules, {"policy": "test", "seed": 3}))
    random = np.random.default_rng(0)
    for steps, terminated, truncated in ((5, True, False), (9, False, True), (1, False, False)):
        obs = random.integers(0, 256, (steps, 84, 84, stack), np.uint8)
        rewards = random.normal(size=steps).astype(np.float32)
        actions = random.integers(0, 6, steps)
        resets = np.arange(steps) % 4 == 0
        demos.append(Episode(obs, actions, rewards, terminated, truncated, resets))
    return demos


@pytest.mark.parametrize("stack", [1, 4])
def test_demos_come_back_the_same_files(stack, tmp_path):
    demos = written(tmp_path / "there", stack)
    dataset = to_minari(demos, "pong/test-v0")
    again = from_minari("pong/test-v0", tmp_path / "back")
    for file in sorted(demos.path.iterdir()):
        assert (again.path / file.name).read_bytes() == file.read_bytes(), file.name
    part = dataset.filter_episodes(lambda episode: len(episode) > 3)
    assert [entry.steps for entry in from_minari(part, tmp_path / "part").entries] == [5, 9]


def test_minari_reads_what_was_recorded(tmp_path):
    demos = written(tmp_path / "there")
    to_minari(demos, "pong/test-v0")
    dataset = minari.load_dataset("pong/test-v0")
    assert "pong/test-v0" in minari.list_local_datasets()
    assert (dataset.total_episodes, dataset.total_steps) == (3, 15)
    assert dataset.action_space == gym.spaces.Discrete(6)
    for index, theirs in enumerate(dataset.iterate_episodes()):
        mine = demos.read(index)
        np.testing.assert_array_equal(theirs.observations, [*mine.obs, mine.obs[-1]])
        assert theirs.observations[0] in dataset.observation_space
        np.testing.assert_array_equal(theirs.actions, mine.actions)
        np.testing.assert_array_equal(theirs.rewards, mine.rewards)
        assert theirs.rewards.dtype == np.float32
        assert theirs.terminations.tolist() == [False] * (len(mine) - 1) + [mine.terminated]
        assert theirs.truncations.tolist() == [False] * (len(mine) - 1) + [mine.truncated]


@pytest.mark.parametrize("name", ["pong", "../pong-v0", "pong-expert", ""])
def test_names_that_minari_does_not_accept(name, minari_folder, tmp_path):
    with pytest.raises(UserError, match=f"dataset_id is {name!r}"):
        to_minari(written(tmp_path / "there"), name)
    assert not minari_folder.exists()


def test_a_present_or_missing_dataset_is_one_line(minari_folder, tmp_path):
    demos = written(tmp_path / "there")
    to_minari(demos, "pong/test-v0")
    with pytest.raises(UserError, match="pong/test-v0"):
        to_minari(demos, "pong/test-v0")
    with pytest.raises(UserError, match=r"pong/none-v0.*minari download"):
        from_minari("pong/none-v0", tmp_path / "out")
    with pytest.raises(UserError, match="there exists"):
        from_minari("pong/test-v0", tmp_path / "there")
    with pytest.raises(UserError, match="no episodes"):
        to_minari(Demonstrations.create(tmp_path / "new", demos.provenance), "pong/new-v0")
    (demos.path / "episode_000001.npz").write_bytes(b"")
    with pytest.raises(UserError, match="episode_000001"):
        to_minari(demos, "pong/damaged-v0")
    folders = [path.name for path in (minari_folder / "pong").iterdir() if path.is_dir()]
    assert folders == ["test-v0"]


def test_nothing_that_a_dataset_names_is_run(minari_folder, tmp_path):
    """Minari itself would make the environment to find out the space that is missing."""
    to_minari(written(tmp_path / "there"), "pong/test-v0")
    path = minari_folder / "pong" / "test-v0" / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["action_space"]
    evil = {"id": "Evil-v0", "entry_point": "antigravity:Env"}
    path.write_text(json.dumps({**metadata, "env_spec": json.dumps(evil)}))
    with pytest.raises(UserError, match="spaces"):
        from_minari("pong/test-v0", tmp_path / "out")


@pytest.mark.parametrize("damage", [{"game": 3}, {"protocol": {"frame_skip": 0}}, {"player": None}])
def test_damaged_metadata_is_named(damage, minari_folder, tmp_path):
    to_minari(written(tmp_path / "there"), "pong/test-v0")
    path = minari_folder / "pong" / "test-v0" / "data" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["ncp_agents"].update(damage)
    path.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match=f"ncp_agents.*{min(damage)}"):
        from_minari("pong/test-v0", tmp_path / "out")
