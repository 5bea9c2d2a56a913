"""Games: one name for every spelling, actions and screens from ALE, published scores."""

import subprocess
import sys

import gymnasium
import pytest

from ncp_agents.envs.games import (
    RANDOM_AND_HUMAN_SCORES,
    action_meanings,
    games,
    human_normalised,
    normalise_game,
    screen_size,
)
from ncp_agents.registry import UnknownNameError


@pytest.mark.parametrize(
    ("spelling", "game"),
    [
        ("pong", "pong"),
        ("Pong", "pong"),
        (" pong ", "pong"),
        ("ALE/Pong-v5", "pong"),
        ("Pong-v4", "pong"),
        ("PongNoFrameskip-v4", "pong"),
        ("PongDeterministic-v4", "pong"),
        ("ms_pacman", "ms_pacman"),
        ("MsPacman", "ms_pacman"),
        ("ms-pacman", "ms_pacman"),
        ("Ms Pacman", "ms_pacman"),
        ("ALE/MsPacman-v5", "ms_pacman"),
        ("MsPacmanNoFrameskip-v4", "ms_pacman"),
        ("ALE/TicTacToe3D-v5", "tic_tac_toe_3d"),
    ],
)
def test_every_usual_spelling_gives_the_rom_name(spelling, game):
    assert normalise_game(spelling) == game


def test_every_registered_environment_id_is_understood():
    ids = [id for id in gymnasium.registry if id.startswith("ALE/")]
    assert len(ids) > 100
    assert {normalise_game(id) for id in ids} == set(games())
    assert [normalise_game(game) for game in games()] == list(games()) == sorted(games())


@pytest.mark.parametrize(
    ("wrong", "meant"), [("Pnog", "pong"), ("ALE/Brakout-v5", "breakout"), ("MrPacman", "pacman")]
)
def test_a_wrong_name_is_refused_with_the_nearest_game(wrong, meant):
    with pytest.raises(UnknownNameError, match=f"{meant}'"):
        normalise_game(wrong)


@pytest.mark.parametrize("name", ["", "ALE/", "combat", "Pong-ram-v5"])
def test_what_cannot_be_played_is_refused(name):
    with pytest.raises(UnknownNameError):
        normalise_game(name)


def test_actions_are_those_the_game_uses():
    assert action_meanings("breakout") == ("NOOP", "FIRE", "RIGHT", "LEFT")
    assert action_meanings("ALE/Pong-v5")[:4] == ("NOOP", "FIRE", "RIGHT", "LEFT")
    assert len(action_meanings("boxing")) == 18


def test_screens_are_as_high_as_the_game_draws_them():
    assert screen_size("pong") == (210, 160)
    assert screen_size("adventure") == (250, 160)


def test_the_standard_57_games_have_scores():
    assert len(RANDOM_AND_HUMAN_SCORES) == 57
    assert set(RANDOM_AND_HUMAN_SCORES) <= set(games())
    assert all(random < human for random, human in RANDOM_AND_HUMAN_SCORES.values())


def test_human_normalised_score():
    assert human_normalised("pong", -20.7) == 0.0
    assert human_normalised("ALE/Pong-v5", 14.6) == 1.0
    assert human_normalised("breakout", 1.7 + 2 * (30.5 - 1.7)) == pytest.approx(2.0)
    assert human_normalised("tetris", 10.0) is None
    with pytest.raises(UnknownNameError):
        human_normalised("tetriss", 10.0)


def test_names_are_there_without_torch():
    code = (
        "import sys; from ncp_agents.envs import games; games(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
