"""Frames → a video that every browser shows: MP4 (H.264), WebM (VP9) or GIF."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np

from ncp_agents.envs.protocol import STEPS_PER_SECOND
from ncp_agents.errors import UserError
from ncp_agents.files import atomic_write

# Pixel edges stay sharp; a minute of Pong takes about 1 MB as MP4 or WebM. A GIF has a palette a
# frame, since one for all could only be chosen with all frames in memory.
FORMATS: dict[str, dict[str, Any]] = {
    ".mp4": {
        "codec": "libx264",
        "pix_fmt_out": "yuv420p",
        "quality": None,
        # "faststart" lets it play while it loads.
        "output_params": ["-crf", "25", "-preset", "veryfast", "-movflags", "+faststart"],
    },
    ".webm": {
        "codec": "libvpx-vp9",
        "pix_fmt_out": "yuv420p",
        "quality": None,
        # Without these VP9 takes several times the episode's duration.
        "output_params": [
            *("-crf", "36", "-b:v", "0"),
            *("-deadline", "realtime", "-cpu-used", "8", "-row-mt", "1"),
        ],
    },
    ".gif": {
        "codec": "gif",
        "pix_fmt_out": "pal8",
        "quality": None,
        "output_params": [
            "-vf",
            "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=dither=none:new=1",
        ],
    },
}


def write_video(
    path: Path, frames: Iterable[np.ndarray], fps: int = STEPS_PER_SECOND, scale: int = 3
) -> int:
    """Encode frames as they come; `path` is replaced once the video is whole.

    Args:
        path: ends in .mp4, .webm or .gif, which decides the format.
        frames: each (H, W, 3) uint8, all of one size, at least one.
        fps: frames a second; 15 is real time at one frame a step.
        scale: side of the square of pixels that one pixel becomes. Odd sizes get a black edge,
            because H.264 and VP9 halve the colours' resolution.

    Returns:
        The number of frames written.

    Raises:
        OSError: the encoder failed, for instance on a full disk.
    """
    encoding = FORMATS[path.suffix.lower()]
    with atomic_write(path) as temporary:
        count = 0
        writer = None
        try:
            for frame in frames:
                if writer is None:
                    size = _even(frame.shape[1] * scale), _even(frame.shape[0] * scale)
                    writer = imageio_ffmpeg.write_frames(
                        str(temporary),
                        size,
                        fps=fps,
                        macro_block_size=2,
                        ffmpeg_log_level="error",
                        **encoding,
                    )
                    writer.send(None)  # starts the encoder
                writer.send(_enlarged(frame, scale))
                count += 1
        finally:
            if writer is not None:
                writer.close()  # waits for the encoder
        # The encoder's exit code is not accessible; a truncated file lacks its index or its end.
        try:
            written, _ = imageio_ffmpeg.count_frames_and_secs(str(temporary))
        except RuntimeError:
            written = 0
        if written != count:
            raise OSError(f"{path} got {written} of {count} frames; is the disk full?")
    return count


def check_video_path(path: Path) -> None:
    """Check that a path ends in .mp4, .webm or .gif.

    Raises:
        UserError: another ending.
    """
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"video {path} ends in {path.suffix!r}, expected .mp4, .webm or .gif")


def _enlarged(frame: np.ndarray, scale: int) -> np.ndarray:
    """(H, W, 3) → (even H * scale, even W * scale, 3), nearest neighbour."""
    if scale > 1:
        frame = frame.repeat(scale, axis=1).repeat(scale, axis=0)
    height, width, _ = frame.shape
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)))
    return np.ascontiguousarray(frame)


def _even(size: int) -> int:
    return size + size % 2
