"""The comparison of several policies, and of policies under perturbations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ncp_agents.agents.saved_policy import SavedPolicy
from ncp_agents.cli.console import Terminal
from ncp_agents.cli.evaluate import Evaluate
from ncp_agents.cli.evaluate_one import check_scores_file, evaluate_with_bar, save_scores
from ncp_agents.cli.tables import comparison_table
from ncp_agents.evaluation.perturbation_sweep import check_perturbations, perturbations
from ncp_agents.evaluation.scores import SCORES, Scores
from ncp_agents.files import check_writable
from ncp_agents.rendering.figures import check_picture_path
from ncp_agents.rendering.score_plots import draw_comparison, draw_perturbations


def compare(policies: Sequence[SavedPolicy], options: Evaluate) -> list[tuple[str, Scores]]:
    """Evaluate policies, keep the scores beside each, print one table and draw one picture.

    Returns:
        The scores with the names of their policies.

    Raises:
        UserError: before the first episode, where a file cannot be written, or a perturbation does
            not fit the protocol or a policy.
    """
    swept = perturbations(options.strengths)
    for policy in policies:
        check_perturbations(policy, options.protocol, swept)
    plot = options.plot
    if plot is None:
        folder = policies[0].folder if len(policies) == 1 else None
        plot = (folder or Path()) / ("perturbations.png" if len(swept) > 1 else "scores.png")
    check_picture_path(plot)
    check_writable(plot, "--plot")
    files = [policy.folder / SCORES if policy.folder else None for policy in policies]
    for file in filter(None, files):
        check_scores_file(file, "a copy of the policy in a folder of yours")

    rows: list[tuple[str, Scores]] = []
    written: dict[str, None] = {}
    for policy, name, file in zip(policies, _names(policies), files, strict=True):
        for perturbation in swept:
            scores = evaluate_with_bar(
                policy,
                options.episodes,
                options.protocol,
                options.seed,
                options.deterministic,
                options.num_envs,
                perturbation=perturbation,
            )
            rows.append((name, scores))
            if file is not None:
                written[save_scores(file, scores)] = None
    if len(swept) > 1:
        by_policy: dict[str, list[Scores]] = {}
        for name, scores in rows:
            by_policy.setdefault(name, []).append(scores)
        draw_perturbations(by_policy, plot)
    else:
        draw_comparison(rows, plot)
    Terminal().print(comparison_table(rows))
    print(*written, f"picture: {plot}", sep="\n")
    return rows


def _names(policies: Sequence[SavedPolicy]) -> list[str]:
    """Return each policy's name, or its folder where another has the same name."""
    names = [policy.name for policy in policies]
    return [
        str(policy.folder or policy.name) if names.count(policy.name) > 1 else policy.name
        for policy in policies
    ]
