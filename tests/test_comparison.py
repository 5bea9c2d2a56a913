"""Several policies and perturbations in one table and one picture."""

import dataclasses

import pytest
import torch
from PIL import Image

from ncp_agents.agents.recipe import Circuit, Environment, Recipe
from ncp_agents.agents.saved_policy import SavedPolicy, build
from ncp_agents.cli.compare import compare
from ncp_agents.cli.evaluate import Evaluate
from ncp_agents.envs.perturbations import Perturbation
from ncp_agents.envs.protocol import protocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.perturbation_sweep import perturbations
from ncp_agents.evaluation.scores import LOCK, Scores, read_scores
from ncp_agents.rendering import score_plots

SHORT = protocol("v4", max_frames=100)  # 25 steps an episode


def fresh(folder, name, game="pong"):
    torch.manual_seed(5)
    recipe = Recipe(name=name, environment=Environment(game=game))
    (folder / name).mkdir()
    return SavedPolicy(recipe, build(recipe), folder / name)


def test_a_sweep_has_unperturbed_episodes_and_each_strength_once():
    assert perturbations({"noise": (0.2, 0.0, 0.1, 0.1), "frame_skip_jitter": (1,)}) == [
        None,
        Perturbation("noise", 0.1),
        Perturbation("noise", 0.2),
        Perturbation("frame_skip_jitter", 1),
        Perturbation("frame_skip_jitter", 1, timespans=True),
    ]
    assert perturbations({"noise": (0.0,)}) == [None]


def test_a_sweep_is_scored_kept_and_drawn(tmp_path, capsys):
    policy = fresh(tmp_path, "one")
    rows = compare(
        [policy], Evaluate(noise=(0.1,), frame_skip_jitter=(2,), episodes=2, protocol=SHORT)
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
    rows = compare(policies, Evaluate(episodes=2, protocol=SHORT, plot=picture))
    assert [name for name, _ in rows] == ["one", "two"]
    first = picture.read_bytes()
    compare(policies, Evaluate(episodes=2, protocol=SHORT, plot=picture))
    assert picture.read_bytes() == first
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"scores.json", LOCK}
    out = capsys.readouterr().out
    assert "one" in out
    assert "two" in out


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"drop_frames": (0.1, 1.0)}, "drop_frames"),
        ({"stickiness": (0.5,), "protocol": "v5"}, "sticky"),
        ({"plot": "scores.jpg"}, ".jpg"),
        ({"plot": "one/scores.json/x.png"}, "--plot"),
        ({"episodes": 0}, "episodes"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_are_checked_before_the_first_episode(tmp_path, options, fact):
    policy = fresh(tmp_path, "one")
    (tmp_path / "one" / "scores.json").write_text("{}")
    options = {k: tmp_path / v if k == "plot" else v for k, v in options.items()}
    with pytest.raises(UserError, match=fact):
        compare([policy], Evaluate(**{"episodes": 10_000} | options))


def test_policies_of_one_name_have_the_names_of_their_folders(tmp_path):
    one = fresh(tmp_path, "one")
    (tmp_path / "copy").mkdir()
    copy = dataclasses.replace(one, folder=tmp_path / "copy")
    rows = compare([one, copy], Evaluate(episodes=1, protocol=SHORT, plot=tmp_path / "both.png"))
    assert [name for name, _ in rows] == [str(tmp_path / "one"), str(tmp_path / "copy")]


def test_an_lstm_takes_no_timespans():
    recipe = Recipe(name="lstm", circuit=Circuit(cell="lstm", wiring="dense", units=4))
    policy = SavedPolicy(recipe, build(recipe))
    with pytest.raises(UserError, match="LSTM"):
        compare([policy], Evaluate(frame_skip_jitter=(1,), episodes=10_000))


def test_a_game_without_a_human_score_has_no_place_among_normalised_ones(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(score_plots, "save_figure", lambda figure, _: drawn.append(figure))
    rows = [
        (game, Scores(game, "v4", False, 0, 2, (1.0, 3.0), (9, 9), {"NOOP": 18}))
        for game in ("pong", "adventure")
    ]
    score_plots.draw_comparison(rows, tmp_path / "scores.png")
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.texts] == ["0.64", "no human score is known"]
