"""A person at the keyboard as a player, in a window with help beside the game."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ncp_agents.agents.saved_policy import State
from ncp_agents.envs.atari import AtariVecEnv
from ncp_agents.envs.protocol import STEPS_PER_SECOND
from ncp_agents.evaluation.rollout import Step, rollout
from ncp_agents.rendering.window import Window

MOVES = ("UP", "DOWN", "LEFT", "RIGHT", "FIRE")  # what the names of ALE's actions are made of
KEYS = {
    **{"up": "UP", "down": "DOWN", "left": "LEFT", "right": "RIGHT", "space": "FIRE"},
    **{"w": "UP", "s": "DOWN", "a": "LEFT", "d": "RIGHT"},
}
"""Names of keys → moves."""
PAUSE, RESTART = "p", "r"

SCALE = 3  # side of the square of pixels that one of the game's becomes
PANEL_WIDTH = 320  # pixels
PANEL, TEXT, FAINT, BRIGHT = (24, 26, 32), (222, 224, 230), (132, 138, 150), (255, 196, 72)
HELP = (
    ("arrows, WASD", "move"),
    ("space", "fire"),
    ("P", "pause"),
    ("R", "drop this game, restart"),
    ("Esc", "end; whole games stay"),
)


def moves_of(action: str) -> frozenset[str]:
    """`"UPRIGHTFIRE"` → UP, RIGHT and FIRE; `"NOOP"` → none."""
    return frozenset(move for move in MOVES if move in action)


def nearest_action(actions: Sequence[str], moves: Sequence[str]) -> int:
    """The index of the action that makes the fewest moves not asked for, then the most of those
    asked for, then the latest ones.

    A game that moves along one axis only, as Pong does, takes the other axis' moves for its own:
    UP for RIGHT and DOWN for LEFT. (In Pong, RIGHT is up.)

    Args:
        actions: the game's, by index, such as ("NOOP", "FIRE", "RIGHT", "LEFT").
        moves: wanted, in the order in which their keys went down.
    """
    known = frozenset().union(*map(moves_of, actions))
    for one, other in (("UP", "RIGHT"), ("DOWN", "LEFT")):
        if not known & {"UP", "DOWN"}:
            moves = [other if move == one else move for move in moves]
        elif not known & {"LEFT", "RIGHT"}:
            moves = [one if move == other else move for move in moves]
    age = {move: order for order, move in enumerate(moves)}

    def merit(index: int) -> tuple[int, int, int]:
        made = moves_of(actions[index])
        asked = made & age.keys()
        return -len(made - asked), len(asked), sum(age[move] for move in asked)

    return max(range(len(actions)), key=merit)


class Human:
    """A person as a `Policy` of one game, at the game's own speed.

    `play` gives the steps; `predict` is its part that shows the screen and reads the keys.

    Args:
        wanted, kept: games to play and those there already, as the help shows them.
        fps: steps a second.

    Raises:
        UserError: pygame is missing, or there is no screen.
    """

    def __init__(self, wanted: int, kept: int = 0, fps: float = STEPS_PER_SECOND) -> None:
        self.window = Window(
            "Record games", fps, scale=1, instead="a person needs one; record a policy's games"
        )
        self.wanted, self.kept = wanted, kept
        self.score = 0.0
        self.last_score: float | None = None  # of the game before
        self.env: AtariVecEnv | None = None
        self._action = 0  # the last one taken, which led to the screen that is shown
        self._between = True  # games: the next one waits until the person is ready
        # Keys, in the order in which they went down.
        self._held: dict[str, None] = {}
        self._pressed: dict[str, None] = {}  # since the last step, even if let go again

    def play(self, env: AtariVecEnv) -> Iterator[Step]:
        """The steps, without screens, of each game once it has ended. They end when the person
        closes the window or presses Esc; a game thrown away or left is not among them.

        Args:
            env: one game, with render_mode="rgb_array".
        """
        self.env = env
        while True:
            game: list[Step] = []
            self.score, self._between = 0.0, True
            try:
                for step in rollout(self, env):
                    game.append(step._replace(rgb_frames=None))
                    self.score += float(step.rewards[0])
                    if "episode" in step.infos[0]:
                        self.kept, self.last_score, self.score = self.kept + 1, self.score, 0.0
                        self._between = True
                        yield from game
                        game = []
            except _Restart:
                self.last_score = None
            except _End:
                return

    def close(self) -> None:
        self.window.close()

    def predict(
        self,
        observation: np.ndarray,
        state: State | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, State | None]:
        """Show the screen, wait for the next step's time → the action (1,) whose keys are held, or
        were pressed since the last step.
        """
        if self._between:
            self._between = False
            before = "" if self.last_score is None else f"Kept, score {self.last_score:,.0f}. "
            self._wait(before + "Press an arrow or space to start", KEYS)
        self._show()
        if (PAUSE, True) in self.window.keys:
            self._wait("Pause. P goes on", [PAUSE])
            self._pressed.clear()
        assert self.env is not None
        moves = [KEYS[key] for key in {**self._held, **self._pressed}]
        self._action = nearest_action(self.env.get_action_meanings(), moves)
        self._pressed.clear()
        return np.array([self._action]), state

    def _wait(self, message: str, keys: Collection[str]) -> None:
        """Until one of the keys goes down."""
        while True:
            self._show(message)
            if any(down and key in keys for key, down in self.window.keys):
                return

    def _show(self, message: str = "") -> None:
        """A picture, until the next one's time; then what the keys did meanwhile."""
        assert self.env is not None
        actions = self.env.get_action_meanings()
        picture = with_help(
            self.env.get_images()[0],
            self.env.game.replace("_", " ").title(),
            f"{self.score:,.0f}",
            f"{self.kept} of {self.wanted} games kept",
            actions,
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
    """The person throws the running game away."""


class _End(Exception):
    """The person closes the window."""


def with_help(
    screen: np.ndarray,
    title: str,
    score: str,
    progress: str,
    actions: Sequence[str],
    action: int,
    message: str = "",
) -> np.ndarray:
    """screen (H, W, 3) → (SCALE * H, SCALE * W + PANEL_WIDTH, 3) uint8: the game, enlarged, with a
    message across it, and beside it score, keys, and the actions with the last one taken.
    """
    height, width = SCALE * screen.shape[0], SCALE * screen.shape[1]
    picture = Image.new("RGB", (width + PANEL_WIDTH, height), PANEL)
    game = Image.fromarray(screen).resize((width, height), Image.Resampling.NEAREST)
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
