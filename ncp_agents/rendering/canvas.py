"""Text and lines drawn into frames, (H, W, 3) uint8 arrays."""

from __future__ import annotations

import functools
from collections import deque
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
BACKGROUND, INK, GREY, FAINT = (15, 17, 22), (232, 233, 236), (146, 152, 163), (42, 46, 56)
POSITIVE, NEGATIVE = (86, 180, 233), (255, 148, 64)  # of Okabe and Ito's palette, on a dark ground


class Box(NamedTuple):
    """Pixels from the left and the top."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top


class RunningLine:
    """The last `steps` values of a number, as a line that runs to the left."""

    def __init__(self, box: Box, typical: np.ndarray, steps: int) -> None:
        self._box = box
        self._low, self._high = float(typical.min()), float(typical.max())
        self._past: deque[float] = deque(maxlen=steps)
        self._steps = np.linspace(1 - steps, 0, box.width)  # of the pixel columns; now is 0

    def draw(self, frame: np.ndarray, value: float, label: str) -> None:
        """Add a value, and draw the line with a label above its end."""
        self._past.append(value)
        self._low, self._high = min(self._low, value), max(self._high, value)
        margin = 0.06 * (self._high - self._low) or 1.0
        top_value = self._high + margin
        pixels = (self._box.height - 1) / (top_value - self._low + margin)
        left, top, right, bottom = self._box
        area, zero = frame[top:bottom, left:right], top_value * pixels  # from the top
        if 0 < zero < self._box.height - 1:
            area[round(zero)] = FAINT
        rows = (top_value - np.array(self._past)) * pixels
        past = self._steps >= 1 - len(rows)
        y = np.interp(self._steps[past], np.arange(1 - len(rows), 1), rows)
        before = np.r_[y[:1], y[:-1]]
        # How much of each pixel lies between this column's height and the one before.
        upper, lower = np.minimum(y, before) - 0.8, np.maximum(y, before) + 0.8
        row = np.arange(self._box.height)[:, None]
        alpha = np.clip(np.minimum(row + 0.5, lower) - np.maximum(row - 0.5, upper), 0, 1)
        touched = np.nonzero(alpha)
        place = touched[0], touched[1] + np.argmax(past)
        under = area[place]
        area[place] = under + (np.array(POSITIVE, np.float32) - under) * alpha[touched][:, None]
        draw_text(frame, (right, top - 30), label, 17, INK, "right")


def draw_text(
    frame: np.ndarray,
    place: tuple[int, int],
    text: str,
    size: int,
    color: Color,
    align: str = "left",
) -> None:
    """Draw text with its top at `place`."""
    mask = _mask(text, size)
    x, y = place
    x -= {"left": 0, "middle": mask.shape[1] // 2, "right": mask.shape[1]}[align]
    mask = mask[:, : max(frame.shape[1] - x, 0)]
    part = frame[y : y + mask.shape[0], x : x + mask.shape[1]]
    part[:] = part + (np.array(color, np.float32) - part) * mask[..., None]


def fitted(text: str, size: int, width: int) -> str:
    """Return the text, or as much of it as fits in a width."""
    font = ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text
    length = next(n for n in range(len(text), 0, -1) if font.getlength(f"{text[:n]}…") <= width)
    return f"{text[:length]}…"


@functools.lru_cache(4096)
def _mask(text: str, size: int) -> np.ndarray:
    """(height, width) float32 of 0…1; digits are equally wide only by chance."""
    font = ImageFont.load_default(size)
    left, _, right, _ = font.getbbox(text)
    picture = Image.new("L", (max(int(right - left), 1), round(1.4 * size)))
    ImageDraw.Draw(picture).text((-left, 0), text, fill=255, font=font)
    return np.asarray(picture, np.float32) / 255
