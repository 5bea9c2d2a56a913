"""The circuit beside a game in a window: pictures as in a video, while the game goes on."""

import itertools

import numpy as np
import pytest

from ncp_agents.envs.protocol import protocol
from ncp_agents.evaluation import evaluate, evaluate_command
from ncp_agents.playing import games_for, groups, run_loop
from ncp_agents.rendering.anatomy import anatomy
from ncp_agents.rendering.brain import GAME, Brain, brain_frames
from ncp_agents.rendering.live import live
from ncp_agents.rendering.trace import Watched
from ncp_agents.rendering.window import Window
from ncp_agents.saved_policy import find, load
from ncp_agents.scores import LOCK
from ncp_agents.watching import record_trace

SHORT = protocol("v4", max_frames=80)  # 20 steps a game


@pytest.fixture(scope="module")
def policy():
    return load(find("pong-cfc"))


def test_live_pictures_are_those_of_the_video_but_for_the_clock(policy):
    played, body = record_trace(policy, 2, SHORT, seed=4), anatomy(policy)
    with groups(policy, games_for(policy, SHORT, render=True), 1, seed=4) as [(same, env)]:
        player = Watched(same)
        steps = itertools.islice(run_loop(player, env), len(played))
        shown = [picture for _, picture in live(steps, player, Brain(body, "pong", played))]
    filmed = list(brain_frames(played, body, "pong"))
    assert len(shown) == len(filmed) == 40
    clock = slice(42, GAME.top), slice(GAME.left, GAME.right)
    assert any((a[clock] != b[clock]).any() for a, b in zip(shown, filmed, strict=True))
    for picture in (*shown, *filmed):
        picture[clock] = 0
    # Of one step or of forty at once, time gates are rounded in their own ways.
    np.testing.assert_allclose(np.array(shown, int), filmed, rtol=0, atol=5)


@pytest.mark.usefixtures("no_screen")
def test_the_window_shows_the_circuit_beside_the_games_that_count(policy, tmp_path, monkeypatch):
    pictures = []
    show = Window.show
    monkeypatch.setattr(
        Window, "show", lambda self, picture: pictures.append(picture) or show(self, picture)
    )
    result = evaluate_command(
        policy, episodes=2, protocol=SHORT, render="human", brain=True, output=tmp_path / "s.json"
    )
    assert [picture.shape for picture in pictures] == [(720, 1280, 3)] * 40
    assert result == evaluate(policy, 2, SHORT, num_envs=1)  # as if nobody had looked
    assert (tmp_path / "s.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"s.json", LOCK}  # no video
