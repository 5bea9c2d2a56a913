"""Recipes: what is written reads back, and what is wrong is named."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncp_agents.agents.recipe import (
    PPO,
    Circuit,
    Environment,
    Recipe,
    from_toml,
    read_recipe,
    to_toml,
)
from ncp_agents.errors import UserError


def test_every_field_survives_the_round_trip():
    recipe = Recipe(
        name="other",
        steps=5,
        seed=0,
        environment=Environment("breakout", "v5", num_envs=4, frame_stack=4),
        circuit=Circuit(wiring="Random", units=12, motor_neurons=3, sparsity=0.25, mode="pure"),
        ppo=PPO(learning_rate=1e-5, anneal=False, n_steps=8, sequence_length=4, batch_size=8),
    )
    assert from_toml(to_toml(recipe)) == recipe


@given(st.floats(1e-9, 1.0), st.integers(1, 10**12))
def test_numbers_survive_the_round_trip_exactly(learning_rate, steps):
    recipe = Recipe(steps=steps, ppo=PPO(learning_rate=learning_rate))
    assert from_toml(to_toml(recipe)) == recipe


def test_what_is_not_named_keeps_its_default():
    assert from_toml("seed = 7") == Recipe(seed=7)
    assert from_toml("[ppo]\ngamma = 1\n").ppo == PPO(gamma=1.0)  # an integer is a number too


def test_any_spelling_of_a_game_is_the_same_recipe():
    for game in ("Pong", "ALE/Pong-v5", "PongNoFrameskip-v4"):
        assert Environment(game) == Environment("pong")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", r"x\.toml: key 'stepz' is unknown; did you mean 'steps'\?"),
        ("[ppo]\nlerning_rate = 1.0", r"x\.toml, \[ppo\]: key .* did you mean 'learning_rate'"),
        ("[pppo]\ngamma = 1.0", "did you mean 'ppo'"),
        ("steps = '3'", r"x\.toml: steps is '3' \(str\), expected int"),
        ("steps = 3.0", r"steps is 3\.0 \(float\), expected int"),
        ("steps = true", r"steps is True \(bool\), expected int"),
        ("[ppo]\nanneal = 1", r"ppo\.anneal is 1 \(int\), expected bool"),
        ("ppo = 3", r"ppo is 3, expected a table \[ppo\]"),
        ("[circuit]\nwiring = 'AutoNPC'", r"circuit\.wiring 'AutoNPC' is unknown; did you mean"),
        ("[circuit]\ncell = 'ltc'\ninit = 'xavier'", r"they concern cell 'cfc' only, not 'ltc'"),
        ("[circuit]\nwiring = 'FullyConnected'\nsparsity = 0.9", "leaves no synapse out"),
        ("[circuit]\nwiring = 'dense'\nmask_time_gates = true", "leaves no synapse out"),
        ("[environment]\ngame = 'pnog'", "game 'pnog' is unknown; did you mean 'pong'"),
        ("[ppo]\ngamma = 1.5", r"x\.toml: \[ppo\] gamma is 1\.5, expected 0\.0 to 1\.0"),
        ("[ppo]\nlearning_rate = nan", "learning_rate is nan, expected above 0"),
        ("[ppo]\nbatch_size = 100", r"ppo\.batch_size is 100, expected 32"),
        ("[ppo]\nsequence_length = 100", "expected a divisor of n_steps = 128"),
        ("steps = 0", "steps is 0, expected >= 1"),
        ("name = '../up'", "expected one that can name a folder"),
        ("steps = ", r"x\.toml is not TOML"),
    ],
)
def test_a_mistake_is_named_in_one_line(text, message):
    with pytest.raises(UserError, match=message) as caught:
        from_toml(text, "x.toml")
    assert "\n" not in str(caught.value)


def test_files_that_are_no_recipe(tmp_path):
    with pytest.raises(UserError, match="there is no recipe"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="expected a TOML text file"):
        read_recipe(tmp_path / "binary.toml")


def test_recipes_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().steps = 3  # pyright: ignore[reportAttributeAccessIssue]
