"""Recording: any policy, bit for bit, and what a killed recording leaves."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sb3_contrib
import stable_baselines3

from ncp_agents.agents.saved_policy import load
from ncp_agents.agents.zoo import find
from ncp_agents.cli import main
from ncp_agents.datasets.demonstrations import Demonstrations, Provenance
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.protocol import protocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import resumed_seed, rollout
from ncp_agents.imitation.recording import episodes_of, record, record_policy

RULES = replace(protocol("v4").evaluation(), max_frames=400)  # 100 steps a game


@pytest.mark.parametrize("algorithm", ["PPO", "DQN", "RecurrentPPO"])
def test_any_model_of_stable_baselines3_can_be_recorded(algorithm, tmp_path):
    kind = getattr(sb3_contrib if algorithm == "RecurrentPPO" else stable_baselines3, algorithm)
    network = "CnnLstmPolicy" if algorithm == "RecurrentPPO" else "CnnPolicy"
    few = {"buffer_size": 8} if algorithm == "DQN" else {"n_steps": 8, "batch_size": 8}
    rules = replace(protocol("v4", frame_stack=2), max_frames=40)
    with closing(AtariVecEnv("pong", 2, rules)) as env:
        model = kind(network, env, **few)
    made = Demonstrations.create(
        tmp_path / algorithm, Provenance("pong", rules, {"model": algorithm})
    )
    entries = [*record(model, made, episodes=3)]
    assert [entry.steps for entry in entries] == [10, 10, 10]
    assert made.read(0).obs.shape == (10, 84, 84, 2)
    assert not Demonstrations(made.path).provenance.protocol.clip_rewards  # as they were recorded

    other = Demonstrations.create(tmp_path / "other", Provenance("pong", protocol("v4"), {}))
    with pytest.raises(UserError, match="frame_stack"):
        next(record(model, other, episodes=1))


def test_recorded_actions_replay_to_the_same_frames_and_rewards(tmp_path):
    demos = Demonstrations.create(tmp_path, Provenance("pong", RULES, {"policy": "pong-cfc"}))
    entries = list(record(load(find("pong-cfc")), demos, 3, seed=5, num_envs=2, epsilon=0.3))
    assert [entry.steps for entry in entries] == [100, 100, 100]
    seed = resumed_seed(5, 0)
    env = AtariVecEnv("pong", 2, RULES, seed=seed)
    obs = env.reset()
    games = [demos.read(0), demos.read(1)]
    for t in range(100):
        for game, frame in zip(games, obs, strict=True):
            np.testing.assert_array_equal(game.obs[t, ..., 0], frame[0])
        env.step_async(np.array([game.actions[t] for game in games]))
        obs, rewards, dones, _ = env.step_wait()
        np.testing.assert_array_equal(rewards, [game.rewards[t] for game in games])
    assert dones.all()
    assert all(game.truncated and not game.terminated for game in games)
    env.close()


@pytest.mark.slow
def test_a_killed_recording_leaves_whole_episodes_and_resumes(tmp_path):
    script = str(Path(__file__).parent.parent / "scripts" / "record.py")
    command = [sys.executable, script, "pong-cfc", "--output", str(tmp_path / "d")]
    process = subprocess.Popen(
        [*command, "--episodes", "40", "--num-envs", "1"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "d" / "episode_000000.npz").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(Demonstrations(tmp_path / "d").entries)
    subprocess.run(
        [*command, "--episodes", str(before + 1), "--resume"], check=True, capture_output=True
    )
    demos = Demonstrations(tmp_path / "d")
    assert len(demos.entries) == before + 1
    assert all(len(demos.read(index)) > 500 for index in range(before + 1))


@pytest.mark.slow
def test_a_full_disk_leaves_the_episodes_that_fitted(tmp_path):
    """A limit on the size of files stands in for the disk."""
    code = f"""
import resource, signal, sys
from pathlib import Path
from ncp_agents.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if sys.argv[1] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
sys.exit(main(["record", "pong-cfc", "--num-envs", "1", "--output", "{tmp_path}/d", *sys.argv[2:]]))
"""

    def recorder(*options):
        return subprocess.run(
            [sys.executable, "-c", code, *options],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    done = recorder("enough", "--episodes", "1")
    assert done.returncode == 0, done.stderr
    done = recorder("full", "--episodes", "2", "--resume")
    assert done.returncode == 2
    assert "too large" in done.stderr.splitlines()[-1]
    demos = Demonstrations(tmp_path / "d")
    assert len(demos.entries) == 1
    assert len(demos.read(0)) > 500


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        (["pong-cfc", "--epsilon", "2"], "epsilon"),
        (["pong-cfc", "--temperature", "0"], "temperature"),
        (["pong-cfc", "--temperature", "1e-39"], "temperature"),
        (["pong-cfc", "--episodes", "0"], "episodes"),
        (["pong-cfk"], "'pong-cfc'"),
        (["pong-cfc", "--resume"], "no demos"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(options, fact, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["record", *options]) == 2
    assert fact in capsys.readouterr().err.strip().splitlines()[-1]
    assert not [*tmp_path.iterdir()]


def test_a_recording_leaves_the_temperature_and_resumes_only_with_its_settings(tmp_path):
    policy = load(find("pong-cfc"))
    options = {"episodes": 1, "protocol": replace(protocol("v4"), max_frames=40)}
    demos = record_policy(policy, tmp_path / "d", **options, temperature=3.0)
    assert len(demos.entries) == 1
    assert policy.network.temperature == 1.0
    with pytest.raises(UserError, match=r"temperature=3\.0"):
        record_policy(policy, tmp_path / "d", **options, resume=True)


def test_an_episode_cut_as_a_life_is_lost_is_recorded_as_truncated():
    class Fire:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.ones(len(observation), np.int64), None

    with closing(AtariVecEnv("breakout", 1, "v4", seed=4)) as env:
        first_loss = next(n for n, step in enumerate(rollout(Fire(), env)) if n and step.resets[0])
    rules = protocol("v4", max_frames=4 * first_loss)
    with closing(AtariVecEnv("breakout", 1, rules, seed=4)) as env:
        (episode,) = episodes_of(rollout(Fire(), env), [1])
    assert len(episode) == first_loss
    assert episode.truncated
    assert not episode.terminated


def test_lost_lives_are_recorded(tmp_path):
    rules = protocol("v4", max_frames=2000).evaluation()
    demos = Demonstrations.create(
        tmp_path, Provenance("breakout", rules, {"policy": "breakout-cfc"})
    )
    list(record(load(find("breakout-cfc")), demos, 1, epsilon=1.0))
    resets = demos.read(0).resets
    assert resets[0]
    assert resets.sum() == 5
