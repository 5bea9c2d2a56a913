"""Wirings: the neurons of a circuit and the synapses between them. NumPy only."""

from collections.abc import Mapping
from typing import Any

from ncp_agents import registry
from ncp_agents.wirings.base import Wiring
from ncp_agents.wirings.dense import FullyConnected, Random
from ncp_agents.wirings.ncp import NCP, AutoNCP

__all__ = [
    "NCP",
    "AutoNCP",
    "FullyConnected",
    "Random",
    "Wiring",
    "wiring_from_config",
    "wiring_to_config",
]

KINDS: dict[str, type[Wiring]] = {
    kind.__name__: kind for kind in (AutoNCP, NCP, FullyConnected, Random, Wiring)
}


def wiring_to_config(wiring: Wiring) -> dict[str, Any]:
    """Return the wiring as plain data for JSON or TOML: {"kind": "AutoNCP", "units": 28, ...}."""
    kind = type(wiring).__name__
    if registry.get("wiring", kind, KINDS) is not type(wiring):
        raise ValueError(f"{type(wiring)!r} shares its name with another wiring; rename it")
    return {"kind": kind, **wiring.get_config()}


def wiring_from_config(config: Mapping[str, Any]) -> Wiring:
    """Return the wiring that `wiring_to_config` described; an unknown kind or key is an error."""
    arguments = dict(config)
    if "kind" not in arguments:
        raise ValueError(f"a wiring's config needs 'kind', one of {', '.join(KINDS)}")
    return registry.get("wiring", arguments.pop("kind"), KINDS).from_config(arguments)
