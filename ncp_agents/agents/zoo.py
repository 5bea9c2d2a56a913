"""The saved policies that are known by name: those of the package, and those in ./policies."""

from __future__ import annotations

from pathlib import Path

from ncp_agents import registry
from ncp_agents.agents.recipe import Recipe
from ncp_agents.agents.saved_policy import RECIPE, WEIGHTS, load
from ncp_agents.agents.weights import load_weights, weights
from ncp_agents.errors import UserError
from ncp_agents.sb3.policies import CnnNcpPolicy


def zoo() -> dict[str, Path]:
    """Return the folders of the known policies by name; ./policies takes precedence."""
    found: dict[str, Path] = {}
    package = Path(__file__).parent.parent
    for root in (package / "policies", package.parent / "policies", Path("policies")):
        found |= {p.parent.name: p.parent for p in sorted(root.glob(f"*/{RECIPE}"))}
    return found


def find(name: str) -> Path:
    """Return the folder of a policy given by name, such as pong-cfc, or by path.

    Raises:
        UserError: neither a folder nor a known name.
    """
    if Path(name).is_dir():
        return Path(name)
    if "/" in name or "\\" in name:
        raise UserError(f"no policy folder {name}; list some: ncp-agents policies")
    return registry.get("policy", name, zoo())


def start_from(recipe: Recipe, network: CnnNcpPolicy) -> None:
    """Copy the weights of the policy that the recipe starts from, if any, into the network.

    Raises:
        UserError: no such policy, or one of another network.
    """
    if recipe.start:
        folder = find(recipe.start)
        load_weights(network, weights(load(folder).network), folder / WEIGHTS)
