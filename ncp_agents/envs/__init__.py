"""Environments: Atari games under a named protocol, and small tasks that need memory.

What needs stable-baselines3 (and with it torch) loads on first use.
"""

from typing import TYPE_CHECKING, Any

from ncp_agents.envs.games import action_meanings, games, human_normalised, normalise_game
from ncp_agents.envs.protocol import PROTOCOLS, AtariProtocol

if TYPE_CHECKING:
    from ncp_agents.envs.atari import AtariVecEnv

__all__ = [
    "PROTOCOLS",
    "AtariProtocol",
    "AtariVecEnv",
    "action_meanings",
    "games",
    "human_normalised",
    "normalise_game",
]


def __getattr__(name: str) -> Any:
    if name == "AtariVecEnv":
        from ncp_agents.envs.atari import AtariVecEnv

        return AtariVecEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
