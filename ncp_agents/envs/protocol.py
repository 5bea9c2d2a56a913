"""How a game is played: everything between ALE's emulator and the agent, as data.

Scores compare only within one protocol, so a score always names its own.
"""

import dataclasses
from dataclasses import dataclass

from ncp_agents import registry

STEPS_PER_SECOND = 15  # the console's 60 frames/s, 4 frames a step


@dataclass(frozen=True)
class AtariProtocol:
    """What the agent sees, decides and is paid for.

    A *step* is one decision of the agent, `frame_skip` emulator *frames* at 60 Hz long. The agent
    sees the grey-level maximum of a step's last two frames, because many games draw half of their
    sprites in every other frame.

    Raises:
        ValueError: a field outside the range its comment gives.
    """

    sticky_actions: float = 0.0  # 0 <= p < 1: a frame repeats the previous frame's action
    frame_skip: int = 4  # >= 1: frames a step; 4 frames = 66.7 ms
    frame_stack: int = 1  # >= 1: last frames shown at once; recurrent policies need 1
    frame_size: int = 84  # >= 1: pixels on each side of the frame shown
    noop_max: int = 30  # >= 0: a game starts with a random number of no-ops below this
    life_loss: bool = False  # a lost life is reported as done, so memory ends; the game goes on
    clip_rewards: bool = False  # the agent gets each step's reward as -1, 0 or 1
    fire_on_reset: bool = False  # a game starts with FIRE for one frame, where it has FIRE
    full_action_space: bool = False  # all 18 actions instead of those the game uses
    max_frames: int = 108_000  # >= 1: a game is cut at the step that reaches this; 30 min

    def __post_init__(self) -> None:
        if not 0.0 <= self.sticky_actions < 1.0:
            raise ValueError(
                f"sticky_actions is {self.sticky_actions!r}, expected a probability "
                "0.0 <= p < 1.0; use 0.25 for sticky actions, 0.0 for none"
            )
        for field, least in (
            ("frame_skip", 1),
            ("frame_stack", 1),
            ("frame_size", 1),
            ("noop_max", 0),
            ("max_frames", 1),
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                usual = getattr(AtariProtocol, field)
                raise ValueError(
                    f"{field} is {value!r}, expected an integer >= {least}; usual is {usual}"
                )

    def evaluation(self) -> "AtariProtocol":
        """The same game, scored: rewards unclipped. Scores are of whole games in any case; a life
        that is lost still ends what a recurrent agent remembers, as it did in training.
        """
        return dataclasses.replace(self, clip_rewards=False)


PROTOCOLS: dict[str, AtariProtocol] = {
    "v4": AtariProtocol(life_loss=True, clip_rewards=True, fire_on_reset=True),
    "v5": AtariProtocol(sticky_actions=0.25, clip_rewards=True),
}
"""The two named protocols, as used in training.

`v4`: the one of Mnih et al. 2015 as stable-baselines3's zoo and CleanRL play `NoFrameskip-v4`
games. They also press FIRE after every lost life; here the game just goes on, so the agent has to
serve the ball itself.

`v5`: sticky actions and nothing that tells lives apart or starts a game for the agent, as Machado
et al. 2018, "Revisiting the Arcade Learning Environment", arXiv:1709.06009, recommend.
Two differences from the paper: the actions are the game's own, like Gymnasium's `ALE/...-v5`, not
all 18 (ask for them with `full_action_space=True`); and a game starts with fewer than 30 no-ops, so
that evaluation is the same in both protocols.
"""


def protocol(rules: str | AtariProtocol, **overrides: object) -> AtariProtocol:
    """A protocol, by name or as it is, with some fields changed: `protocol("v4", frame_stack=4)`.

    Raises:
        UnknownNameError: no protocol or field has that name; suggests the nearest.
        ValueError: a field out of range.
    """
    fields = [field.name for field in dataclasses.fields(AtariProtocol)]
    named = registry.get("protocol", rules, PROTOCOLS) if isinstance(rules, str) else rules
    for field in overrides:
        registry.get("protocol field", field, fields)
    return dataclasses.replace(named, **overrides)
