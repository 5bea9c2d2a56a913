"""A person at the keyboard as a policy, in a window with help beside the game."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ncp_agents.agents.saved_policy import State
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.protocol import STEPS_PER_SECOND
from ncp_agents.evaluation.rollout import Step, rollout
from ncp_agents.imitation.key_actions import KEYS, nearest_action
from ncp_agents.rendering.window import Window

PAUSE, RESTART = "p", "r"

SCALE = 3  # factor from the game's pixels to the window's
PANEL_WIDTH = 320  # pixels
PANEL, TEXT, FAINT, BRIGHT = (24, 26, 32), (222, 224, 230), (132, 138, 150), (255, 196, 72)
HELP = (
    ("arrows, WASD", "move"),
    ("space", "fire"),
    ("P", "pause"),
    ("R", "restart, drop this episode"),
    ("Esc", "end; whole episodes are kept"),
)


class HumanPolicy:
    """A person as the policy of one environment, at the game's own speed.

    `play` yields the steps; for each of them `predict` shows the frame and reads the keys.

    Args:
        wanted: episodes to record, as the help shows them.
        fps: steps per second.

    Attributes:
        recorded: episodes so far.

    Raises:
        UserError: pygame is missing, or there is no screen.
    """

    def __init__(self, wanted: int, fps: float = STEPS_PER_SECOND) -> None:
        self.window = Window("Record", fps, scale=1, instead="record a policy's episodes instead")
        self.wanted, self.recorded = wanted, 0
        self.score = 0.0
        self.last_score: float | None = None  # of the episode before
        self.env: AtariVecEnv | None = None
        self._action = 0  # the last one taken, which led to the current frame
        self._is_start = True  # of an episode, which waits for a key
        # Keys, in the order in which they went down.
        self._held: dict[str, None] = {}
        self._pressed: dict[str, None] = {}  # since the last step, even if released since

    def play(self, env: AtariVecEnv) -> Iterator[Step]:
        """Yield the steps of each episode once it has ended, without RGB frames.

        They end when the window is closed; an episode that was dropped or left is not among them.

        Args:
            env: one environment, with render_mode="rgb_array".
        """
        self.env = env
        while True:
            episode: list[Step] = []
            self.score, self._is_start = 0.0, True
            try:
                for step in rollout(self, env):
                    episode.append(step._replace(rgb_frames=None))
                    self.score += float(step.rewards[0])
                    if "episode" in step.infos[0]:
                        self.recorded += 1
                        self.last_score, self.score, self._is_start = self.score, 0.0, True
                        yield from episode
                        episode = []
            except _Restart:
                self.last_score = None
            except _End:
                return

    def close(self) -> None:
        """Close the window."""
        self.window.close()

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        """Show the frame for a step's time, and return the action (1,) of the keys.

        They are those that are held, or were pressed since the last step.
        """
        assert self.env is not None
        if self._is_start:
            self._is_start = False
            before = "" if self.last_score is None else f"Recorded, score {self.last_score:,.0f}. "
            self._wait(before + "Press an arrow or space to start", KEYS)
        self._show()
        if (PAUSE, True) in self.window.keys:
            self._wait("Paused. Press P to continue", [PAUSE])
            self._pressed.clear()
        moves = [KEYS[key] for key in {**self._held, **self._pressed}]
        self._action = nearest_action(self.env.get_action_meanings(), moves)
        self._pressed.clear()
        return np.array([self._action]), state

    def _wait(self, message: str, keys: Collection[str]) -> None:
        """Show a message until one of the keys goes down."""
        while True:
            self._show(message)
            if any(down and key in keys for key, down in self.window.keys):
                return

    def _show(self, message: str = "") -> None:
        """Show a picture for a step's time, then read the keys."""
        assert self.env is not None
        picture = with_help(
            self.env.get_images()[0],
            self.env.game.replace("_", " ").title(),
            f"{self.score:,.0f}",
            f"{self.recorded} of {self.wanted} episodes recorded",
            self.env.get_action_meanings(),
            self._action,
            message,
        )
        if not self.window.show(picture):
            raise _End
        for key, down in self.window.keys:
            if key == RESTART and down:
                raise _Restart
            if key in KEYS:
                self._held.pop(key, None)
                if down:
                    self._held[key] = self._pressed[key] = None


class _Restart(Exception):
    """The running episode is dropped."""


class _End(Exception):
    """The window is closed."""


def with_help(
    frame: np.ndarray,
    title: str,
    score: str,
    progress: str,
    actions: Sequence[str],
    action: int,
    message: str = "",
) -> np.ndarray:
    """Return the enlarged frame with a message on it, and score, keys and actions beside it.

    frame (H, W, 3) → (SCALE * H, SCALE * W + PANEL_WIDTH, 3) uint8. The action with the index
    `action`, the last one taken, is highlighted.
    """
    height, width = SCALE * frame.shape[0], SCALE * frame.shape[1]
    picture = Image.new("RGB", (width + PANEL_WIDTH, height), PANEL)
    game = Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST)
    picture.paste(game)
    draw = ImageDraw.Draw(picture)
    small, large = ImageFont.load_default(15), ImageFont.load_default(27)
    left, y = width + 24, 20

    draw.text((left, y), title, fill=TEXT, font=large)
    draw.text((left, y + 42), progress, fill=FAINT, font=small)
    draw.text((left, y + 90), "Score", fill=FAINT, font=small, anchor="ls")
    draw.text((left + 58, y + 90), score, fill=BRIGHT, font=large, anchor="ls")
    y += 128
    for key, does in HELP:
        draw.text((left, y), key, fill=TEXT, font=small)
        draw.text((left + 116, y), does, fill=FAINT, font=small)
        y += 24
    y += 20
    draw.text((left, y), "Actions", fill=FAINT, font=small)
    for index, name in enumerate(actions):
        column, row = index % 2, index // 2
        place = left + 144 * column, y + 26 + 24 * row
        draw.text(place, name, fill=BRIGHT if index == action else TEXT, font=small)
    if message:
        middle = width // 2, height // 2
        x0, y0, x1, y1 = draw.textbbox(middle, message, font=small, anchor="mm")
        draw.rounded_rectangle((x0 - 18, y0 - 14, x1 + 18, y1 + 14), 8, fill=PANEL)
        draw.text(middle, message, fill=TEXT, font=small, anchor="mm")
    return np.asarray(picture)
