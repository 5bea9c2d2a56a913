"""Perturbations: each does what its strength says, and nothing at strength 0."""

import numpy as np
import pytest

from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.perturbations import (
    JitteredAtariVecEnv,
    LossyAtariVecEnv,
    NoisyAtariVecEnv,
    Perturbation,
    perturbed,
)
from ncp_agents.envs.protocol import PROTOCOLS, protocol
from ncp_agents.errors import UserError

V4 = PROTOCOLS["v4"].evaluation()


def actions(env, steps, seed=0):
    return np.random.default_rng(seed).integers(0, env.action_space.n, (steps, env.num_envs))


@pytest.mark.parametrize(
    ("game", "rules", "steps"),
    [
        ("breakout", V4, 500),
        ("breakout", protocol("v5", frame_stack=3, max_frames=400), 250),
        ("ms_pacman", PROTOCOLS["v5"].evaluation(), 150),
    ],
)
def test_games_without_jitter_are_ales_own(game, rules, steps):
    env, own = AtariVecEnv(game, 2, rules, 5), JitteredAtariVecEnv(game, 2, rules, 5, 0)
    seen, expected = own.reset(), env.reset()
    ended = 0
    for row in actions(env, steps):
        difference = np.abs(seen.astype(int) - expected)
        assert difference.max() <= 1  # ALE averages areas in fixed-point arithmetic
        assert (difference > 0).mean() < 1e-3
        expected, rewards, dones, infos = env.step(row)
        seen, own_rewards, own_dones, own_infos = own.step(row)
        np.testing.assert_array_equal(own_rewards, rewards)
        np.testing.assert_array_equal(own_dones, dones)
        for own_info, info in zip(own_infos, infos, strict=True):
            assert own_info.get("episode", {}).get("l") == info.get("episode", {}).get("l")
        assert (own.timespans == 1.0).all()
        ended += dones.sum()
    assert ended or game == "ms_pacman"


def test_jittered_steps_last_as_long_as_they_say():
    env = JitteredAtariVecEnv("pong", 4, V4, 0, jitter=2)
    env.reset()
    before = np.array([info["frame"] for info in frames(env)])
    lengths = []
    for row in actions(env, 60):
        env.step(row)
        now = np.array([info["frame"] for info in frames(env)])
        np.testing.assert_array_equal((now - before) / 4, env.timespans)
        lengths.append(now - before)
        before = now
    lengths = np.array(lengths)
    assert set(lengths.flatten()) == {2, 3, 4, 5, 6}
    assert abs(lengths.mean() - 4) < 0.4  # of 240 with standard deviation 1.41: 4.4 errors
    assert (lengths[:, 0] != lengths[:, 1]).any()  # each game has its own


def frames(env):
    """What ALE itself counts: a reset of no environment returns each one's frame."""
    nobody = {"reset_mask": np.array([False])}
    for game in env._emulators._emulators:
        _, info = game.reset(seed=np.array([], int), options=nobody)
        yield {"frame": int(info["episode_frame_number"][0])}


def test_the_first_timespan_of_an_episode_is_one():
    env = JitteredAtariVecEnv("pong", 2, protocol("v4", max_frames=20), 0, jitter=3)
    env.reset()
    assert (env.timespans == 1.0).all()
    for row in actions(env, 5):
        _, _, dones, _ = env.step(row)
    assert dones.all()
    assert (env.timespans == 1.0).all()


def test_noise_has_the_standard_deviation_asked_for():
    clean, noisy = AtariVecEnv("pong", 2, V4, 3), NoisyAtariVecEnv("pong", 2, V4, 3, 0.05)
    differences = [noisy.reset().astype(int) - clean.reset()]
    for row in actions(clean, 30):
        observations, rewards, _, _ = noisy.step(row)
        expected, own, _, _ = clean.step(row)
        np.testing.assert_array_equal(rewards, own)
        assert observations.dtype == np.uint8
        differences.append(observations.astype(int) - expected)
    differences = np.array(differences)
    assert abs(differences.mean()) < 0.1
    assert differences.std() == pytest.approx(0.05 * 255, rel=0.02)
    assert (differences[1] != differences[2]).any()


def test_strong_noise_stays_in_range():
    env = NoisyAtariVecEnv("pong", 1, V4, 0, 5.0)
    seen = env.reset()
    assert {0, 255} < set(seen.flatten().tolist())
    assert 0.3 < (seen == 0).mean() < 0.7


def test_lost_frames_are_replaced_by_the_last_that_arrived():
    rules = protocol("v4", max_frames=160)
    clean, lossy = AtariVecEnv("pong", 4, rules, 3), LossyAtariVecEnv("pong", 4, rules, 3, 0.5)
    last = clean.reset()
    np.testing.assert_array_equal(lossy.reset(), last)
    lost = 0
    for row in actions(clean, 100):
        expected, _, _, infos = clean.step(row)
        seen, _, _, _ = lossy.step(row)
        for game in range(4):
            if "episode" in infos[game]:  # a new game's first
                np.testing.assert_array_equal(seen[game], expected[game])
            elif not np.array_equal(seen[game], expected[game]):
                np.testing.assert_array_equal(seen[game], last[game])
                lost += 1
        last = seen
    assert 130 < lost < 230  # of 400; some lost frames look like the one before


def test_the_same_seed_perturbs_alike():
    for kind in ("noise", "drop_frames", "frame_skip_jitter", "stickiness"):
        perturbation = Perturbation(kind, 1 if kind == "frame_skip_jitter" else 0.5)
        one, two, other = (perturbed(perturbation, "breakout", 2, V4, seed) for seed in (1, 1, 2))
        seen = [[env.reset()] for env in (one, two, other)]
        for row in actions(one, 8):
            for env, own in zip((one, two, other), seen, strict=True):
                own.append(env.step(row)[0])
        np.testing.assert_array_equal(seen[0], seen[1])
        assert not np.array_equal(seen[0], seen[2])


def test_stickiness_is_the_protocols():
    env = perturbed(Perturbation("stickiness", 0.25), "pong", 1, V4, 0)
    assert env.protocol == protocol("v4", sticky_actions=0.25).evaluation()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("noize", 0.1), "did you mean 'noise'"),
        (("noise", -0.1), "noise is -0.1"),
        (("noise", float("nan")), "noise is nan"),
        (("noise", "0.1"), "strength is '0.1'"),
        (("drop_frames", 1.0), "drop_frames is 1.0"),
        (("stickiness", 1.5), "stickiness is 1.5"),
        (("frame_skip_jitter", 4), "frame_skip_jitter is 4"),
        (("frame_skip_jitter", 1.5), "frame_skip_jitter is 1.5"),
        (("noise", 0.1, True), "timespans"),
    ],
)
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Perturbation(*values)


@pytest.mark.parametrize(
    ("kind", "rules", "message"),
    [
        ("frame_skip_jitter", protocol("v4", frame_skip=2), "2 frames"),
        ("stickiness", PROTOCOLS["v5"], "0.25"),
    ],
)
def test_what_a_protocol_does_not_allow_is_refused(kind, rules, message):
    strength = 2 if kind == "frame_skip_jitter" else 0.5
    with pytest.raises(UserError, match=message):
        perturbed(Perturbation(kind, strength), "pong", 1, rules, 0)


@pytest.mark.parametrize(
    ("strength", "shown"),
    [(0.1, "0.1"), (1.0, "1"), (0.12345678, "0.12345678"), (1e-7, "0.0000001")],
)
def test_a_strength_is_shown_exactly(strength, shown):
    assert str(Perturbation("noise", strength)) == f"noise={shown}"
