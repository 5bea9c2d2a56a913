"""A policy's README.md, written from its recipe and its scores, with pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from matplotlib.figure import Figure

from ncp_agents.agents.saved_policy import CLONING, CURVE, SavedPolicy, load
from ncp_agents.envs.games import HUMAN_SCORES_SOURCE, action_meanings
from ncp_agents.envs.protocol import PROTOCOLS
from ncp_agents.errors import UserError
from ncp_agents.evaluation.formatting import number, percent, shares, span
from ncp_agents.evaluation.rollout import default_num_envs
from ncp_agents.evaluation.scores import Scores, scores_of
from ncp_agents.evaluation.statistics import CONFIDENCE
from ncp_agents.files import write_text
from ncp_agents.rendering.figures import save_figure
from ncp_agents.rendering.score_plots import draw_perturbations

README = "README.md"
WIRING = "wiring.png"


def write_report(folder: Path) -> list[Path]:
    """Write `README.md` and its pictures into a policy's folder, in place of earlier ones.

    The same policy and scores give the same bytes.

    Returns:
        The files written.

    Raises:
        UserError: the folder is no saved policy, or has no scores yet.
    """
    policy = load(folder)
    scores = list(scores_of(folder).values())
    if not scores:
        raise UserError(
            f"{folder} has no scores of these weights; play for it: ncp-agents evaluate {folder}"
        )
    wiring = policy.network.circuit.wiring
    written = []
    if wiring is not None:
        written.append(folder / WIRING)
        save_figure(cast(Figure, wiring.draw().figure), folder / WIRING, dpi=80)
    parts = [
        _about(policy),
        f"![The circuit]({WIRING})" if wiring is not None else "",
        _scores([each for each in scores if each.perturbation is None]),
    ]
    for way, swept in _sweeps(scores).items():
        picture = folder / f"perturbations-{way}.png"
        draw_perturbations({policy.name: swept}, picture)
        written.append(picture)
        parts.append(_perturbations(way, swept, picture))
    if (folder / CURVE).is_file():
        parts.append(f"## How it learnt\n\n![Learning curve]({CURVE})")
    parts.append(_reproduce(policy, scores))
    write_text(folder / README, "\n\n".join(filter(None, parts)) + "\n")
    return [*written, folder / README]


def _about(policy: SavedPolicy) -> str:
    recipe, circuit = policy.recipe, policy.network.circuit
    environment, wiring = recipe.environment, circuit.wiring
    cell = {"cfc": "CfC"}.get(recipe.circuit.cell, recipe.circuit.cell.upper())
    layers, wired = f"{circuit.state_size} neurons", "that all read each other"
    if wiring is not None:
        kinds = (Counter(map(wiring.get_type_of_neuron, layer)) for layer in wiring.layers)
        names = (" and ".join(f"{n} {kind}" for kind, n in layer.items()) for layer in kinds)
        layers = " → ".join(names) + " neurons"
        wired = (
            f"on the wiring `{recipe.circuit.wiring}`: {wiring.synapse_count:,} synapses between "
            f"them, {wiring.sensory_synapse_count:,} from the features"
        )
    parameters = sum(p.numel() for p in policy.network.parameters())
    size, stack = environment.atari_protocol().frame_size, environment.frame_stack
    frames = "single frames" if stack == 1 else f"{stack} frames at a time"
    seen = f"{size} × {size} frame" if stack == 1 else f"{stack} {size} × {size} frames"
    encoder = type(policy.network.features_extractor).__name__
    return (
        f"# {policy.name}\n\n"
        f"Plays {environment.game} from {frames}, with {circuit.state_size} {cell} neurons "
        f"{wired}. {parameters:,} parameters in all.\n\n"
        f"    {seen} → {encoder}, {recipe.policy.features} features → {layers} → "
        f"{len(action_meanings(environment.game))} actions"
    )


def _scores(scores: Sequence[Scores]) -> str:
    rows = [
        (
            each.protocol,
            "likeliest" if each.deterministic else "drawn",
            str(len(each.returns)),
            number(each.mean),
            span(each),
            f"{number(each.median)} ({span(each, 'median')})",
            f"{number(each.interquartile_mean)} ({span(each, 'interquartile_mean')})",
            number(each.std),
            percent(each.human_normalised),
        )
        for each in scores
    ]
    header = (
        *("protocol", "actions", "games", "mean", f"{percent(CONFIDENCE)} interval"),
        *("median", "interquartile mean", "std", "human"),
    )
    taken = "".join(f"- {each.key}: {shares(each)}\n" for each in scores)
    return (
        "## What it reaches\n\n"
        "Whole games with unclipped rewards, fewer than 30 no-ops and at most 108,000 frames. `v4` "
        "has no sticky actions and lets the circuit forget where a life is lost, `v5` has them "
        "with probability 0.25. Intervals are bootstrapped.\n\n"
        f"{_table(header, rows)}\n\n"
        f"*human*: 0 % is random play, 100 % a professional tester's ({HUMAN_SCORES_SOURCE}).\n\n"
        f"Actions taken:\n\n{taken.rstrip()}"
    )


def _sweeps(scores: Iterable[Scores]) -> dict[str, list[Scores]]:
    """The entries of each way of playing that was perturbed, by its unperturbed key."""
    ways: dict[str, list[Scores]] = {}
    for each in scores:
        ways.setdefault(replace(each, perturbation=None).key, []).append(each)
    return {way: known for way, known in ways.items() if any(each.perturbation for each in known)}


def _perturbations(way: str, known: Iterable[Scores], picture: Path) -> str:
    rows = [
        (
            each.perturbation.kind.replace("_", " ")
            + (", circuit told the time" if each.perturbation.timespans else ""),
            each.perturbation.amount,
            str(len(each.returns)),
            number(each.mean),
            span(each),
        )
        for each in known
        if each.perturbation is not None
    ]
    header = ("perturbation", "strength", "games", "mean", f"{percent(CONFIDENCE)} interval")
    return (
        f"## Perturbed, {way}\n\n"
        f"![Return against the strength of perturbations]({picture.name})\n\n"
        f"{_table(header, rows)}"
    )


def _reproduce(policy: SavedPolicy, scores: Iterable[Scores]) -> str:
    recipe = policy.recipe
    ways: dict[str, dict[str, list[str]]] = {}
    for each in scores:
        if each.protocol not in PROTOCOLS or not each.returns:
            continue  # one of Python's, which the command line cannot spell, or a window closed
        command = f"ncp-agents evaluate . --protocol {each.protocol}"
        command += " --deterministic" if each.deterministic else ""
        games = len(each.returns)
        command += f" --episodes {games} --seed {each.seed}"
        command += (
            f" --num-envs {each.num_envs}" if each.num_envs != default_num_envs(games) else ""
        )
        sweeps = ways.setdefault(command, {})
        if each.perturbation is not None:
            strengths = sweeps.setdefault(each.perturbation.kind, [])
            if (strength := each.perturbation.amount) not in strengths:
                strengths.append(strength)
    commands = [
        command
        + "".join(f" --{kind.replace('_', '-')} {' '.join(s)}" for kind, s in sweeps.items())
        for command, sweeps in ways.items()
    ]
    make, how = "train recipe.toml", f"training ({recipe.steps:,} steps, seed {recipe.seed})"
    if policy.folder is not None and (policy.folder / CLONING).exists():
        make, how = "clone recipe.toml --demos DEMOS", f"cloning (seed {recipe.seed}) but the demos"
    lines = "\n".join([f"ncp-agents {make} --save .", *commands, "ncp-agents report ."])
    return (
        "## How to make it again\n\n"
        f"In this folder; `recipe.toml` says everything about the {how}, `scores.json` holds each "
        "game behind the tables.\n\n"
        f"```sh\n{lines}\n```"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
