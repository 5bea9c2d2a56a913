"""Raw Atari frames preprocessed as in our environments: grey, and shrunk to a square.

Axes: T frames, H, W screen.
"""

from __future__ import annotations

import numpy as np

from ncp_agents.envs.resize import area_means

BLOCK = 64  # frames at once, to bound the memory of intermediate results


def preprocess(frames: np.ndarray, size: int) -> np.ndarray:
    """Return frames (T, H, W) or (T, H, W, 3) uint8 as (T, size, size, 1) uint8.

    Colours become grey as in ALE, to the bit. A pixel of the result is the mean of the area that
    it covers, as with OpenCV's INTER_AREA in ALE's environments; a mean between two grey levels
    may be rounded to the other one.
    """
    tall, wide = (area_means(pixels, size) for pixels in frames.shape[1:3])
    result = np.empty((len(frames), size, size, 1), np.uint8)
    for start in range(0, len(frames), BLOCK):
        block = grey(frames[start : start + BLOCK]).astype(np.float32)
        result[start : start + BLOCK, ..., 0] = np.rint(tall @ block @ wide.T)
    return result


def grey(frames: np.ndarray) -> np.ndarray:
    """Return frames (T, H, W, 3) uint8 as ALE's luminance (T, H, W) uint8, grey ones as is."""
    if frames.ndim == 3:
        return frames
    red, green, blue = (frames[..., i].astype(np.uint32) for i in range(3))
    return ((2989 * red + 5870 * green + 1140 * blue + 5000) // 10_000).astype(np.uint8)
