"""Videos decode to the frames that were written; a window shows frames until it is closed."""

import itertools
import sys
import warnings

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from ncp_agents.agents.recipe import Recipe
from ncp_agents.agents.saved_policy import SavedPolicy, build
from ncp_agents.cli.evaluate import Evaluate
from ncp_agents.cli.evaluate_one import evaluate_one, record_video
from ncp_agents.envs import AtariVecEnv
from ncp_agents.envs.protocol import protocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import first_episodes, rollout
from ncp_agents.rendering.captions import CAPTION_HEIGHT, add_caption, captioned_frames
from ncp_agents.rendering.video import write_video
from ncp_agents.rendering.window import Window

SHORT = protocol("v4", max_frames=100)  # 25 steps an episode


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(5)
    return SavedPolicy(Recipe(), build(Recipe()))


def decode(path):
    """Return the frames (T, H, W, 3) and the metadata."""
    with warnings.catch_warnings():
        # imageio leaves its pipes to the garbage collector.
        warnings.filterwarnings("ignore", "unclosed file", ResourceWarning)
        return iio.imread(path), iio.immeta(path)


def squares(count, height, width):
    """Yield frames (height, width, 3) of a bright block that moves."""
    for i in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[4 * i : 4 * i + 4, 4:8] = 200
        yield frame


@pytest.mark.parametrize(
    ("ending", "magic", "scale"),
    [("mp4", b"\0\0\0", 3), ("webm", b"\x1aE\xdf\xa3", 4), ("GIF", b"GIF89a", 4)],
)
def test_video_decodes_to_what_was_written(tmp_path, ending, magic, scale):
    path = tmp_path / "new" / f"squares.{ending}"
    assert write_video(path, squares(5, 22, 17), fps=15, scale=scale) == 5

    video, about = decode(path)
    width = 17 * scale
    assert video.shape == (5, 22 * scale, width + width % 2, 3)
    for frame, expected in zip(video, squares(5, 22, 17), strict=True):
        large = expected.repeat(scale, axis=0).repeat(scale, axis=1)
        assert np.abs(frame[:, :width].astype(int) - large).mean() < 3
        assert not (frame[:, width:] > 20).any()
    assert path.read_bytes().startswith(magic)
    if ending == "mp4":
        assert (about["fps"], about["codec"]) == (15, "h264")
        assert about["pix_fmt"].startswith("yuv420p")
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_video_encodes_frames_as_they_come(tmp_path):
    alive = []

    def frames():
        for frame in squares(6, 32, 32):
            alive.append(sys.getrefcount(frame))
            yield frame

    write_video(tmp_path / "squares.mp4", frames())
    assert len(set(alive)) == 1


def test_a_failed_video_leaves_the_old_one(tmp_path):
    path = tmp_path / "squares.mp4"
    path.write_bytes(b"old")

    def breaks():
        yield from squares(2, 32, 32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, breaks())
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["squares.mp4"]


def test_a_video_of_two_episodes(policy, tmp_path):
    path = tmp_path / "pong.mp4"
    before = torch.get_rng_state()
    assert record_video(policy, path, 2, SHORT, seed=3) == 50
    assert torch.equal(torch.get_rng_state(), before)

    video, _ = decode(path)
    assert video.shape == (50, 3 * (CAPTION_HEIGHT + 210), 3 * 160, 3)
    env = AtariVecEnv("pong", 1, SHORT.evaluation(), seed=3, render_mode="rgb_array")
    env.reset()
    game = env.get_images()[0].repeat(3, axis=0).repeat(3, axis=1)
    shown = video[0, 3 * CAPTION_HEIGHT :]
    # Colours have half the resolution in H.264, so edges blur.
    assert np.abs(shown.astype(int) - game).mean() < 5
    assert np.abs(shown.astype(int) - game[::-1]).mean() > 10


