"""The RGB frames of an episode in little memory, lossless up to 256 colours."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

SEGMENT = 64  # frames that are compressed together: what random access to one has to decompress


class FrameStore:
    """A compressed sequence of frames: a minute of Pong takes about 0.1 MB instead of 90.

    Axes: T frames, H, W pixels, K colours.

    Colours become indices of a palette; in a segment of 64 frames each frame is replaced by its
    difference (XOR) from the previous one, nearly all zeros, and the segment is deflated. Beyond
    256 colours, further ones are replaced by the nearest: a step's frame is the maximum of two of
    the console's, and overlapping sprites can make colours that the console does not have.
    """

    def __init__(self) -> None:
        self._palette = np.empty(0, np.uint32)  # 0xRRGGBB, in the order of appearance
        self._rank = np.empty(0, np.intp)  # argsort of the palette
        self._compressed: list[bytes] = []
        self._open: list[np.ndarray] = []  # differences of the last segment
        self._previous: np.ndarray | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        assert self._previous is not None, "no frames yet"
        return self._previous.shape[0], self._previous.shape[1]

    @property
    def palette(self) -> np.ndarray:
        """(K, 3) uint8."""
        return np.stack([self._palette >> shift & 255 for shift in (16, 8, 0)], 1).astype(np.uint8)

    @property
    def segments(self) -> list[bytes]:
        """Each the zlib stream of up to 64 frames (…, H, W) of palette indices, uint8.

        The first is as it is, each other one XOR the previous.
        """
        return [*self._compressed, *([_compress(self._open)] if self._open else [])]

    def append(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3) uint8, of the same size as the others."""
        indices = self._indices(frame)
        if len(self._open) == SEGMENT:
            self._compressed.append(_compress(self._open))
            self._open = []
        first = not self._open or self._previous is None
        self._open.append(indices if first else indices ^ self._previous)
        self._previous = indices
        self._count += 1

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames (H, W, 3) uint8."""
        palette = self.palette
        for segment in self.segments:
            differences = np.frombuffer(zlib.decompress(segment), np.uint8)
            for indices in np.bitwise_xor.accumulate(differences.reshape(-1, *self.shape), 0):
                yield palette[indices]

    def _indices(self, frame: np.ndarray) -> np.ndarray:
        """(H, W, 3) → (H, W) uint8 of the palette, to which new colours are added."""
        red, green, blue = (frame[..., channel].astype(np.uint32) for channel in range(3))
        colors = red << 16 | green << 8 | blue
        if not len(self._palette) or (self._candidates(colors)[1] != colors).any():
            new = np.setdiff1d(colors, self._palette)
            room = 256 - len(self._palette)
            if room:
                self._palette = np.concatenate([self._palette, new[:room]])
                self._rank = np.argsort(self._palette)
            for color in new[room:]:
                colors[colors == color] = self._nearest(color)
        return self._candidates(colors)[0]

    def _nearest(self, color: int) -> int:
        """Return the palette's colour with the smallest distance in RGB."""
        wanted = np.array([color >> 16 & 255, color >> 8 & 255, color & 255], int)
        distances = (self.palette.astype(int) - wanted) ** 2
        return int(self._palette[distances.sum(-1).argmin()])

    def _candidates(self, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the palette's indices (uint8) for colours, and the colours there."""
        place = np.searchsorted(self._palette, colors, sorter=self._rank)
        indices = self._rank[np.minimum(place, len(self._rank) - 1)]
        return indices.astype(np.uint8), self._palette[indices]


def _compress(differences: list[np.ndarray]) -> bytes:
    return zlib.compress(np.stack(differences).tobytes(), 9)
