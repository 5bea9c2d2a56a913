"""Several policies and perturbations in one table and one picture."""

import dataclasses

import pytest
import torch
from PIL import Image

from ncp_agents.agents.recipe import Circuit, Environment, Recipe
from ncp_agents.agents.saved_policy import SavedPolicy, build
from ncp_agents.cli.comparison import compare_command, perturbations
from ncp_agents.envs.perturbations import Perturbation
from ncp_agents.envs.protocol import protocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.scores import LOCK, Scores, read_scores
from ncp_agents.rendering import score_plots as scores_picture

SHORT = protocol("v4", max_frames=100)  # 25 steps a game


def fresh(folder, name, game="pong"):
    torch.manual_seed(5)
    recipe = Recipe(name=name, environment=Environment(game=game))
    (folder / name).mkdir()
    return SavedPolicy(recipe, build(recipe), folder / name)


def test_sweeps_play_undisturbed_games_and_each_strength_once():
    ways = perturbations({"noise": (0.2, 0.0, 0.1, 0.1), "frame_skip_jitter": (1,)})
    assert ways == [
        None,
        Perturbation("noise", 0.1),
        Perturbation("noise", 0.2),
        Perturbation("frame_skip_jitter", 1),
        Perturbation("frame_skip_jitter", 1, timespans=True),
    ]
    assert perturbations({}) == [None]


def test_a_sweep_is_scored_kept_and_drawn(tmp_path, capsys):
    policy = fresh(tmp_path, "one")
    rows = compare_command(
        [policy], {"noise": (0.1,), "frame_skip_jitter": (2,)}, episodes=2, protocol=SHORT
    )
    kept = read_scores(tmp_path / "one" / "scores.json")
    assert list(kept.values()) == sorted((each for _, each in rows), key=lambda each: each.key)
    assert len(kept) == 4
    with Image.open(tmp_path / "one" / "perturbations.png") as picture:
        assert picture.width > picture.height > 300
    assert "noise=0.1" in capsys.readouterr().out


def test_several_policies_share_a_table_and_a_picture(tmp_path, capsys):
    policies = [fresh(tmp_path, "one"), fresh(tmp_path, "two", "breakout")]
    picture = tmp_path / "both.png"
    rows = compare_command(policies, episodes=2, protocol=SHORT, plot=picture)
    assert [name for name, _ in rows] == ["one", "two"]
    first = picture.read_bytes()
    compare_command(policies, episodes=2, protocol=SHORT, plot=picture)
    assert picture.read_bytes() == first
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"scores.json", LOCK}
    out = capsys.readouterr().out
    assert "one" in out
    assert "two" in out


@pytest.mark.parametrize(
    ("sweeps", "options", "reason"),
    [
        ({"noize": (0.1,)}, {}, "did you mean 'noise'"),
        ({"drop_frames": (0.1, 1.0)}, {}, "drop_frames is 1.0, expected a probability"),
        ({}, {"plot": "scores.jpg"}, "scores.jpg ends in '.jpg', expected .png"),
        ({}, {"plot": "one/scores.json/x.png"}, "cannot write"),
        ({}, {"episodes": 0}, "episodes is 0, expected >= 1"),
        ({}, {"seed": -1}, r"seed is -1, expected 0 <= seed < 2\^31"),
        ({"stickiness": (0.5,)}, {"protocol": "v5"}, "sticky"),
    ],
)
def test_mistakes_are_told_before_playing(tmp_path, sweeps, options, reason):
    policy = fresh(tmp_path, "one")
    (tmp_path / "one" / "scores.json").write_text("{}")
    options = {k: tmp_path / v if k == "plot" else v for k, v in options.items()}
    with pytest.raises(UserError, match=reason):
        compare_command([policy], sweeps, **{"episodes": 10_000} | options)


def test_policies_of_one_name_go_by_their_folders(tmp_path):
    one = fresh(tmp_path, "one")
    (tmp_path / "copy").mkdir()
    copy = dataclasses.replace(one, folder=tmp_path / "copy")
    picture = tmp_path / "both.png"
    rows = compare_command([one, copy], episodes=1, protocol=SHORT, plot=picture)
    assert [name for name, _ in rows] == [str(tmp_path / "one"), str(tmp_path / "copy")]
    with pytest.raises(UserError, match="one is named twice; name each policy once"):
        compare_command([one, dataclasses.replace(one)], episodes=10_000)


def test_strengths_of_0_are_no_sweep(tmp_path):
    rows = compare_command([fresh(tmp_path, "one")], {"noise": (0.0,)}, episodes=1, protocol=SHORT)
    assert len(rows) == 1
    assert (tmp_path / "one" / "scores.png").exists()


def test_an_lstm_is_not_told_the_time(tmp_path):
    recipe = Recipe(name="lstm", circuit=Circuit(cell="lstm", wiring="dense", units=4))
    policy = SavedPolicy(recipe, build(recipe))
    with pytest.raises(UserError, match="lstm is an LSTM, which no time can be told"):
        compare_command([policy], {"frame_skip_jitter": (1,)}, episodes=10_000)


def test_a_game_without_a_human_score_has_no_place_among_normalised_ones(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(scores_picture, "save_figure", lambda figure, _: drawn.append(figure))
    rows = [
        (game, Scores(game, "v4", False, 0, 2, (1.0, 3.0), (9, 9), {"NOOP": 18}))
        for game in ("pong", "adventure")
    ]
    scores_picture.draw_comparison(rows, tmp_path / "scores.png")
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.texts] == ["0.64", "no human score is known"]
