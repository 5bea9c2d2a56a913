"""AtariVecEnv on real games: lives, whole-game scores, truncation, seeds, screens, use by sb3."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from ale_py import ALEInterface, LoggerMode, roms
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecFrameStack

from ncp_agents.envs import AtariVecEnv
from ncp_agents.envs.protocol import protocol

Step = tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]


def play(env: AtariVecEnv, steps: int, actions_seed: int = 0) -> Iterator[Step]:
    """Random actions, the same ones for the same seed, from the current state on."""
    rng = np.random.default_rng(actions_seed)
    for _ in range(steps):
        yield env.step(rng.integers(0, env.action_space.n, env.num_envs))  # pyright: ignore


def observations(env: AtariVecEnv, steps: int, actions_seed: int = 0) -> np.ndarray:
    """Reset and play → (steps + 1, B, frame_stack, 84, 84)."""
    return np.stack([env.reset()] + [step[0] for step in play(env, steps, actions_seed)])


def grey_84_by_84(image: np.ndarray) -> np.ndarray:
    """A screen (210, 160, 3) as the agent sees it: luma, averaged over areas."""
    luma = np.einsum("hwc,c->hw", image, [0.299, 0.587, 0.114])
    rows = np.einsum("ah,hw->aw", _area_average(210, 84), luma)
    return np.einsum("aw,bw->ab", rows, _area_average(160, 84))


def _area_average(pixels: int, areas: int) -> np.ndarray:
    """(areas, pixels): how much of each area each pixel covers."""
    pixel, edges = np.arange(pixels), np.linspace(0, pixels, areas + 1)[:, None]
    overlap = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return overlap.clip(0) * areas / pixels


def test_spaces_and_types():
    env = AtariVecEnv("ALE/Breakout-v5", num_envs=2, protocol=protocol("v4", frame_stack=3))
    observation = env.reset()
    assert env.observation_space.contains(observation[0])
    assert env.get_action_meanings() == ["NOOP", "FIRE", "RIGHT", "LEFT"]

    observation, rewards, dones, infos = env.step(np.array([0, 1]))

    assert isinstance(observation, np.ndarray)
    assert observation.shape == (2, 3, 84, 84)
    assert (rewards.shape, rewards.dtype) == ((2,), np.float32)
    assert (dones.shape, dones.dtype) == ((2,), bool)
    assert infos == [{}, {}]


def test_five_lives_make_one_game_of_breakout():
    env = AtariVecEnv("breakout", 4, protocol("v4", clip_rewards=False), seed=1)
    env.reset()
    score, length, dones_in_game = np.zeros(4), np.zeros(4, int), np.zeros(4, int)
    games = 0

    for observation, rewards, dones, infos in play(env, 500):
        score += rewards
        length += 1
        dones_in_game += dones
        for i in range(4):
            assert dones[i] == ("terminal_observation" in infos[i])
            if "episode" in infos[i]:
                assert infos[i]["episode"]["r"] == score[i]
                assert infos[i]["episode"]["l"] == length[i]
                assert infos[i]["TimeLimit.truncated"] is False
                assert dones_in_game[i] == 5
                score[i] = length[i] = dones_in_game[i] = 0
                games += 1
            elif dones[i]:
                np.testing.assert_array_equal(infos[i]["terminal_observation"], observation[i])

    assert games >= 4


def test_a_lost_life_does_not_disturb_the_game():
    lives = AtariVecEnv("breakout", 4, "v4", seed=1)
    whole = AtariVecEnv("breakout", 4, protocol("v4", life_loss=False), seed=1)
    np.testing.assert_array_equal(lives.reset(), whole.reset())

    done_count = np.zeros(2, int)
    for ours, theirs in zip(play(lives, 300), play(whole, 300), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
        ended = ["episode" in info for info in theirs[3]]
        assert ended == ["episode" in info for info in ours[3]]
        np.testing.assert_array_equal(theirs[2], ended)
        done_count += ours[2].sum(), theirs[2].sum()

    assert done_count[0] > 4 * done_count[1] > 0


def test_clipping_changes_what_the_agent_gets_and_not_the_score():
    clipped = AtariVecEnv("ms_pacman", 4, "v4", seed=2)
    unclipped = AtariVecEnv("ms_pacman", 4, protocol("v4", clip_rewards=False), seed=2)
    clipped.reset()
    unclipped.reset()
    rewards, scores = [], []

    for ours, theirs in zip(play(clipped, 500), play(unclipped, 500), strict=True):
        np.testing.assert_array_equal(ours[1], np.sign(theirs[1]))
        rewards.append(theirs[1])
        for info, other in zip(ours[3], theirs[3], strict=True):
            assert ("episode" in info) == ("episode" in other)
            if "episode" in info:
                assert info["episode"]["r"] == other["episode"]["r"]
                scores.append(info["episode"]["r"])

    assert np.max(rewards) >= 10
    assert len(scores) >= 2
    assert min(scores) > 50


def test_a_game_is_cut_at_max_frames_after_its_true_last_frame():
    rules = protocol("v4", max_frames=118)  # in the midst of step 30
    cut = AtariVecEnv("pong", 4, rules, seed=3)
    uncut = AtariVecEnv("pong", 4, "v4", seed=3)
    expected = observations(uncut, 30)
    cut.reset()

    steps = list(play(cut, 61))

    for step, (observation, _, dones, infos) in enumerate(steps, start=1):
        assert dones.tolist() == [step % 30 == 0] * 4
        if step == 30:
            for i, info in enumerate(infos):
                assert info["TimeLimit.truncated"] is True
                assert info["episode"]["l"] == 30
                np.testing.assert_array_equal(info["terminal_observation"], expected[30, i])
                assert (observation[i] != expected[30, i]).any()
        elif step < 30:
            np.testing.assert_array_equal(observation, expected[step])
        assert infos == [{}] * 4 or dones.all()


def test_a_life_lost_in_the_last_step_is_terminal_for_sb3_and_truncates_the_episode():
    env = AtariVecEnv("breakout", 1, "v4", seed=4)
    env.reset()
    first_loss = next(n for n, step in enumerate(play(env, 300), start=1) if step[2][0])
    env = AtariVecEnv("breakout", 1, protocol("v4", max_frames=4 * first_loss), seed=4)
    env.reset()

    *_, (_, _, dones, infos) = play(env, first_loss)

    assert dones[0]
    assert infos[0]["TimeLimit.truncated"] is False
    assert infos[0]["truncated"] is True
    assert infos[0]["episode"]["l"] == first_loss


@pytest.mark.parametrize("sticky_actions", [0.0, 0.25])
def test_games_are_those_of_the_emulator_stepped_by_hand(sticky_actions):
    rules = protocol("v5", sticky_actions=sticky_actions, noop_max=0).evaluation()
    env = AtariVecEnv("breakout", 1, rules, seed=7, render_mode="rgb_array")
    env.reset()
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", sticky_actions)
    ale.setInt("random_seed", 7)
    ale.loadROM(str(roms.get_rom_path("breakout")))
    ale.reset_game()
    np.testing.assert_array_equal(env.get_images()[0], ale.getScreenRGB())
    rng = np.random.default_rng(0)
    score, length = 0, 0

    while True:
        action = rng.integers(0, 4)
        frames, reward = [], 0
        while len(frames) < 4 and not ale.game_over():
            reward += ale.act(ale.getMinimalActionSet()[action])
            frames.append(ale.getScreenRGB())
        _, rewards, dones, infos = env.step(np.array([action]))
        score += reward
        length += 1
        assert rewards[0] == reward
        assert dones[0] == ale.game_over()
        if dones[0]:
            break
        np.testing.assert_array_equal(env.get_images()[0], np.maximum(frames[2], frames[3]))

    assert infos[0]["episode"]["r"] == score
    assert infos[0]["episode"]["l"] == length


def test_the_same_seed_gives_the_same_games():
    first = observations(AtariVecEnv("breakout", 3, "v5", seed=0), 200)
    env = AtariVecEnv("breakout", 3, "v5", num_threads=1)
    env.seed(0)

    np.testing.assert_array_equal(observations(env, 200), first)

    # The seed is used up, as in every VecEnv: the next games are others.
    assert (observations(env, 50) != first[:51]).any()
    env.seed(0)
    np.testing.assert_array_equal(observations(env, 200), first)


def test_other_seeds_and_other_environments_differ():
    one = observations(AtariVecEnv("breakout", 3, "v5", seed=0), 50)
    two = observations(AtariVecEnv("breakout", 3, "v5", seed=100), 50)
    third = observations(AtariVecEnv("breakout", 1, "v5", seed=2), 0)
    unseeded = [observations(AtariVecEnv("breakout", 3, "v5"), 50) for _ in range(2)]
    assert (one != two).any()
    assert (unseeded[0] != unseeded[1]).any()
    assert (one[:, 0] != one[:, 1]).any()
    assert (one[:, 1] != one[:, 2]).any()
    np.testing.assert_array_equal(one[0, 2], third[0, 0])  # environment i starts from seed + i


def test_seeds_beyond_ale_integers_work():
    env = AtariVecEnv("pong", 2, "v5")
    assert env.seed(2**32 - 1) == [2**32 - 1, 2**32]
    first = observations(env, 20)
    env.seed(2**32 - 1)
    np.testing.assert_array_equal(observations(env, 20), first)


def test_observations_once_given_stay():
    env = AtariVecEnv("pong", 2, seed=0)
    given = [env.reset()] + [step[0] for step in play(env, 20)]
    copies = [observation.copy() for observation in given]
    list(play(env, 20))
    for observation, copy in zip(given, copies, strict=True):
        np.testing.assert_array_equal(observation, copy)


def test_screens_stay_in_lockstep_over_whole_games_and_cuts():
    rules = protocol("v5", max_frames=800)
    plain = AtariVecEnv("breakout", 3, rules, seed=5)
    shown = AtariVecEnv("breakout", 3, rules, seed=5, render_mode="rgb_array")
    np.testing.assert_array_equal(plain.reset(), shown.reset())
    truncated = set()

    steps = zip(play(shown, 350), play(plain, 350), strict=True)
    for step, (ours, theirs) in enumerate(steps):
        np.testing.assert_array_equal(ours[0], theirs[0])
        images = shown.get_images()
        assert [image.shape for image in images] == [(210, 160, 3)] * 3
        if step % 7 == 0 or ours[2].any():
            for image, observation in zip(images, ours[0], strict=True):
                assert np.abs(grey_84_by_84(image) - observation[0]).max() < 1.0
        truncated |= {info["TimeLimit.truncated"] for info in ours[3] if info}

    assert truncated == {True, False}
    tiled = shown.render()
    assert tiled is not None
    assert tiled.shape == (420, 320, 3)


def test_images_have_the_height_of_the_screen_and_need_render_mode_and_reset():
    env = AtariVecEnv("adventure", 1, render_mode="rgb_array")
    for without in (AtariVecEnv("pong", 1), env):
        with pytest.raises(RuntimeError, match="rgb_array"):
            without.get_images()
    env.reset()
    assert env.get_images()[0].shape == (250, 160, 3)


@pytest.mark.parametrize("actions", [[0, 6], [-1, 0], [0], [[0, 0]]])
def test_an_impossible_action_is_refused_before_ale_hangs_on_it(actions):
    env = AtariVecEnv("pong", 2)
    env.reset()
    with pytest.raises(ValueError, match="expected 2 integers from 0 to 5"):
        env.step(np.array(actions))
    env.step(np.array([0, 5]))


def test_reset_cancels_a_step_under_way():
    env = AtariVecEnv("pong", 2, seed=1)
    first = observations(env, 10)
    env.seed(1)
    env.reset()
    env.step_async(np.array([2, 3]))
    env.seed(1)
    np.testing.assert_array_equal(observations(env, 10), first)


def test_attributes_and_methods_of_games():
    env = AtariVecEnv("pong", 3)
    assert env.get_attr("game") == ["pong"] * 3
    assert env.get_attr("render_mode", indices=[0, 2]) == [None, None]
    assert not env.has_attr("action_masks")
    assert env.env_is_wrapped(Monitor) == [True] * 3
    assert env.env_method("get_action_meanings", indices=1) == [env.get_action_meanings()]
    with pytest.raises(AttributeError, match="frame_skip"):
        env.set_attr("frame_skip", 2)
    with pytest.raises(AttributeError, match="step"):
        env.env_method("step", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"game": "pnog"}, "pong"),
        ({"protocol": "v6"}, "v6"),
        ({"num_envs": 0}, "num_envs is 0"),
        ({"num_threads": -1}, "num_threads is -1"),
        ({"render_mode": "human"}, "human"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AtariVecEnv(**{"game": "pong", **arguments})


def test_close_twice():
    env = AtariVecEnv("pong", 2, render_mode="rgb_array")
    env.reset()
    env.step_async(np.array([0, 0]))
    env.close()
    env.close()


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """Two threads for two frames wait for each other longer than they compute on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_torch_thread")
def test_ppo_trains_on_it_and_evaluation_counts_whole_games():
    env = AtariVecEnv("breakout", 2, "v4", seed=0)
    model = PPO("CnnPolicy", env, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu")
    assert model.env is env  # needs no transposing
    model.learn(64)

    rules = protocol("v4", max_frames=1200, clip_rewards=False)
    scores, lengths = evaluate_policy(
        model,
        AtariVecEnv("breakout", 2, rules, seed=0),
        n_eval_episodes=3,
        deterministic=False,
        return_episode_rewards=True,
    )

    assert isinstance(lengths, list)
    assert len(lengths) == 3
    assert min(lengths) > 100  # a life lasts some 35 steps, five of them make a game
    assert all(score == int(score) >= 0 for score in scores)  # pyright: ignore


def test_frames_stacked_by_sb3_equal_frames_stacked_by_ale():
    # Without life_loss: at a lost life stable-baselines3 empties its stack, ALE does not.
    ours = AtariVecEnv("breakout", 2, protocol("v4", frame_stack=4, life_loss=False), seed=0)
    theirs = VecFrameStack(AtariVecEnv("breakout", 2, protocol("v4", life_loss=False), seed=0), 4)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    actions = np.random.default_rng(0).integers(0, 4, (250, 2))
    for action in actions:
        np.testing.assert_array_equal(ours.step(action)[0], theirs.step(action)[0])
