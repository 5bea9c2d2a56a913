"""Atari protocols: everything between ALE's emulator and the agent, as data.

Scores compare only within one protocol, so a score always names its own.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ncp_agents import registry
from ncp_agents.schema import Validated

STEPS_PER_SECOND = 15  # the console's 60 frames/s, 4 frames a step

Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class AtariProtocol(Validated):
    """The rules of an episode: observations, actions and rewards.

    A *step* is one decision of the agent, `frame_skip` emulator *frames* at 60 Hz long. It observes
    the grey-level maximum of a step's last two frames, because many games draw half of their
    sprites in every other frame.

    Raises:
        ValueError: a field out of range.
    """

    sticky_actions: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that a frame repeats the previous frame's action."""
    frame_skip: PositiveCount = 4
    """Frames a step; 4 frames = 66.7 ms."""
    frame_stack: PositiveCount = 1
    """Latest frames in one observation; recurrent policies need 1."""
    frame_size: PositiveCount = 84
    """Pixels on each side of an observed frame."""
    noop_max: Count = 30
    """An episode starts with a random number of no-ops below this."""
    life_loss: bool = False
    """A lost life is reported as done, so memory is reset; the episode continues."""
    clip_rewards: bool = False
    """Each step's reward is -1, 0 or 1."""
    fire_on_reset: bool = False
    """An episode starts with FIRE for one frame, if the game has FIRE."""
    full_action_space: bool = False
    """All 18 actions instead of those that the game uses."""
    max_frames: PositiveCount = 108_000
    """An episode is truncated at the step that reaches this; 30 min."""

    def evaluation(self) -> "AtariProtocol":
        """Return the protocol of evaluation: the same with unclipped rewards.

        Scores are of whole episodes in any case; a lost life still resets a recurrent agent's
        memory, as in training.
        """
        return dataclasses.replace(self, clip_rewards=False)


PROTOCOLS: dict[str, AtariProtocol] = {
    "v4": AtariProtocol(life_loss=True, clip_rewards=True, fire_on_reset=True),
    "v5": AtariProtocol(sticky_actions=0.25, clip_rewards=True),
}
"""The two named protocols, as used in training.

`v4`: `NoFrameskip-v4` of Mnih et al. 2015 as in stable-baselines3's zoo and CleanRL. They also
press FIRE after every lost life; here the agent has to serve the ball itself.

`v5`: sticky actions, and neither lives nor a start are handled for the agent, as Machado et al.
2018, "Revisiting the Arcade Learning Environment", arXiv:1709.06009, recommend. Two differences
from the paper: the actions are the game's own, as in Gymnasium's `ALE/...-v5`, not all 18 (see
`full_action_space`); and an episode starts with fewer than 30 no-ops, so that evaluation is the
same in both protocols.
"""


def protocol(rules: str | AtariProtocol, **overrides: object) -> AtariProtocol:
    """Return a protocol, by name or as it is, with some fields changed.

    For example `protocol("v4", frame_stack=4)`.

    Raises:
        UnknownNameError: no protocol or field has that name.
        ValueError: a field out of range.
    """
    fields = [field.name for field in dataclasses.fields(AtariProtocol)]
    named = registry.get("protocol", rules, PROTOCOLS) if isinstance(rules, str) else rules
    for field in overrides:
        registry.get("protocol field", field, fields)
    return dataclasses.replace(named, **overrides)
