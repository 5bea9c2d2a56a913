"""`ncp-agents report`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import tyro

from ncp_agents.agents.zoo import find
from ncp_agents.cli.parsing import parse, shown_as
from ncp_agents.errors import UserError

README = "README.md"
WIRING = "wiring.png"


@dataclass(frozen=True)
class Report:
    """Write the README.md of saved policies, with pictures, from their recipes and scores.

    Evaluate a policy first: each setting that was evaluated gets a row, and perturbations get a
    picture.

        ncp-agents report policies/pong-cfc
    """

    policies: tyro.conf.Positional[Annotated[tuple[str, ...], shown_as("POLICY...")]] = ()
    """names or folders of saved policies"""


def main(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = parse(Report, arguments, "report")
    if not options.policies:
        raise UserError("which policy? name one, such as pong-cfc; see ncp-agents policies")
    for folder in [find(name) for name in options.policies]:
        print(*write_report(folder), sep="\n")
    return 0


def write_report(folder: Path) -> list[Path]:
    """Write a policy's README.md and its pictures, in place of earlier ones.

    The same policy and scores give the same bytes.

    Returns:
        The files written.

    Raises:
        UserError: the folder is no saved policy, or has no scores.
    """
    from matplotlib.figure import Figure

    from ncp_agents.agents.saved_policy import CLONING, CURVE, load
    from ncp_agents.evaluation.model_card import model_card
    from ncp_agents.evaluation.perturbation_sweep import sweeps
    from ncp_agents.evaluation.scores import scores_of
    from ncp_agents.files import write_text
    from ncp_agents.rendering.figures import save_figure
    from ncp_agents.rendering.score_plots import draw_perturbations

    policy = load(folder)
    scores = list(scores_of(folder).values())
    if not scores:
        raise UserError(
            f"{folder} has no scores of these weights; evaluate it: ncp-agents evaluate {folder}"
        )
    written = []
    wiring = policy.network.circuit.wiring
    if wiring is not None:
        written.append(folder / WIRING)
        save_figure(cast(Figure, wiring.draw().figure), folder / WIRING, dpi=80)
    pictures = {}
    for key, swept in sweeps(scores).items():
        pictures[key] = f"perturbations-{key}.png"
        draw_perturbations({policy.name: swept}, folder / pictures[key])
        written.append(folder / pictures[key])
    card = model_card(
        policy,
        scores,
        wiring=None if wiring is None else WIRING,
        curve=CURVE if (folder / CURVE).is_file() else None,
        perturbations=pictures,
        cloned=(folder / CLONING).exists(),
    )
    write_text(folder / README, card)
    return [*written, folder / README]
