"""Several policies beside each other, and policies under perturbations of growing strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ncp_agents import registry
from ncp_agents.agents.saved_policy import SavedPolicy
from ncp_agents.cli.console import Terminal
from ncp_agents.cli.tables import comparison
from ncp_agents.envs.perturbations import KINDS, Perturbation
from ncp_agents.errors import UserError
from ncp_agents.evaluation.evaluate import (
    check_perturbations,
    evaluate_with_bar,
    write_unless_fewer,
)
from ncp_agents.evaluation.rollout import check_episodes
from ncp_agents.evaluation.scores import SCORES, Scores, read_scores
from ncp_agents.files import check_writable
from ncp_agents.rendering.figures import check_picture_path
from ncp_agents.rendering.score_plots import draw_comparison, draw_perturbations


def compare_command(
    policies: Sequence[SavedPolicy],
    sweeps: Mapping[str, Sequence[float]] | None = None,
    *,
    episodes: int = 30,
    protocol: str = "v4",
    deterministic: bool = False,
    seed: int = 0,
    num_envs: int | None = None,
    plot: Path | None = None,
) -> list[tuple[str, Scores]]:
    """Evaluate policies, print one table and draw one picture; scores go beside each policy.

    Args:
        sweeps: strengths by kind of perturbation, see `ncp_agents.envs.perturbations`. One
            perturbs at a time, and the unperturbed games always come along. A strength of 0 is
            those.
        plot: the picture. None takes `perturbations.png` or, without sweeps, `scores.png`; a
            single policy's own folder, or here.

    Raises:
        UserError: before any game is played, where a file cannot be written, a perturbation cannot
            be under this protocol or for one of the policies, or a policy is named twice.
    """
    check_episodes(episodes, num_envs, seed)
    ways = perturbations(sweeps or {})
    swept = len(ways) > 1
    for policy in policies:
        check_perturbations(policy, protocol, ways)
    names = _labels(policies)
    alone = policies[0].folder if len(policies) == 1 else None
    if plot is None:
        plot = (alone or Path()) / ("perturbations.png" if swept else "scores.png")
    check_picture_path(plot)
    check_writable(plot, "--plot")
    files = [policy.folder / SCORES if policy.folder else None for policy in policies]
    for file in filter(None, files):
        check_writable(file, "a copy of the policy in a folder of yours")
        if file.exists():
            read_scores(file)

    console = Terminal()
    rows, said = [], []
    for policy, name, file in zip(policies, names, files, strict=True):
        for way in ways:
            scores = evaluate_with_bar(
                policy, episodes, protocol, seed, deterministic, num_envs, perturbation=way
            )
            rows.append((name, scores))
            if file is not None:
                said.append(write_unless_fewer(file, scores))
    if swept:
        known = {name: [each for own, each in rows if own == name] for name in names}
        draw_perturbations(known, plot)
    else:
        draw_comparison(rows, plot)
    console.print(comparison(rows))
    for line in dict.fromkeys(said):
        console.print(line, soft_wrap=True)
    console.print(f"picture: {plot}", soft_wrap=True)
    return rows


def _labels(policies: Sequence[SavedPolicy]) -> list[str]:
    """Each policy's name, or its folder where another has the same name.

    Raises:
        UserError: a policy that is there twice.
    """
    names = [policy.name for policy in policies]
    labels = [
        str(policy.folder or policy.name) if names.count(policy.name) > 1 else policy.name
        for policy in policies
    ]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"{label} is named twice; name each policy once")
    return labels


def perturbations(sweeps: Mapping[str, Sequence[float]]) -> list[Perturbation | None]:
    """What to play: unperturbed, None, and each kind at each strength above 0; jitter both with
    the circuit told the time and not.

    Raises:
        UserError: an unknown kind, a strength out of range.
    """
    ways: list[Perturbation | None] = [None]
    for kind, strengths in sweeps.items():
        registry.get("perturbation", kind, KINDS)
        for strength in sorted(set(strengths)):
            way = Perturbation(kind, strength)
            if strength:
                ways.append(way)
                if kind == "frame_skip_jitter":
                    ways.append(Perturbation(kind, strength, timespans=True))
    return ways
