"""The saved policies that come with the package."""

import numpy as np
import pytest

from ncp_agents import saved_policy
from ncp_agents.recipe import read_recipe
from ncp_agents.scores import read_scores

ZOO = sorted(saved_policy.zoo().items())


def test_there_is_a_zoo():
    assert "pong-cfc" in dict(ZOO)


@pytest.mark.parametrize(("name", "folder"), ZOO)
def test_a_saved_policy_is_complete_and_acts(name, folder):
    policy = saved_policy.load(folder)
    assert policy.recipe == read_recipe(folder / "recipe.toml")
    assert policy.name == name
    frames = np.zeros((2, policy.recipe.environment.frame_stack, 84, 84), np.uint8)
    actions, state = policy.act(frames)
    assert actions.shape == (2,)
    assert state is not None
    for file in ("curve.png", "README.md", "scores.json"):
        assert (folder / file).stat().st_size > 0
    for scores in read_scores(folder / "scores.json").values():
        assert scores.game == policy.recipe.environment.game
        assert len(scores.returns) >= 30


def test_pong_cfc_is_as_small_and_as_good_as_the_readme_says():
    folder = dict(ZOO)["pong-cfc"]
    policy = saved_policy.load(folder)
    assert policy.network.circuit.state_size <= 64
    assert sum(p.numel() for p in policy.network.parameters()) <= 200_000
    assert policy.recipe.environment.frame_stack == 1
    scores = read_scores(folder / "scores.json")
    assert scores["v4-deterministic"].mean >= 20
    assert scores["v4"].mean >= 20
