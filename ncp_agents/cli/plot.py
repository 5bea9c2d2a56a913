"""`ncp-agents plot`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ncp_agents.cli.parsing import parse, shown_as
from ncp_agents.errors import UserError


@dataclass(frozen=True)
class Plot:
    """Draw the learning curves of training runs, over steps and over minutes.

    Runs that differ in the seed only become one curve with a confidence interval:

        ncp-agents plot runs/pong-cfc-seed* runs/pong-ltc-seed1
    """

    runs: tyro.conf.Positional[Annotated[tuple[Path, ...], shown_as("RUN...")]] = ()
    """run folders"""
    output: Path = Path("curves.png")  # the picture, .png


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Plot, arguments, "plot")
    if not options.runs:
        raise UserError("which runs? name their folders, such as runs/*")

    from ncp_agents.cli.curves import run_to_draw
    from ncp_agents.rendering.figures import check_picture_path
    from ncp_agents.rendering.learning_curve import draw_curves
    from ncp_agents.training.run_folder import RunFolder

    check_picture_path(options.output)
    runs = [RunFolder.open(path) for path in dict.fromkeys(map(Path.resolve, options.runs))]
    draw_curves([*map(run_to_draw, runs)], options.output)
    print(f"picture: {options.output}")
    return 0
