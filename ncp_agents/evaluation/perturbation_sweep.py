"""Sweeps over perturbations: one kind at a time, at growing strengths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ncp_agents.agents.saved_policy import SavedPolicy
from ncp_agents.envs.perturbations import Perturbation, perturbed
from ncp_agents.envs.protocol import AtariProtocol
from ncp_agents.errors import UserError
from ncp_agents.evaluation.rollout import evaluation_protocol
from ncp_agents.evaluation.scores import Scores


def perturbations(strengths: Mapping[str, Sequence[float]]) -> list[Perturbation | None]:
    """Return None, which is unperturbed, and each kind at each strength above 0.

    Frame-skip jitter is there twice: with and without timespans for the circuit.

    Raises:
        UserError: an unknown kind, a strength out of range.
    """
    found: list[Perturbation | None] = [None]
    for kind, values in strengths.items():
        for value in sorted(set(values)):
            perturbation = Perturbation(kind, value)
            if value:
                found.append(perturbation)
                if kind == "frame_skip_jitter":
                    found.append(replace(perturbation, timespans=True))
    return found


def check_perturbations(
    policy: SavedPolicy,
    protocol: str | AtariProtocol,
    perturbations: Iterable[Perturbation | None],
) -> None:
    """Check before the work that each perturbation fits the policy and the protocol.

    Raises:
        UserError: timespans for an LSTM, or what `perturbed` refuses.
    """
    game, rules = policy.recipe.environment.game, evaluation_protocol(policy, protocol)
    for perturbation in filter(None, perturbations):
        if perturbation.timespans and policy.recipe.circuit.cell == "lstm":
            raise UserError(f"{policy.name} is an LSTM, which takes no timespans; leave jitter out")
        perturbed(perturbation, game, 1, rules, seed=0).close()


def sweeps(scores: Iterable[Scores]) -> dict[str, list[Scores]]:
    """Group the scores of perturbed episodes, with their unperturbed ones, by the latter's key."""
    found: dict[str, list[Scores]] = {}
    for each in scores:
        found.setdefault(replace(each, perturbation=None).key, []).append(each)
    return {key: group for key, group in found.items() if any(each.perturbation for each in group)}
