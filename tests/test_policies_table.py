"""The saved policies that come with the package, and their table."""

import re
import tomllib
from dataclasses import asdict, replace

import numpy as np
import pytest
from rich.console import Console

from ncp_agents.agents import saved_policy, zoo
from ncp_agents.agents.recipe import Circuit, Environment, Recipe, read_recipe, to_toml
from ncp_agents.cli.policies import policies_table
from ncp_agents.envs.games import RECURRENT_PPO_SCORES
from ncp_agents.envs.perturbations import Perturbation
from ncp_agents.evaluation.scores import Scores, read_scores, scores_of, write_scores
from ncp_agents.files import write_text

ZOO = sorted(zoo.zoo().items())


def test_there_is_a_zoo():
    assert "pong-cfc" in dict(ZOO)


@pytest.mark.parametrize(("name", "folder"), ZOO)
def test_a_saved_policy_is_complete_and_acts(name, folder):
    policy = saved_policy.load(folder)
    assert policy.recipe == read_recipe(folder / "recipe.toml")
    named = tomllib.loads((folder / "recipe.toml").read_text())
    assert named == asdict(policy.recipe)  # no field is left to defaults, which may change
    assert policy.name == name
    frames = np.zeros((2, policy.recipe.environment.frame_stack, 84, 84), np.uint8)
    actions, state = policy.predict(frames)
    assert actions.shape == (2,)
    assert state is not None
    for file in ("curve.png", "README.md", "scores.json"):
        assert (folder / file).stat().st_size > 0
    assert scores_of(folder) == read_scores(folder / "scores.json")  # all are of these weights
    for scores in scores_of(folder).values():
        assert scores.game == policy.recipe.environment.game
        assert len(scores.returns) >= 30


@pytest.mark.parametrize("name", ["pong-cfc", "breakout-cfc", "beamrider-cfc"])
def test_small_policies_beat_the_published_lstm(name):
    folder = dict(ZOO)[name]
    policy = saved_policy.load(folder)
    assert policy.network.circuit.state_size <= 64
    assert sum(p.numel() for p in policy.network.parameters()) <= 200_000
    assert policy.recipe.environment.frame_stack == 1
    published, _ = RECURRENT_PPO_SCORES[policy.recipe.environment.game]
    assert scores_of(folder)["v4"].mean > published


def test_greedy_actions_of_pong_cfc_win():
    assert scores_of(dict(ZOO)["pong-cfc"])["v4-deterministic"].mean >= 20


def test_a_broken_policy_does_not_hide_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (("good", to_toml(Recipe())), ("broken", "stray = 1")):
        write_text(tmp_path / "policies" / name / "recipe.toml", text)
    console = Console(width=200, record=True)
    console.print(policies_table())
    shown = console.export_text()
    assert re.search(r"^ ?good +pong", shown, re.MULTILINE)
    assert "policies/broken: " in shown
    assert "key 'stray' is unknown" in shown


CLONING_CSV = """epoch,seconds,train_loss,train_accuracy,val_loss,val_accuracy,eval_return
1,30,1,0.5,1,0.5,
2,720,1,0.5,1,0.5,
"""


def test_policies_are_listed_with_what_they_reach(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(steps=2_500_000, circuit=Circuit(wiring="dense", units=32))
    breakout = Recipe(environment=Environment(game="breakout"))
    longer = replace(recipe, steps=500_000, start="one")
    after_clone = replace(longer, start="five")
    recipes = {"one": recipe, "two": breakout, "three": Recipe(), "four": longer, "five": recipe}
    recipes["six"] = after_clone
    recipes["by path"] = replace(longer, start="policies/one")
    recipes["lost"] = replace(longer, start="runs/gone/policy")
    for name, each in recipes.items():
        folder = tmp_path / "policies" / name
        write_text(folder / "recipe.toml", to_toml(each))
        if name != "three":
            (folder / "weights.safetensors").touch()
    one = tmp_path / "policies" / "one"
    write_text(one / "progress.csv", "steps,seconds\n1000,9\n2500000,5400\n")
    write_text(one.with_name("four") / "progress.csv", "steps,seconds\n500000,1800\n")
    write_text(one.with_name("five") / "cloning.csv", CLONING_CSV)
    write_text(one.with_name("six") / "progress.csv", "steps,seconds\n500000,1800\n")
    scores = Scores("pong", "v4", False, 0, 4, (1.0, 2.0, 3.0, 4.0), (9,) * 4, {"NOOP": 36})
    noisy = Scores("pong", "v4", False, 0, 1, (1.0,), (9,), {"NOOP": 9}, Perturbation("noise", 0.1))
    write_scores(one / "scores.json", scores)
    write_scores(one / "scores.json", noisy)

    console = Console(width=80)
    with console.capture() as capture:
        console.print(policies_table())
    rows = [" ".join(line.split()) for line in capture.get().splitlines()]
    parameters = sum(p.numel() for p in saved_policy.build(recipe).parameters())
    assert f"one pong 32 cfc {parameters:,} 2.5M 1.5 2.5 19.8 ± 0.6" in rows
    assert any(row.startswith("two breakout 64 cfc") and row.endswith("139 ± 51") for row in rows)
    assert f"four pong 32 cfc {parameters:,} 3M 2.0 – 19.8 ± 0.6" in rows
    assert f"five pong 32 cfc {parameters:,} cloned 0.2 – 19.8 ± 0.6" in rows
    assert f"by path pong 32 cfc {parameters:,} 3M – – 19.8 ± 0.6" in rows
    assert f"lost pong 32 cfc {parameters:,} ≥ 0.5M – – 19.8 ± 0.6" in rows
    assert f"six pong 32 cfc {parameters:,} 0.5M 0.7 – 19.8 ± 0.6" in rows
    assert any(row.startswith("three pong 64 cfc 192,379 none") for row in rows)
    assert "one v4 4 2.5 1.5 … 3.5 2.5 66 %" in rows
    assert not any("noise" in row for row in rows)