class Fires:
    """A policy of one action, which serves the ball."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.ones(len(observation), np.int64), None


@pytest.mark.parametrize(
    ("name", "frames", "expected_scores"),
    [
        ("pong", 600, {(1, 0.0), (1, -1.0), (2, 0.0), (2, -1.0)}),
        ("breakout", 2000, {(1, 0), (2, 0)}),
    ],
)
def test_captions_count_score_and_episodes(policy, name, frames, expected_scores):
    """In Breakout lives are lost within an episode."""
    rules = protocol("v4", max_frames=frames)
    env = AtariVecEnv(name, 1, rules, seed=3, render_mode="rgb_array")
    acting = policy if name == "pong" else Fires()
    score, episode, seen, lost, ended = 0.0, 1, set(), 0, True
    for step, picture in captioned_frames(first_episodes(rollout(acting, env), 2)):
        lost += step.resets[0] and not ended
        score += step.rewards[0]
        seen.add((episode, score))
        expected = add_caption(step.rgb_frames[0], f"episode {episode}  score {score:.0f}")
        np.testing.assert_array_equal(picture, expected)
        ended = "episode" in step.infos[0]
        if ended:
            score, episode = 0.0, episode + 1
    assert expected_scores <= seen
    assert bool(lost) == (name == "breakout")


def test_captions_differ_and_leave_the_frame_alone():
    frame = np.full((20, 160, 3), 77, np.uint8)
    one, two = add_caption(frame, "score 1"), add_caption(frame, "score 2")
    assert one.shape == (20 + CAPTION_HEIGHT, 160, 3)
    np.testing.assert_array_equal(one[CAPTION_HEIGHT:], frame)
    assert (one != two).any()


def test_captions_need_rgb_frames(policy):
    env = AtariVecEnv("pong", 1, SHORT)
    with pytest.raises(ValueError, match="rgb_array"):
        next(captioned_frames(rollout(policy, env)))


@pytest.mark.usefixtures("no_screen")
def test_a_window_shows_frames_at_its_speed():
    import pygame

    window = Window("squares", fps=50, scale=2)
    start = pygame.time.get_ticks()
    try:
        assert all(window.show(frame) for frame in squares(6, 24, 32))
        duration = pygame.time.get_ticks() - start
        surface = pygame.display.get_surface()
        assert surface.get_size() == (64, 48)
        assert surface.get_at((8, 40))[:3] == (200, 200, 200)
        assert surface.get_at((8, 39))[:3] == (0, 0, 0)
    finally:
        window.close()
    assert duration >= 5 * 20  # ms


@pytest.mark.usefixtures("no_screen")
@pytest.mark.parametrize("key", ["QUIT", "K_ESCAPE", "K_a"])
def test_closing_the_window_or_escape_ends_it(key):
    import pygame

    window = Window("squares", fps=1000)
    try:
        frame = next(squares(1, 24, 32))
        assert window.show(frame)
        if key == "QUIT":
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        else:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=getattr(pygame, key)))
        assert window.show(frame) == (key == "K_a")
    finally:
        window.close()


@pytest.mark.usefixtures("no_screen")
def test_closing_the_window_ends_the_evaluation(policy, tmp_path, capsys, monkeypatch):
    import pygame

    show, frames = Window.show, itertools.count(1)

    def show_eleven(window, frame):
        if next(frames) == 12:
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        return show(window, frame)

    monkeypatch.setattr(Window, "show", show_eleven)
    output = tmp_path / "scores.json"
    short = protocol("v4", max_frames=20)  # 5 steps
    result = evaluate_one(policy, Evaluate(protocol=short, render="human", output=output))
    assert result.lengths == (5, 5)
    assert "stopped after 2 of 30 episodes" in capsys.readouterr().out
    assert not output.exists()
    assert not pygame.display.get_init()


def test_a_window_without_pygame_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(UserError, match=r"ncp-agents\[play\]"):
        Window("pong")


def test_a_window_without_a_display_offers_the_video(monkeypatch):
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform != "linux":
        pytest.skip("other systems always have a display")
    with pytest.raises(UserError, match="--video"):
        Window("pong")
