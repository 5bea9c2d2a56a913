"""Recipes: a round trip through TOML is exact, and a mistake is named."""

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


def test_a_missing_key_keeps_its_default():
    assert from_toml("seed = 7") == Recipe(seed=7)
    assert from_toml("[ppo]\ngamma = 1\n").ppo == PPO(gamma=1.0)  # an integer is a number too


@pytest.mark.parametrize("game", ["Pong", "ALE/Pong-v5", "PongNoFrameskip-v4"])
def test_any_spelling_of_a_game_is_the_same_recipe(game):
    assert Environment(game) == Environment("pong")


def test_a_game_of_another_type_is_named():
    with pytest.raises(ValueError, match="game is 5"):
        Environment(game=5)


def test_a_recipe_of_version_0_1_0_loads():
    assert from_toml("[cloning]\ndagger_games = 3").cloning.dagger_episodes == 3


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("stepz = 3", ("'stepz'", "'steps'")),
        ("[ppo]\nlerning_rate = 1.0", ("'lerning_rate'", "'learning_rate'")),
        ("steps = 3.0", ("steps", "3.0", "integer")),
        ("steps = true", ("steps", "True", "integer")),
        ("ppo = 3", ("ppo", "3")),
        ("[circuit]\nwiring = 'AutoNPC'", ("circuit.wiring", "'AutoNPC'", "'AutoNCP'")),
        ("[circuit]\ncell = 'lstm'", ("circuit", "wiring", "'dense'")),
        ("[circuit]\nunits = 1000000000", ("circuit.units", "4096")),
        ("[environment]\ngame = 'pnog'", ("'pnog'", "'pong'")),
        ("[ppo]\ngamma = 1.5", ("ppo.gamma", "1.5")),
        ("[ppo]\nlearning_rate = nan", ("ppo.learning_rate", "nan")),
        ("name = '../up'", ("name", "'../up'")),
        ('name = "nul\\u0000"', ("name",)),
        ("steps = ", ("TOML",)),
    ],
)
def test_a_mistake_is_named_in_one_line(text, facts):
    with pytest.raises(UserError) as caught:
        from_toml(text, "x.toml")
    message = str(caught.value)
    assert message.startswith("x.toml")
    assert all(fact in message for fact in facts)
    assert "\n" not in message


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.toml"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.toml"):
        read_recipe(tmp_path / "binary.toml")


def test_an_empty_file_is_no_recipe_and_a_byte_order_mark_is_no_part_of_one(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("")
    with pytest.raises(UserError, match="is empty"):
        read_recipe(path)
    path.write_text('name = "mine"', encoding="utf-8-sig")
    assert read_recipe(path).name == "mine"
