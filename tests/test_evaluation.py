"""Evaluation: whole games, fixed quotas, the circuit's state, seeds, statistics, scores on disk."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import scipy.stats
import torch
from rich.console import Console

from ncp_agents.envs import AtariVecEnv
from ncp_agents.envs.protocol import PROTOCOLS, protocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation import (
    evaluate,
    evaluate_command,
    first_games,
    protocol_name,
    run_loop,
)
from ncp_agents.files import write_text
from ncp_agents.recipe import Environment, Recipe, to_toml
from ncp_agents.saved_policy import SavedPolicy, build
from ncp_agents.scores import Scores, policies_table, read_scores, table, write_scores

SHORT = protocol("v4", max_frames=100)  # 25 steps a game


def fresh_policy(game="pong", **environment):
    torch.manual_seed(5)
    recipe = Recipe(environment=Environment(game=game, **environment))
    return SavedPolicy(recipe, build(recipe))


@pytest.fixture(scope="module")
def pong():
    return fresh_policy()


@pytest.fixture(scope="module")
def breakout():
    """A fresh policy loses its five lives after 100 to 400 steps, so games differ in length."""
    return fresh_policy("breakout")


def scores(returns=(1.0, 2.0, 3.0, 4.0), **changes):
    values = {
        "game": "pong",
        "protocol": "v4",
        "deterministic": False,
        "seed": 0,
        "returns": tuple(returns),
        "lengths": tuple(100 + i for i in range(len(returns))),
    }
    return Scores(**values | changes)


def test_every_environment_plays_its_quota(breakout):
    counted = []
    result = evaluate(breakout, 3, num_envs=2, seed=8, on_game=counted.append)

    env = AtariVecEnv("breakout", 2, PROTOCOLS["v4"].evaluation(), seed=8)
    games = [], []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        observation, state, start = env.reset(), None, np.ones(2, bool)
        while len(games[0]) < 2 or len(games[1]) < 1:
            actions, state = breakout.act(observation, state, start)
            observation, _, start, infos = env.step(actions)
            for own, info in zip(games, infos, strict=True):
                if "episode" in info:
                    own.append((info["episode"]["r"], info["episode"]["l"]))

    assert len(games[1]) > 1  # it had time for more than its quota
    expected = games[0][:2] + games[1][:1]
    assert list(zip(result.returns, result.lengths, strict=True)) == expected
    assert sorted(counted) == sorted(expected)


def test_same_seed_same_scores_and_the_callers_random_numbers_stay(breakout):
    torch.manual_seed(123)
    expected = torch.rand(3)

    torch.manual_seed(123)
    first = evaluate(breakout, 1, seed=1)
    drawn = torch.rand(3)
    second = evaluate(breakout, 1, seed=1)
    other = evaluate(breakout, 1, seed=2)

    assert torch.equal(drawn, expected)
    assert first == second
    assert first.lengths != other.lengths


def test_games_are_scored_whole_and_unclipped():
    policy = fresh_policy("ms_pacman")
    result = evaluate(policy, 1, protocol("v4", max_frames=1600))
    assert result.lengths == (400,)  # about two lives, and points in tens
    assert result.mean >= 50


def test_the_frame_stack_is_the_policys():
    result = evaluate(fresh_policy(frame_stack=2), 1, SHORT)
    assert result.lengths == (25,)
    assert result.protocol == "v4(max_frames=100)"


def test_state_is_handed_on_and_reset_where_a_game_starts(breakout):
    env = AtariVecEnv("breakout", 2, PROTOCOLS["v4"].evaluation(), seed=3)
    before = None
    starts = carried_on = 0
    for number, step in enumerate(itertools.islice(run_loop(breakout, env), 600)):
        states = step.state[0]
        assert step.episode_starts.all() or number
        for i in range(2):
            if number and not (step.episode_starts.any() or number % 50 == 0):
                continue  # enough are looked at
            own = step.observations[i : i + 1]
            fresh = breakout.act(own, None)[1][0][:, 0]
            if step.episode_starts[i]:
                np.testing.assert_allclose(states[:, i], fresh, atol=1e-5)
                starts += 1
            else:
                previous = tuple(part[:, i : i + 1] for part in before)
                alone = breakout.act(own, previous)[1][0][:, 0]
                np.testing.assert_allclose(states[:, i], alone, atol=1e-5)
                assert np.abs(states[:, i] - fresh).max() > 1e-3
                carried_on += 1
        before = step.state
    assert starts >= 4
    assert carried_on >= 10


def test_steps_say_what_the_policy_saw_did_and_got(pong):
    env = AtariVecEnv("pong", 2, SHORT, seed=4)
    again = AtariVecEnv("pong", 2, SHORT, seed=4)
    observations = again.reset()
    dones = np.ones(2, bool)
    for step in first_games(run_loop(pong, env), 2):
        np.testing.assert_array_equal(step.observations, observations)
        np.testing.assert_array_equal(step.episode_starts, dones)
        assert step.screens is None
        observations, rewards, dones, infos = again.step(step.actions)
        np.testing.assert_array_equal(step.rewards, rewards)
        assert ["episode" in info for info in step.infos] == ["episode" in info for info in infos]
    assert dones.all()


def test_watching_can_end_early(pong):
    def watch(steps):
        for step in itertools.islice(steps, 60):
            assert step.screens[0].shape == (210, 160, 3)
            yield step

    result = evaluate(pong, 3, SHORT, num_envs=1, watch=watch)
    assert result.lengths == (25, 25)


def test_statistics_worked_out_by_hand():
    # mean 2.5; squares 2.25 + 0.25 + 0.25 + 2.25 = 5, std √(5 / 3);
    # t(3) at 97.5 % is 3.18245 in tables; 3.18245 · 1.29099 / 2 = 2.05426
    result = scores((1.0, 2.0, 3.0, 4.0), lengths=(10, 20, 30, 60))
    assert result.mean == 2.5
    assert result.std == pytest.approx(math.sqrt(5 / 3))
    assert result.interval == pytest.approx((0.44574, 4.55426), abs=1e-5)
    assert result.mean_length == 30
    assert result.human_normalised == pytest.approx((2.5 + 20.7) / (14.6 + 20.7))


def test_the_interval_is_scipys():
    returns = np.random.default_rng(0).normal(10, 5, 30)
    expected = scipy.stats.t.interval(0.95, 29, returns.mean(), scipy.stats.sem(returns))
    assert scores(returns).interval == pytest.approx(expected)


def test_one_game_has_no_spread():
    result = scores((7.0,))
    assert result.mean == 7.0
    assert all(map(math.isnan, (result.std, *result.interval)))
    assert math.isnan(scores(()).mean)


def test_table_shows_everything():
    console = Console(width=80)
    with console.capture() as capture:
        both = scores(), scores((7.0,), lengths=(27_000,), deterministic=True)
        console.print(table(*both))
    text = capture.get()
    for part in (
        *("v4-deterministic", "pong", "2.5", "1.3", "0.4 … 4.6", "102 steps (0:07)", "65.7%"),
        *("– … –", "27000 steps (30:00)"),
    ):
        assert part in text


def test_policies_are_listed_with_their_scores(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two", "three"):
        folder = tmp_path / "policies" / name
        write_text(folder / "recipe.toml", to_toml(Recipe(name=name)))
        if name != "three":
            (folder / "weights.safetensors").touch()
    write_scores(tmp_path / "policies" / "one" / "scores.json", scores())

    console = Console(width=80)
    with console.capture() as capture:
        console.print(policies_table())
    rows = [line.split() for line in capture.get().replace("│", " ").splitlines()]
    assert ["one", "pong", "v4", "4", "2.5", "0.4", "…", "4.6", "65.7%"] in rows
    assert ["two", "pong", "not", "scored", "yet"] in rows
    assert ["three", "pong", "not", "trained", "yet"] in rows


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        (PROTOCOLS["v4"], "v4"),
        (PROTOCOLS["v5"].evaluation(), "v5"),
        (protocol("v4", frame_stack=4), "v4"),
        (SHORT, "v4(max_frames=100)"),
        (protocol("v5", noop_max=0), "v5(noop_max=0)"),
    ],
)
def test_scores_name_their_protocol(rules, name):
    assert protocol_name(rules) == name


@pytest.mark.parametrize("result", [scores(), scores((7.0,)), scores(())])
def test_scores_survive_json(result):
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert Scores.from_dict(json.loads(text)) == result


def test_writing_scores_keeps_the_other_entries(tmp_path):
    path = tmp_path / "new" / "scores.json"
    old, new = scores((1.0, 2.0)), scores((3.0, 4.0))
    deterministic = dataclasses.replace(old, deterministic=True)
    for entry in (old, deterministic, dataclasses.replace(old, protocol="v5"), new):
        write_scores(path, entry)

    assert list(json.loads(path.read_text())) == ["v4", "v4-deterministic", "v5"]
    assert json.loads(path.read_text())["v4"]["mean"] == 3.5
    read = read_scores(path)
    assert read["v4"] == new
    assert read["v4-deterministic"] == deterministic


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"v4": {"game"', "Expecting"),
        ("[]", "got list, expected an object"),
        ('{"v4": 3}', "got 3, expected the scores of one protocol"),
        ('{"v4": {"game": "pong"}}', "protocol is None, expected str"),
        (json.dumps({"v4": scores().to_dict() | {"returns": [1, "2"]}}), "returns hold '2'"),
        (json.dumps({"v4": scores().to_dict() | {"returns": [1.0]}}), "1 returns and 4 lengths"),
        (json.dumps({"v4": scores().to_dict() | {"returns": [math.nan]}}), "returns hold nan"),
    ],
)
def test_a_broken_scores_file_is_named_and_left(tmp_path, text, reason):
    path = tmp_path / "scores.json"
    path.write_text(text)
    for call in (lambda: read_scores(path), lambda: write_scores(path, scores())):
        with pytest.raises(UserError, match=r"scores\.json is not a scores file") as caught:
            call()
        assert reason in str(caught.value)
    assert path.read_text() == text


def test_missing_scores_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*scores\.json; play for it"):
        read_scores(tmp_path / "scores.json")


def test_the_command_scores_prints_and_records(pong, tmp_path, capsys):
    policy = dataclasses.replace(pong, folder=tmp_path)
    video = tmp_path / "game.mp4"
    result = evaluate_command(policy, episodes=3, protocol=SHORT, video=video)
    assert result.lengths == (25, 25, 25)
    assert read_scores(tmp_path / "scores.json") == {"v4(max_frames=100)": result}
    assert video.stat().st_size > 0
    assert "mean length" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["game.mp4", "scores.json"]


def test_a_few_games_do_not_replace_many(pong, tmp_path, capsys):
    policy = dataclasses.replace(pong, folder=tmp_path)
    many = evaluate_command(policy, episodes=3, protocol=SHORT)
    evaluate_command(policy, episodes=2, protocol=SHORT, seed=5)
    assert read_scores(tmp_path / "scores.json") == {many.key: many}
    assert "keeps its 3 games" in capsys.readouterr().out.replace("\n", " ")
    again = evaluate_command(policy, episodes=3, protocol=SHORT, seed=5)
    assert read_scores(tmp_path / "scores.json") == {many.key: again}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"output": "file/scores.json"}, "cannot write .*file/scores.json .*--output"),
        ({"video": "file/game.mp4"}, "cannot write .*file/game.mp4 .*--video"),
        ({"output": "."}, r"cannot write .* \(it is a folder\)"),
        ({"output": "file"}, "file is not a scores file"),
        ({"video": "game.gif"}, r"game.gif ends in '.gif', expected .mp4"),
        ({"video": "game.mp4", "video_games": 0}, "video_games is 0, expected >= 1"),
        ({"episodes": 0}, "episodes is 0, expected >= 1"),
        ({"num_envs": 0}, "num_envs is 0, expected >= 1"),
        ({"protocol": "v3"}, "protocol 'v3' is unknown"),
    ],
)
def test_the_command_refuses_before_playing(pong, tmp_path, options, reason):
    (tmp_path / "file").write_text("text")
    options = {
        name: tmp_path / value if name in ("output", "video") else value
        for name, value in options.items()
    }
    with pytest.raises(UserError, match=reason):
        evaluate_command(pong, **{"episodes": 10_000} | options)
