"""The screens of a whole game in little room, without loss where they have up to 256 colours."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

SEGMENT = 64  # screens that are packed together: what a jump to one of them has to unpack


class FrameStore:
    """FrameStore as they come, kept packed: a minute of Pong takes about 0.1 MB instead of 90.

    Axes: T screens, H, W pixels, K colours.

    Colours become numbers in a palette; in a segment of 64 screens each one is replaced by its
    difference (XOR) from the one before, nearly all zeros, and the segment is deflated. A longer
    reach than one screen is beyond deflate's window of 32 KiB. Where a game shows more than 256
    colours, later ones are shown as the nearest of these: a step's screen is the maximum of two
    frames, and where sprites overlap that can give colours that the console never had.
    """

    def __init__(self) -> None:
        self._palette = np.empty(0, np.uint32)  # 0xRRGGBB, in the order of appearance
        self._rank = np.empty(0, np.intp)  # of the palette's sorted colours
        self._packed: list[bytes] = []
        self._open: list[np.ndarray] = []  # differences of the last segment
        self._previous: np.ndarray | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        assert self._previous is not None, "no screens yet"
        return self._previous.shape[0], self._previous.shape[1]

    @property
    def palette(self) -> np.ndarray:
        """(K, 3) uint8."""
        return np.stack([self._palette >> shift & 255 for shift in (16, 8, 0)], 1).astype(np.uint8)

    @property
    def segments(self) -> list[bytes]:
        """Each the zlib stream of up to 64 screens (…, H, W) of palette numbers, uint8, the first
        as it is and each other XOR the one before.
        """
        return [*self._packed, _pack(self._open)] if self._open else list(self._packed)

    def append(self, screen: np.ndarray) -> None:
        """screen (H, W, 3) uint8.

        Raises:
            ValueError: another size than the screens before.
        """
        numbers = self._numbers(screen)
        if self._previous is not None and numbers.shape != self._previous.shape:
            raise ValueError(
                f"screen {self._count} has shape {numbers.shape}, expected {self._previous.shape}"
            )
        if len(self._open) == SEGMENT:
            self._packed.append(_pack(self._open))
            self._open = []
        first = not self._open or self._previous is None
        self._open.append(numbers if first else numbers ^ self._previous)
        self._previous = numbers
        self._count += 1

    def __iter__(self) -> Iterator[np.ndarray]:
        """The screens (H, W, 3) uint8."""
        palette = self.palette
        for segment in self.segments:
            differences = np.frombuffer(zlib.decompress(segment), np.uint8)
            for numbers in np.bitwise_xor.accumulate(differences.reshape(-1, *self.shape), 0):
                yield palette[numbers]

    def _numbers(self, screen: np.ndarray) -> np.ndarray:
        """(H, W, 3) → (H, W) uint8 of the palette, which grows by new colours."""
        red, green, blue = (screen[..., channel].astype(np.uint32) for channel in range(3))
        colors = red << 16 | green << 8 | blue
        if not len(self._palette) or (self._known(colors)[1] != colors).any():
            new = np.setdiff1d(colors, self._palette)
            room = 256 - len(self._palette)
            if room:
                self._palette = np.concatenate([self._palette, new[:room]])
                self._rank = np.argsort(self._palette)
            for color in new[room:]:
                colors[colors == color] = self._nearest(color)
        return self._known(colors)[0]

    def _nearest(self, color: int) -> int:
        """The palette's colour that differs least, as red, green and blue."""
        wanted = np.array([color >> 16 & 255, color >> 8 & 255, color & 255], int)
        distances = (self.palette.astype(int) - wanted) ** 2
        return int(self._palette[distances.sum(-1).argmin()])

    def _known(self, colors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The palette's candidates for some colours: their numbers (uint8), and what these mean."""
        place = np.searchsorted(self._palette, colors, sorter=self._rank)
        numbers = self._rank[np.minimum(place, len(self._rank) - 1)]
        return numbers.astype(np.uint8), self._palette[numbers]


def _pack(differences: list[np.ndarray]) -> bytes:
    return zlib.compress(np.stack(differences).tobytes(), 9)
