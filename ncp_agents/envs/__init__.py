"""Environments: Atari games under a named protocol, and small tasks that need memory.

What needs stable-baselines3, and with it torch, is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ncp_agents.envs.games import action_meanings, games, human_normalised, normalise_game
from ncp_agents.envs.protocol import PROTOCOLS, AtariProtocol

if TYPE_CHECKING:
    from ncp_agents.envs.atari import AtariVecEnv
    from ncp_agents.envs.memory import CartPoleNoVel, RecallEnv

__all__ = [
    "PROTOCOLS",
    "AtariProtocol",
    "AtariVecEnv",
    "CartPoleNoVel",
    "RecallEnv",
    "action_meanings",
    "games",
    "human_normalised",
    "normalise_game",
]

_LOADED_ON_FIRST_USE = {"AtariVecEnv": "atari", "CartPoleNoVel": "memory", "RecallEnv": "memory"}


def __getattr__(name: str) -> Any:
    if name in _LOADED_ON_FIRST_USE:
        return getattr(import_module(f"{__name__}.{_LOADED_ON_FIRST_USE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
