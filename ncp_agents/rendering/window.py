"""A window that shows games while they are played."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ncp_agents.errors import UserError
from ncp_agents.rendering import STEPS_PER_SECOND
from ncp_agents.rendering.pictures import pictures

if TYPE_CHECKING:
    from ncp_agents.evaluation import Step


class Window:
    """Opens with the first picture; the title bar's button or Esc closes it.

    Args:
        title: in the title bar.
        fps: pictures a second at most; `show` waits for the next one's time.
        scale: side of the square of pixels that one pixel becomes.

    Raises:
        UserError: pygame is missing, or there is no screen to open a window on.
    """

    def __init__(self, title: str, fps: float = STEPS_PER_SECOND, scale: int = 3) -> None:
        self._pygame = _pygame()
        self._title, self._fps, self._scale = title, fps, scale
        self._surface: Any = None
        try:
            self._pygame.display.init()
        except self._pygame.error as error:
            raise _no_screen(str(error)) from None
        # Without a screen SDL draws into memory, unless told to by name, and nobody would know.
        driver = self._pygame.display.get_driver()
        if driver in ("offscreen", "dummy") and "SDL_VIDEODRIVER" not in os.environ:
            self.close()
            raise _no_screen("no display")
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
        return not any(
            event.type == pygame.QUIT
            or (event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE)
            for event in pygame.event.get()
        )

    def close(self) -> None:
        self._pygame.display.quit()


def shown(steps: Iterable[Step], window: Window) -> Iterator[Step]:
    """The same steps, each after the window showed it; they end when the window is closed."""
    for step, picture in pictures(steps):
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


def _no_screen(reason: str) -> UserError:
    return UserError(f"cannot open a window ({reason}); write a video instead: --video game.mp4")
