"""The game's frame with the episode's number and score above it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ncp_agents.evaluation.rollout import Step

CAPTION_HEIGHT = 12  # pixels of the game: one line of Pillow's 6×11 bitmap font
CAPTION_GREY = 200  # of 255


def captioned_frames(steps: Iterable[Step]) -> Iterator[tuple[Step, np.ndarray]]:
    """Yield each step with its frame, (CAPTION_HEIGHT + H, W, 3) uint8, of the first environment.

    The frame is of the moment of the observation; the score already includes the step's reward, so
    that an episode's last frame shows its result.

    Raises:
        ValueError: steps without RGB frames.
    """
    episode, score = 1, 0.0
    for step in steps:
        if step.rgb_frames is None:
            raise ValueError("the steps have no RGB frames; make the env with 'rgb_array'")
        score += float(step.rewards[0])
        yield step, add_caption(step.rgb_frames[0], f"episode {episode}  score {score:,.0f}")
        if "episode" in step.infos[0]:
            episode, score = episode + 1, 0.0


def add_caption(frame: np.ndarray, text: str) -> np.ndarray:
    """(H, W, 3) uint8 → (CAPTION_HEIGHT + H, W, 3), with one line of text above the frame."""
    height, width, _ = frame.shape
    strip = Image.new("L", (width, CAPTION_HEIGHT))
    font = ImageFont.load_default_imagefont()  # without FreeType, and sharp at this size
    ImageDraw.Draw(strip).text((2, 0), text, fill=CAPTION_GREY, font=font)
    picture = np.empty((CAPTION_HEIGHT + height, width, 3), np.uint8)
    picture[:CAPTION_HEIGHT] = np.asarray(strip)[..., None]
    picture[CAPTION_HEIGHT:] = frame
    return picture
