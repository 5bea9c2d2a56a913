"""A person at the keyboard: real episodes, recorded from pygame's own events."""

import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from ncp_agents.datasets.demonstrations import Demonstrations, Provenance
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.games import action_meanings, games
from ncp_agents.envs.protocol import protocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import resumed_seed
from ncp_agents.imitation.key_actions import moves_of, nearest_action
from ncp_agents.imitation.keyboard import PANEL_WIDTH, SCALE, HumanPolicy, with_help
from ncp_agents.imitation.recording import record

RULES = replace(protocol("v4").evaluation(), max_frames=80)  # 20 steps a game


@pytest.fixture
def demos(tmp_path):
    return Demonstrations.create(tmp_path / "demos", Provenance("pong", RULES, {"human": True}))


@pytest.fixture
def person(no_screen):
    """Makes a HumanPolicy from a function of each picture and its number, which returns key events
    before the next one: "+left" goes down, "-left" comes up."""
    import pygame

    made = []

    def make(acts, wanted=1, fps=1000):
        human = HumanPolicy(wanted, fps=fps)
        made.append(human)
        show, count = human.window.show, 0

        def watched(picture):
            nonlocal count
            for key in acts(picture, count):
                kind = pygame.KEYDOWN if key[0] == "+" else pygame.KEYUP
                pygame.event.post(pygame.event.Event(kind, key=pygame.key.key_code(key[1:])))
            count += 1
            return show(picture)

        human.window.show = watched
        return human

    yield make
    for human in made:
        human.close()


def scripted(script):
    """Key events by the number of the picture."""
    return lambda picture, count: script.get(count, "").split()


ALL = tuple(
    (vertical + horizontal + fire) or "NOOP"
    for vertical in ("", "UP", "DOWN")
    for horizontal in ("", "LEFT", "RIGHT")
    for fire in ("", "FIRE")
)


@pytest.mark.parametrize(
    ("actions", "moves", "expected"),
    [
        (ALL, "", "NOOP"),
        (ALL, "UP RIGHT FIRE", "UPRIGHTFIRE"),
        (ALL, "FIRE LEFT DOWN", "DOWNLEFTFIRE"),
        (ALL, "LEFT RIGHT", "RIGHT"),  # the later one
        (ALL, "RIGHT UP LEFT", "UPLEFT"),
        ("pong", "UP", "RIGHT"),  # moves along one axis only
        ("pong", "DOWN FIRE", "LEFTFIRE"),
        ("breakout", "LEFT FIRE", "FIRE"),  # has no LEFTFIRE
        ("breakout", "FIRE LEFT", "LEFT"),
        ("freeway", "RIGHT", "UP"),
        ("freeway", "FIRE", "NOOP"),
        ("atlantis", "LEFT", "NOOP"),  # has LEFTFIRE, but that fires
        ("atlantis", "LEFT FIRE", "LEFTFIRE"),
        ("tutankham", "DOWN FIRE", "DOWN"),  # has neither DOWNFIRE nor FIRE
        ("backgammon", "", "FIRE"),  # has no NOOP
    ],
)
def test_the_nearest_action(actions, moves, expected):
    actions = action_meanings(actions) if isinstance(actions, str) else actions
    assert actions[nearest_action(actions, moves.split())] == expected


def test_every_action_has_its_keys():
    for game in games()[::7]:
        actions = action_meanings(game)
        for index, name in enumerate(actions):
            assert nearest_action(actions, sorted(moves_of(name))) == index


def test_keys_become_the_recorded_actions(person, demos):
    """The episode waits for a key; taps shorter than a step count; P pauses."""
    keys = {
        2: "+x",  # has no action
        4: "+w",  # starts the episode, and is its first action
        7: "-w",
        8: "+space -space",
        10: "+left +space",
        11: "+p -p",
        14: "+p",
        15: "-space",
    }
    (entry,) = record(person(scripted(keys)), demos, 1)
    actions = demos.read(0).actions
    names = [action_meanings("pong")[action] for action in actions]
    # Pictures 0 to 4 wait, 12 to 14 pause.
    expected = ["RIGHT"] * 2 + ["NOOP", "FIRE", "NOOP", "LEFTFIRE", "LEFTFIRE", "LEFT"]
    assert names[:8] == expected
    assert set(names[8:]) == {"LEFT"}
    assert entry.steps == 20


