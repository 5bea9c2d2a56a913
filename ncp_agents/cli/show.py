"""`ncp-agents policies | plot | report | wiring`: what is there, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import tyro

from ncp_agents import registry
from ncp_agents.agents.recipe import Circuit
from ncp_agents.cli.parsing import named_first, named_recipe, parse, refuse_unused
from ncp_agents.errors import UserError


@dataclass(frozen=True)
class Policies:
    """List the saved policies with their scores."""


@dataclass(frozen=True)
class Plot:
    """Draw the learning curves of runs, over steps and over minutes; seeds of one recipe together.

    ncp-agents plot runs/pong-cfc-seed* runs/pong-ltc-seed1
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]  # folders
    output: Path = Path("curves.png")  # the picture


@dataclass(frozen=True)
class Report:
    """Write the README.md of saved policies, with pictures, from their recipe and scores.

    ncp-agents report policies/pong-cfc
    """

    policies: tyro.conf.Positional[tuple[str, ...]]  # folders, or names as `policies` lists them


@dataclass(frozen=True)
class DrawWiring:
    """Draw a circuit: layers in columns, excitatory and inhibitory synapses told apart.

    ncp-agents wiring pong-cfc
    ncp-agents wiring --circuit.units 28 --circuit.motor-neurons 4 --inputs 20
    """

    circuit: Circuit = field(default_factory=Circuit)
    inputs: int = 16  # of the circuit; a policy's are its encoder's features
    output: Path = Path("wiring.png")  # .png, .svg or .pdf


OF_NEURONS = tuple(
    f"circuit.{name}" for name in ("cell", "mode", "init", "mixed_memory", "mask_time_gates")
)
"""Fields that a drawing does not show."""


def policies(arguments: Sequence[str]) -> int:
    parse(Policies, arguments, "policies")

    from ncp_agents.cli.console import Terminal
    from ncp_agents.cli.policies_table import policies_table

    Terminal().print(policies_table())
    return 0


def plot(arguments: Sequence[str]) -> int:
    choice = parse(Plot, arguments, "plot")

    from ncp_agents.rendering.learning_curve import draw_curves
    from ncp_agents.training.run_folder import RunFolder

    draw_curves([RunFolder.open(path) for path in choice.runs], choice.output)
    print(f"picture: {choice.output}")
    return 0


def report(arguments: Sequence[str]) -> int:
    choice = parse(Report, arguments, "report")
    if not choice.policies:
        raise UserError("which policy? name one, such as pong-cfc; see ncp-agents policies")

    from ncp_agents.agents.zoo import find
    from ncp_agents.evaluation.model_card import write_report

    for name in choice.policies:
        print(*write_report(find(name)), sep="\n")
    return 0


def wiring(arguments: Sequence[str]) -> int:
    """Draw a policy's wiring, or one given by options."""
    base = DrawWiring()
    policy, options = named_first(arguments)
    if policy is not None:
        recipe = named_recipe(policy)
        base = DrawWiring(recipe.circuit, recipe.policy.features, Path(f"{recipe.name}-wiring.png"))
    choice = parse(DrawWiring, options, "wiring [POLICY]", default=base)
    refuse_unused(choice, base, "wiring", *OF_NEURONS)

    from matplotlib.figure import Figure

    from ncp_agents.files import atomic_write
    from ncp_agents.wirings import wiring_from_config

    config = choice.circuit.wiring_config()
    if isinstance(config, int):
        raise UserError("a dense circuit has no wiring to draw; choose one with --circuit.wiring")
    try:
        drawn = wiring_from_config(config)
        drawn.build(choice.inputs)
    except (ValueError, MemoryError) as error:
        raise UserError(str(error)) from None
    form = registry.get("format", choice.output.suffix.lstrip(".") or "png", ("png", "svg", "pdf"))
    figure = cast(Figure, drawn.draw().figure)
    with atomic_write(choice.output) as temporary:
        figure.savefig(temporary, format=form)
    print(f"{drawn}\npicture: {choice.output}")
    return 0
