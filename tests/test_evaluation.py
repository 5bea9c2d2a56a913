"""Evaluation: whole episodes, the circuit's state, seeds, perturbations, the command."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest
import torch

from ncp_agents.agents.recipe import Environment, Recipe
from ncp_agents.agents.saved_policy import SavedPolicy, build, load
from ncp_agents.agents.zoo import find
from ncp_agents.cli.console import Terminal
from ncp_agents.cli.evaluate import Evaluate
from ncp_agents.cli.evaluate_one import evaluate_one
from ncp_agents.envs import AtariVecEnv
from ncp_agents.envs.perturbations import JitteredAtariVecEnv, Perturbation
from ncp_agents.envs.protocol import PROTOCOLS, protocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.evaluate import TimespanPolicy, evaluate, protocol_name
from ncp_agents.evaluation.rollout import evaluation_protocol, first_episodes, rollout
from ncp_agents.evaluation.scores import LOCK, read_scores

SHORT = protocol("v4", max_frames=100)  # 25 steps an episode


def fresh_policy(game="pong", **environment):
    torch.manual_seed(5)
    recipe = Recipe(environment=Environment(game=game, **environment))
    return SavedPolicy(recipe, build(recipe))


class RecordingPolicy:
    """Acts as a policy does, and keeps the states that it returns."""

    def __init__(self, policy):
        self.policy, self.states = policy, []

    def predict(self, *args):
        actions, state = self.policy.predict(*args)
        self.states.append(state)
        return actions, state


@pytest.fixture(scope="module")
def pong():
    return fresh_policy()


@pytest.fixture(scope="module")
def breakout():
    """Its episodes differ in length: five lives are lost after 100 to 400 steps."""
    return fresh_policy("breakout")


def test_the_first_episodes_of_every_environment_count(breakout):
    counted = []
    result = evaluate(breakout, 5, num_envs=3, seed=11, on_episode=counted.append)

    episodes = [], [], []
    for first, size in ((0, 2), (2, 1)):  # two groups, each with a random generator of its own
        env = AtariVecEnv("breakout", size, PROTOCOLS["v4"].evaluation(), seed=11 + first)
        generator = torch.Generator().manual_seed(11 + first)
        own = episodes[first : first + size]
        for step in rollout(dataclasses.replace(breakout, generator=generator), env):
            for finished, info in zip(own, step.infos, strict=True):
                if "episode" in info:
                    finished.append((info["episode"]["r"], info["episode"]["l"]))
            if min(map(len, own)) >= 2:
                break

    # An environment had time for more than its own.
    assert sum(length for _, length in episodes[2][:2]) < max(
        sum(length for _, length in own[:2]) for own in episodes[:2]
    )
    expected = episodes[0][:2] + episodes[1][:2] + episodes[2][:1]
    assert list(zip(result.returns, result.lengths, strict=True)) == expected
    assert sorted((stats.score, stats.length) for stats in counted) == sorted(expected)
    assert (result.num_envs, result.seed) == (3, 11)
    assert sum(result.actions.values()) == sum(length for _, length in expected)


def test_same_seed_same_scores_and_torchs_random_state_is_restored(breakout):
    torch.manual_seed(123)
    expected = torch.rand(3)

    torch.manual_seed(123)
    first = evaluate(breakout, 1, seed=1)
    sampled = torch.rand(3)
    second = evaluate(breakout, 1, seed=1)
    other = evaluate(breakout, 1, seed=2)

    assert torch.equal(sampled, expected)
    assert first == second
    assert first.lengths != other.lengths


def test_the_actions_of_counted_episodes_are_counted(pong):
    taken = collections.Counter()

    def wrapped(steps):
        for number, step in enumerate(steps):
            if number < 50:  # two episodes; the third is not finished
                taken.update(step.actions.tolist())
            elif number == 60:
                return
            yield step

    result = evaluate(pong, 3, SHORT, num_envs=1, wrap_steps=wrapped)
    expected = [taken[action] for action in range(6)]
    assert list(result.actions) == ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    assert list(result.actions.values()) == expected


def test_perturbed_episodes_differ():
    policy = load(find("pong-cfc"))
    swept = [Perturbation("drop_frames", 0.9), Perturbation("frame_skip_jitter", 2)]
    swept.append(dataclasses.replace(swept[1], timespans=True))
    rules = protocol("v4", max_frames=400)
    results = [
        evaluate(policy, 2, rules, deterministic=True, perturbation=one) for one in (None, *swept)
    ]
    assert [result.perturbation for result in results] == [None, *swept]
    assert len({tuple(result.actions.values()) for result in results}) == 4
    again = evaluate(policy, 2, rules, deterministic=True, perturbation=swept[1])
    assert again == results[2]


def test_the_circuit_receives_the_length_of_steps(pong):
    env = JitteredAtariVecEnv("pong", 2, SHORT, seed=4, jitter=2)
    recorder = RecordingPolicy(TimespanPolicy(pong, env))
    state = before = None
    for step in itertools.islice(rollout(recorder, env, True), 20):
        timespans = env.timespans  # for the next action
        if state is not None:
            _, expected = pong.predict(step.observations, state, step.resets, True, before)
            np.testing.assert_allclose(recorder.states[-1][0], expected[0], atol=1e-6)
        state, before = recorder.states[-1], timespans
    assert timespans.tolist() != [1.0, 1.0]


def test_scores_are_of_whole_episodes_and_unclipped():
    policy = fresh_policy("ms_pacman")
    result = evaluate(policy, 1, protocol("v4", max_frames=1600))
    assert result.lengths == (400,)  # about two lives, and points in tens
    assert result.mean >= 50


def test_the_frame_stack_is_the_policys():
    result = evaluate(fresh_policy(frame_stack=2), 1, SHORT)
    assert result.lengths == (25,)
    assert result.protocol == "v4(max_frames=100)"


@pytest.mark.parametrize(("name", "lives"), [("v4", True), ("v5", False)])
def test_state_is_carried_and_reset_where_an_episode_or_in_v4_a_life_starts(breakout, name, lives):
    env = AtariVecEnv("breakout", 2, evaluation_protocol(breakout, name), seed=3)
    recorder = RecordingPolicy(breakout)
    before = None
    starts = carried = episodes = 0
    for number, step in enumerate(itertools.islice(rollout(recorder, env), 600)):
        episodes += sum("episode" in info for info in step.infos)
        states = recorder.states[-1][0]
        assert step.resets.all() or number
        for i in range(2):
            if number and not (step.resets.any() or number % 50 == 0):
                continue  # enough are compared
            own = step.observations[i : i + 1]
            fresh = breakout.predict(own, None)[1][0][:, 0]
            if step.resets[i]:
                np.testing.assert_allclose(states[:, i], fresh, atol=1e-5)
                starts += 1
            else:
                previous = tuple(part[:, i : i + 1] for part in before)
                alone = breakout.predict(own, previous)[1][0][:, 0]
                np.testing.assert_allclose(states[:, i], alone, atol=1e-5)
                assert np.abs(states[:, i] - fresh).max() > 1e-3
                carried += 1
        before = recorder.states[-1]
    assert episodes >= 2
    assert starts > 3 * episodes if lives else episodes <= starts <= episodes + 2
    assert carried >= 10


def test_steps_are_those_of_the_environment(pong):
    env = AtariVecEnv("pong", 2, SHORT, seed=4)
    again = AtariVecEnv("pong", 2, SHORT, seed=4)
    observations = again.reset()
    dones = np.ones(2, bool)
    for step in first_episodes(rollout(pong, env), 2):
        np.testing.assert_array_equal(step.observations, observations)
        np.testing.assert_array_equal(step.resets, dones)
        assert step.rgb_frames is None
        observations, rewards, dones, infos = again.step(step.actions)
        np.testing.assert_array_equal(step.rewards, rewards)
        assert ["episode" in info for info in step.infos] == ["episode" in info for info in infos]
    assert dones.all()


def test_wrapped_steps_can_end_the_evaluation(pong):
    def wrapped(steps):
        for step in itertools.islice(steps, 60):
            assert step.rgb_frames[0].shape == (210, 160, 3)
            yield step

    result = evaluate(pong, 3, SHORT, num_envs=1, wrap_steps=wrapped)
    assert result.lengths == (25, 25)


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        (PROTOCOLS["v4"], "v4"),
        (PROTOCOLS["v5"].evaluation(), "v5"),
        (protocol("v4", life_loss=False), "v4(life_loss=False)"),
        (protocol("v4", frame_stack=4), "v4"),
        (SHORT, "v4(max_frames=100)"),
        (protocol("v5", noop_max=0), "v5(noop_max=0)"),
    ],
)
def test_scores_name_their_protocol(rules, name):
    assert protocol_name(rules) == name


def test_a_policy_does_not_act_with_all_actions(pong):
    with pytest.raises(UserError, match="all 18 actions"):
        evaluate(pong, 1, protocol("v4", full_action_space=True))


def test_the_command_scores_prints_and_records(pong, tmp_path, capsys):
    policy = dataclasses.replace(pong, folder=tmp_path)
    video = tmp_path / "episode.mp4"
    result = evaluate_one(policy, Evaluate(episodes=3, protocol=SHORT, video=video))
    assert result.lengths == (25, 25, 25)
    assert read_scores(tmp_path / "scores.json") == {"v4(max_frames=100)": result}
    assert video.stat().st_size > 0
    assert "mean length" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == [LOCK, "episode.mp4", "scores.json"]


def test_scores_are_kept_when_the_reader_of_the_table_has_ended(pong, tmp_path, monkeypatch):
    def broken_pipe(*args, **kwargs):
        raise BrokenPipeError

    monkeypatch.setattr(Terminal, "print", broken_pipe)
    with pytest.raises(BrokenPipeError):
        evaluate_one(pong, Evaluate(episodes=2, protocol=SHORT, output=tmp_path / "scores.json"))
    assert len(read_scores(tmp_path / "scores.json")["v4(max_frames=100)"].returns) == 2


def test_few_episodes_do_not_replace_many_of_the_same_weights(pong, tmp_path, capsys):
    policy = dataclasses.replace(pong, folder=tmp_path, weights_sha256="ours")
    many = evaluate_one(policy, Evaluate(episodes=3, protocol=SHORT))
    evaluate_one(policy, Evaluate(episodes=2, protocol=SHORT, seed=5))
    assert read_scores(tmp_path / "scores.json") == {many.key: many}
    assert "keeps its 3 episodes" in capsys.readouterr().out
    again = evaluate_one(policy, Evaluate(episodes=3, protocol=SHORT, seed=5))
    assert read_scores(tmp_path / "scores.json") == {many.key: again}
    other = dataclasses.replace(policy, weights_sha256="another")
    few = evaluate_one(other, Evaluate(episodes=2, protocol=SHORT))
    assert read_scores(tmp_path / "scores.json") == {many.key: few}


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"output": "file/scores.json"}, "--output"),
        ({"video": "file/episode.mp4"}, "--video"),
        ({"page": "file/page.html"}, "--page"),
        ({"output": "file"}, "file is not JSON"),
        ({"video": "episode.avi"}, ".avi"),
        ({"page": "page.txt"}, ".txt"),
        ({"video": "episode.mp4", "video_episodes": 0}, "video_episodes"),
        ({"episodes": 0}, "episodes"),
        ({"num_envs": 0}, "num_envs"),
        ({"protocol": "v3"}, "'v3'"),
    ],
)
def test_the_command_checks_its_options_before_the_first_episode(pong, tmp_path, options, fact):
    (tmp_path / "file").write_text("text")
    options = {
        name: tmp_path / value if name in ("output", "video", "page") else value
        for name, value in options.items()
    }
    with pytest.raises(UserError, match=fact):
        evaluate_one(pong, Evaluate(**{"episodes": 10_000} | options))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
