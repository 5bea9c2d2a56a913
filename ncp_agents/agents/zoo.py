"""The saved policies that are known by name: those of the package, and those in ./policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ncp_agents import registry
from ncp_agents.agents.recipe import RECIPE, Recipe
from ncp_agents.errors import UserError

if TYPE_CHECKING:
    from ncp_agents.sb3.policies import CnnNcpPolicy


def zoo() -> dict[str, Path]:
    """Return the folders of the package's saved policies and of those in ./policies, by name."""
    found: dict[str, Path] = {}
    package = Path(__file__).parent.parent
    for root in (package / "policies", package.parent / "policies", Path("policies")):
        if root.is_dir():
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
        raise UserError(f"there is no policy folder {name}; ncp-agents policies lists some")
    return registry.get("policy", name, zoo())


def start_from(recipe: Recipe, network: CnnNcpPolicy) -> None:
    """Load the weights that the recipe starts from, if it names a policy.

    Raises:
        UserError: no such policy, or one of another network.
    """
    if recipe.start:
        from ncp_agents.agents.saved_policy import WEIGHTS, load
        from ncp_agents.agents.weights import load_weights, weights

        folder = find(recipe.start)
        load_weights(network, weights(load(folder).network), folder / WEIGHTS)
