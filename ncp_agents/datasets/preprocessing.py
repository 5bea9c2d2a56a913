"""Raw Atari frames as our environments show them: grey, and shrunk to a square.

Axes: T frames, H, W screen.
"""

from __future__ import annotations

import numpy as np

from ncp_agents.envs.resize import area_means

BLOCK = 64  # frames at once, so that the numbers between stay small


def observed(frames: np.ndarray, size: int) -> np.ndarray:
    """frames (T, H, W) or (T, H, W, 3) uint8 → (T, size, size, 1) uint8.

    Colours become grey as in ALE, to the bit. A pixel of the result is the mean of the area that
    it covers, as with OpenCV's INTER_AREA in ALE's environments; where that mean lies between two
    grey levels, rounding may choose the other one.
    """
    tall, wide = (area_means(pixels, size) for pixels in frames.shape[1:3])
    result = np.empty((len(frames), size, size, 1), np.uint8)
    for at in range(0, len(frames), BLOCK):
        block = grey(frames[at : at + BLOCK]).astype(np.float32)
        result[at : at + BLOCK, ..., 0] = np.rint(tall @ block @ wide.T)
    return result


def grey(frames: np.ndarray) -> np.ndarray:
    """frames (T, H, W, 3) uint8 → ALE's luminance (T, H, W) uint8; grey ones stay as they are."""
    if frames.ndim == 3:
        return frames
    red, green, blue = (frames[..., i].astype(np.uint32) for i in range(3))
    return ((2989 * red + 5870 * green + 1140 * blue + 5000) // 10_000).astype(np.uint8)
