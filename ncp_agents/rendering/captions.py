"""The game's screen with its number and score above it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ncp_agents.evaluation.rollout import Step

CAPTION_HEIGHT = 12  # pixels of the screen: one line of Pillow's 6×11 bitmap font
CAPTION_GREY = 200  # of 255


def captioned_frames(steps: Iterable[Step]) -> Iterator[tuple[Step, np.ndarray]]:
    """Each step with its picture, (CAPTION_HEIGHT + H, W, 3) uint8, of the first environment.

    The screen is the one the policy decided on; the score already has that decision's reward in
    it, so the last picture of a game shows how it ended.

    Raises:
        ValueError: steps without screens.
    """
    game, score = 1, 0.0
    for step in steps:
        if step.rgb_frames is None:
            raise ValueError(
                "the steps have no screens; make AtariVecEnv with render_mode='rgb_array'"
            )
        score += float(step.rewards[0])
        yield step, add_caption(step.rgb_frames[0], f"game {game}  score {score:,.0f}")
        if "episode" in step.infos[0]:
            game, score = game + 1, 0.0


def add_caption(screen: np.ndarray, text: str) -> np.ndarray:
    """screen (H, W, 3) uint8 → (CAPTION_HEIGHT + H, W, 3), with one line of text above it."""
    height, width, _ = screen.shape
    strip = Image.new("L", (width, CAPTION_HEIGHT))
    font = ImageFont.load_default_imagefont()  # without FreeType, and sharp at this size
    ImageDraw.Draw(strip).text((2, 0), text, fill=CAPTION_GREY, font=font)
    picture = np.empty((CAPTION_HEIGHT + height, width, 3), np.uint8)
    picture[:CAPTION_HEIGHT] = np.asarray(strip)[..., None]
    picture[CAPTION_HEIGHT:] = screen
    return picture