def test_only_whole_episodes_are_recorded(person, demos):
    """The first is dropped after 5 steps, the third left after 5."""
    starts = {0: "+up -up", 6: "+r", 8: "+down", 40: "+up", 46: "+escape"}
    human = person(scripted(starts), wanted=3)
    entries = list(record(human, demos, 3))
    assert [entry.steps for entry in entries] == [20]
    again = Demonstrations(demos.path)
    assert again.entries == entries
    game = again.read(0)
    assert game.truncated
    assert action_meanings("pong")[game.actions[1]] == "LEFT"
    assert human.recorded == 1


def follow_the_ball(picture, count):
    """Keys that move Pong's paddle towards the ball."""
    if count == 0:
        return ["+up"]
    field = picture[34 * SCALE : 194 * SCALE : SCALE, : 160 * SCALE : SCALE].astype(int)
    paddle = np.flatnonzero((np.abs(field[:, 140:144] - (92, 186, 92)).sum(-1) < 9).any(1))
    ball = np.flatnonzero((np.abs(field[:, 20:140] - 236).sum(-1) < 9).any(1))
    if not len(ball) or not len(paddle) or abs(ball.mean() - paddle.mean()) < 4:
        return ["-up", "-down"]
    return ["+up", "-down"] if ball.mean() < paddle.mean() else ["-up", "+down"]


def test_a_persons_episode_is_recorded_bit_for_bit(person, tmp_path):
    rules = replace(RULES, max_frames=1600)
    demos = Demonstrations.create(tmp_path / "demos", Provenance("pong", rules, {"human": True}))
    (entry,) = record(person(follow_the_ball), demos, 1, seed=5)
    game = demos.read(0)
    assert entry.score >= 0  # random actions lose all balls, six by then
    assert len(game) == 400

    seed = resumed_seed(5, 0)
    with closing(AtariVecEnv("pong", 1, rules, seed=seed)) as env:
        obs = env.reset()
        for t in range(len(game)):
            np.testing.assert_array_equal(game.obs[t, ..., 0], obs[0, 0])
            obs, rewards, _, _ = env.step(game.actions[t : t + 1])
            assert rewards[0] == game.rewards[t]


def test_a_step_takes_its_time(person, demos):
    import pygame

    start = pygame.time.get_ticks()
    list(record(person(scripted({0: "+up"}), fps=15), demos, 1))
    assert 20 / 15.5 <= (pygame.time.get_ticks() - start) / 1000 <= 20 / 15 + 1.5


def test_the_window_shows_game_help_and_message(person, demos):
    pictures = []

    def act(picture, count):
        pictures.append(picture)
        return ["+up"] if count == 1 else []

    list(record(person(act), demos, 1))
    waiting, playing = pictures[0], pictures[3]
    assert waiting.shape == (210 * SCALE, 160 * SCALE + PANEL_WIDTH, 3)
    middle = slice(300, 330), slice(120, 360)
    assert (waiting[middle] == 222).any()  # the message's letters
    assert not (playing[middle] == 222).any()
    assert (playing[:, 160 * SCALE :] == 222).any()


def test_the_help_panel_does_not_change_the_screen():
    screen = np.random.default_rng(0).integers(0, 255, (210, 160, 3), np.uint8)
    picture = with_help(screen, "Pong", "-3", "0 of 1 episodes recorded", ALL, 3)
    np.testing.assert_array_equal(picture[: 210 * SCALE : SCALE, : 160 * SCALE : SCALE], screen)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a screen")
def test_without_a_screen_a_person_cannot_play(monkeypatch):
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="cannot open a window"):
        HumanPolicy(1)
