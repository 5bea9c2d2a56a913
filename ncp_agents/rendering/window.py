"""A window that shows games while they are played."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ncp_agents.envs.protocol import STEPS_PER_SECOND
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import Step


class Window:
    """Opens with the first picture; the title bar's button or Esc closes it.

    Args:
        title: in the title bar.
        fps: pictures a second at most; `show` waits for the next one's time.
        scale: side of the square of pixels that one pixel becomes.
        instead: what to do where there is no screen, for the error.

    Raises:
        UserError: pygame is missing, or there is no screen to open a window on.
    """

    def __init__(
        self,
        title: str,
        fps: float = STEPS_PER_SECOND,
        scale: int = 3,
        instead: str = "write a video instead: --video game.mp4",
    ) -> None:
        self._pygame = _pygame()
        self._title, self._fps, self._scale = title, fps, scale
        self._surface: Any = None
        self.keys: list[tuple[str, bool]] = []
        """What keys did between the last two pictures, in order: a name, such as "left", "space" or
        "w", and True where the key went down, False where it came up."""
        try:
            self._pygame.display.init()
        except self._pygame.error as error:
            raise UserError(f"cannot open a window ({error}); {instead}") from None
        # Without a screen SDL draws into memory, unless told to by name, and nobody would know.
        driver = self._pygame.display.get_driver()
        if driver in ("offscreen", "dummy") and "SDL_VIDEODRIVER" not in os.environ:
            self.close()
            raise UserError(f"cannot open a window (no display); {instead}")
        self._clock = self._pygame.time.Clock()

    def show(self, picture: np.ndarray) -> bool:
        """picture (H, W, 3) uint8 → False once the window was closed."""
        pygame = self._pygame
        height, width, _ = picture.shape
        if self._surface is None:
            self._surface = pygame.display.set_mode((width * self._scale, height * self._scale))
            pygame.display.set_caption(self._title)
        small = pygame.image.frombuffer(picture.tobytes(), (width, height), "RGB")
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
        self._pygame.display.quit()


def shown(pictures: Iterable[tuple[Step, np.ndarray]], window: Window) -> Iterator[Step]:
    """The steps, each after the window showed its picture; they end when the window is closed."""
    for step, picture in pictures:
        if not window.show(picture):
            return
        yield step


def _pygame() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # a greeting on standard output
    try:
        import pygame
    except ImportError:
        raise UserError(
            "a window needs pygame, which is missing; install it: pip install 'ncp-agents[play]'"
        ) from None
    return pygame
