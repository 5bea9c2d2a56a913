"""A window that shows frames at the speed of the game."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ncp_agents.envs.protocol import STEPS_PER_SECOND
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import Step


class Window:
    """Opens with the first frame; the title bar's button or Esc closes it.

    Args:
        title: in the title bar.
        fps: maximum frames per second; `show` waits for the next one's time.
        scale: side of the square of pixels that one pixel becomes.
        instead: what to do where there is no display, for the error.

    Raises:
        UserError: pygame is missing, or there is no display.
    """

    def __init__(
        self,
        title: str,
        fps: float = STEPS_PER_SECOND,
        scale: int = 3,
        instead: str = "write a video instead: --video episode.mp4",
    ) -> None:
        self._pygame = _pygame()
        self._title, self._fps, self._scale = title, fps, scale
        self._surface: Any = None
        self.keys: list[tuple[str, bool]] = []
        """Key events between the last two frames, in order: a name, such as "left", "space" or "w",
        and True where the key went down, False where it came up."""
        try:
            self._pygame.display.init()
        except self._pygame.error as error:
            raise UserError(f"cannot open a window ({error}); {instead}") from None
        # Without a display SDL draws into memory instead of failing.
        driver = self._pygame.display.get_driver()
        if driver in ("offscreen", "dummy") and "SDL_VIDEODRIVER" not in os.environ:
            self.close()
            raise UserError(f"cannot open a window (no display); {instead}")
        self._clock = self._pygame.time.Clock()

    def show(self, frame: np.ndarray) -> bool:
        """Show a frame (H, W, 3) uint8; return False once the window was closed."""
        pygame = self._pygame
        height, width, _ = frame.shape
        if self._surface is None:
            self._surface = pygame.display.set_mode((width * self._scale, height * self._scale))
            pygame.display.set_caption(self._title)
        small = pygame.image.frombuffer(frame.tobytes(), (width, height), "RGB")
        large = pygame.transform.scale(small, self._surface.get_size())  # nearest neighbour
        self._surface.blit(large, (0, 0))
        pygame.display.flip()
        self._clock.tick(self._fps)
        events = pygame.event.get()
        self.keys = [
            (pygame.key.name(event.key), event.type == pygame.KEYDOWN)
            for event in events
            if event.type in (pygame.KEYDOWN, pygame.KEYUP)
        ]
        closed = any(event.type == pygame.QUIT for event in events)
        return not closed and ("escape", True) not in self.keys

    def close(self) -> None:
        """Close the window."""
        self._pygame.display.quit()


def show_frames(frames: Iterable[tuple[Step, np.ndarray]], window: Window) -> Iterator[Step]:
    """Show each step's frame and yield the step, until the window is closed."""
    for step, frame in frames:
        if not window.show(frame):
            return
        yield step


def _pygame() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # a greeting on standard output
    try:
        import pygame
    except ImportError:
        raise UserError(
            "a window needs pygame; install it: pip install 'ncp-agents[play]'"
        ) from None
    return pygame
