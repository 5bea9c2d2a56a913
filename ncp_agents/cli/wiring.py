"""`ncp-agents wiring`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ncp_agents import registry
from ncp_agents.agents.recipe import Circuit
from ncp_agents.cli.parsing import find_recipe, parse, split_policy
from ncp_agents.errors import UserError

FORMATS = ("png", "svg", "pdf")


@dataclass(frozen=True)
class DrawWiring:
    """Draw the wiring of a circuit: its layers, and its excitatory and inhibitory synapses.

    POLICY is the name or folder of a saved policy, or a recipe file; without one the circuit is
    described by options. Those of the neurons, such as --circuit.cell, have no effect here.

        ncp-agents wiring pong-cfc
        ncp-agents wiring --circuit.units 28 --circuit.motor-neurons 4 --inputs 20
    """

    circuit: Circuit = field(default_factory=Circuit)
    inputs: int = 16  # number of the circuit's inputs; of a policy, its encoder's features
    output: Path = Path("wiring.png")  # .png, .svg or .pdf


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    policy, rest = split_policy(arguments)
    base = DrawWiring()
    if policy is not None:
        recipe = find_recipe(policy)
        base = DrawWiring(recipe.circuit, recipe.policy.features, Path(f"{recipe.name}-wiring.png"))
    options = parse(DrawWiring, rest, "wiring [POLICY]", default=base)
    picture_format = registry.get("format", options.output.suffix.lstrip(".") or "png", FORMATS)
    config = options.circuit.wiring_config()
    if isinstance(config, int):
        raise UserError("a dense circuit has no wiring to draw; choose one with --circuit.wiring")

    from matplotlib.figure import Figure

    from ncp_agents.files import atomic_write
    from ncp_agents.wirings import wiring_from_config

    try:
        wiring = wiring_from_config(config)
        wiring.build(options.inputs)
    except (ValueError, MemoryError) as error:
        raise UserError(str(error)) from None
    figure = cast(Figure, wiring.draw().figure)
    with atomic_write(options.output) as temporary:
        figure.savefig(temporary, format=picture_format)
    print(f"{wiring}\npicture: {options.output}")
    return 0
