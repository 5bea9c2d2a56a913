"""The circuit beside a game in a window: pictures as in a video, while the game goes on."""

import itertools

import numpy as np
import pytest

from ncp_agents.agents.saved_policy import load
from ncp_agents.agents.zoo import find
from ncp_agents.cli.watching import record_trace
from ncp_agents.envs.protocol import protocol
from ncp_agents.evaluation.evaluate import evaluate, evaluate_command
from ncp_agents.evaluation.rollout import env_factory, env_groups, rollout
from ncp_agents.evaluation.scores import LOCK
from ncp_agents.explain.activations import ActivationRecorder
from ncp_agents.explain.circuit_graph import circuit_graph
from ncp_agents.rendering.circuit_video import GAME, CircuitRenderer, circuit_frames
from ncp_agents.rendering.live_circuit import live
from ncp_agents.rendering.window import Window

SHORT = protocol("v4", max_frames=80)  # 20 steps a game


@pytest.fixture(scope="module")
def policy():
    return load(find("pong-cfc"))


def test_live_pictures_are_those_of_the_video_but_for_the_clock(policy):
    played, body = record_trace(policy, 2, SHORT, seed=4), circuit_graph(policy)
    with env_groups(policy, env_factory(policy, SHORT, render=True), 1, seed=4) as [(same, env)]:
        player = ActivationRecorder(same)
        steps = itertools.islice(rollout(player, env), len(played))
        shown = [
            picture for _, picture in live(steps, player, CircuitRenderer(body, "pong", played))
        ]
    filmed = list(circuit_frames(played, body, "pong"))
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
