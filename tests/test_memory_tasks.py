"""Memory tasks: what is hidden, what is paid, when episodes end, and that memory is needed."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ncp_agents.envs.memory import CartPoleNoVel, RecallEnv


@pytest.mark.parametrize(
    "env", [CartPoleNoVel(render_mode="rgb_array"), RecallEnv(delay=2, cues=3)]
)
@pytest.mark.filterwarnings("ignore:.*environment not having a spec.*")
def test_it_is_a_sound_environment(env):
    check_env(env)
    env.close()


def test_cart_pole_shows_position_and_angle_of_the_same_physics():
    full, hidden = gymnasium.make("CartPole-v1"), CartPoleNoVel()
    full_observation, _ = full.reset(seed=3)
    observation, _ = hidden.reset(seed=3)

    for step in range(9):
        np.testing.assert_array_equal(observation, full_observation[[0, 2]])
        full_observation, *full_rest = full.step(step % 2)
        observation, *rest = hidden.step(step % 2)
        assert rest == full_rest


def test_cart_pole_stops_after_500_steps():
    env = CartPoleNoVel()
    env.reset(seed=0)
    truncated, steps = False, 0

    while not truncated:
        # The full state is read where no agent can, to keep the pole up.
        x, x_dot, angle, angle_dot = env.state  # pyright: ignore[reportGeneralTypeIssues]
        push_right = angle + 0.3 * angle_dot + 0.05 * x + 0.1 * x_dot > 0
        _, _, terminated, truncated, _ = env.step(int(push_right))
        steps += 1
        assert not terminated

    assert steps == 500
    env.reset(seed=0)
    assert not env.step(0)[3]


def test_cart_pole_needs_its_velocities():
    rng = np.random.default_rng(0)
    env = CartPoleNoVel()
    means = []
    for _ in range(30):
        weights, bias = rng.normal(size=2), rng.normal() * 0.01
        lengths = []
        for seed in range(5):
            observation, _ = env.reset(seed=seed)
            terminated, length = False, 0
            while not terminated:
                action = int(observation @ weights + bias > 0)
                observation, _, terminated, _, _ = env.step(action)
                length += 1
            lengths.append(length)
        means.append(np.mean(lengths))
    assert max(means) < 80


def test_cart_pole_is_registered_on_import():
    env = gymnasium.make("ncp_agents.envs.memory:CartPoleNoVel-v1")
    assert env.observation_space.shape == (2,)
    assert isinstance(env.unwrapped, CartPoleNoVel)


@pytest.mark.parametrize(("delay", "cues"), [(1, 2), (4, 5)])
def test_recall_shows_the_cue_once_and_pays_for_its_repetition(delay, cues):
    env = RecallEnv(delay, cues)
    for seed in range(6):
        observation, _ = env.reset(seed=seed)
        cue = int(observation.argmax())
        np.testing.assert_array_equal(observation, np.eye(cues + 1)[cue])
        for waited in range(1, delay + 1):
            observation, reward, terminated, truncated, _ = env.step(np.int64(cue))
            assert (reward, terminated, truncated) == (0.0, False, False)
            expected = np.eye(cues + 1)[cues] if waited == delay else np.zeros(cues + 1)
            np.testing.assert_array_equal(observation, expected)
        answer = cue if seed % 2 else (cue + 1) % cues
        _, reward, terminated, truncated, _ = env.step(np.int64(answer))
        assert (reward, terminated, truncated) == (float(answer == cue), True, False)


def test_recall_draws_every_cue():
    env = RecallEnv(delay=1, cues=3)
    env.reset(seed=0)
    cues = [int(env.reset()[0].argmax()) for _ in range(300)]
    assert np.bincount(cues, minlength=4).tolist()[3] == 0
    assert min(np.bincount(cues)) > 70  # 100 expected; 8.2 standard deviation


@pytest.mark.parametrize("sizes", [{"delay": 0}, {"cues": 1}])
def test_recall_refuses_sizes_that_need_no_memory(sizes):
    with pytest.raises(ValueError, match=f"{min(sizes)} is"):
        RecallEnv(**sizes)
