"""The text of a saved policy's README.md, from its recipe, its scores and the names of pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ncp_agents.agents.saved_policy import SavedPolicy
from ncp_agents.envs.games import HUMAN_SCORES_SOURCE, action_meanings
from ncp_agents.envs.protocol import PROTOCOLS
from ncp_agents.evaluation.formatting import action_fractions, number, percent, span
from ncp_agents.evaluation.perturbation_sweep import sweeps
from ncp_agents.evaluation.rollout import default_num_envs
from ncp_agents.evaluation.scores import Scores
from ncp_agents.evaluation.statistics import CONFIDENCE

INTERVAL = f"{percent(CONFIDENCE)} interval"


def model_card(
    policy: SavedPolicy,
    scores: Sequence[Scores],
    *,
    wiring: str | None,
    curve: str | None,
    perturbations: Mapping[str, str],
    cloned: bool,
) -> str:
    """Return the model card in Markdown.

    Args:
        policy: the card's subject.
        scores: all entries of its scores file.
        wiring: name of the circuit's picture, None without one.
        curve: name of the learning curve's picture, None without one.
        perturbations: names of pictures by the keys of `sweeps(scores)`.
        cloned: whether the policy was cloned from demonstrations.
    """
    parts = [
        _architecture(policy),
        f"![The circuit]({wiring})" if wiring else "",
        _results([each for each in scores if each.perturbation is None]),
        *(_perturbed(key, group, perturbations[key]) for key, group in sweeps(scores).items()),
        f"## Training\n\n![Learning curve]({curve})" if curve else "",
        _reproduce(policy, scores, cloned),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _architecture(policy: SavedPolicy) -> str:
    recipe, circuit = policy.recipe, policy.network.circuit
    environment, wiring = recipe.environment, circuit.wiring
    cell = {"cfc": "CfC"}.get(recipe.circuit.cell, recipe.circuit.cell.upper())
    layers, connectivity = f"{circuit.state_size} neurons", "that are fully connected"
    if wiring is not None:
        kinds = (Counter(map(wiring.get_type_of_neuron, layer)) for layer in wiring.layers)
        names = (" and ".join(f"{n} {kind}" for kind, n in layer.items()) for layer in kinds)
        layers = " → ".join(names) + " neurons"
        connectivity = (
            f"on the wiring `{recipe.circuit.wiring}`: {wiring.synapse_count:,} synapses between "
            f"them, {wiring.sensory_synapse_count:,} from the features"
        )
    parameters = sum(p.numel() for p in policy.network.parameters())
    size, stack = environment.atari_protocol().frame_size, environment.frame_stack
    frames = "single frames" if stack == 1 else f"stacks of {stack} frames"
    observation = f"{size} × {size} frame" if stack == 1 else f"{stack} {size} × {size} frames"
    encoder = type(policy.network.features_extractor).__name__
    return (
        f"# {policy.name}\n\n"
        f"Plays {environment.game} from {frames}, with {circuit.state_size} {cell} neurons "
        f"{connectivity}. {parameters:,} parameters in all.\n\n"
        f"    {observation} → {encoder}, {recipe.policy.features} features → {layers} → "
        f"{len(action_meanings(environment.game))} actions"
    )


def _results(scores: Sequence[Scores]) -> str:
    rows = [
        (
            each.protocol,
            "greedy" if each.deterministic else "sampled",
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
        *("protocol", "actions", "episodes", "mean", INTERVAL),
        *("median", "interquartile mean", "std", "human"),
    )
    taken = "".join(f"- {each.key}: {action_fractions(each)}\n" for each in scores)
    return (
        "## Results\n\n"
        "Returns of whole episodes with unclipped rewards, fewer than 30 no-ops and at most "
        "108,000 frames. `v4` has no sticky actions and resets the circuit's state where a life is "
        "lost; `v5` has sticky actions with probability 0.25 and does not. Intervals are "
        "bootstrapped.\n\n"
        f"{_table(header, rows)}\n\n"
        f"*human*: 0 % is random play, 100 % a professional tester's ({HUMAN_SCORES_SOURCE}).\n\n"
        f"Actions taken:\n\n{taken.rstrip()}"
    )


def _perturbed(key: str, scores: Iterable[Scores], picture: str) -> str:
    rows = [
        (
            each.perturbation.kind.replace("_", " ")
            + (", with timespans" if each.perturbation.timespans else ""),
            each.perturbation.amount,
            str(len(each.returns)),
            number(each.mean),
            span(each),
        )
        for each in scores
        if each.perturbation is not None
    ]
    header = ("perturbation", "strength", "episodes", "mean", INTERVAL)
    return (
        f"## Perturbed, {key}\n\n"
        f"![Return against the strength of perturbations]({picture})\n\n"
        f"{_table(header, rows)}"
    )


def _reproduce(policy: SavedPolicy, scores: Iterable[Scores], cloned: bool) -> str:
    recipe = policy.recipe
    commands: dict[str, dict[str, dict[str, None]]] = {}  # → kind → strengths, in order
    for each in scores:
        if each.protocol not in PROTOCOLS:
            continue  # given in Python; the command line has no option for it
        episodes = len(each.returns)
        command = f"ncp-agents evaluate . --protocol {each.protocol}"
        command += " --deterministic" if each.deterministic else ""
        command += f" --episodes {episodes} --seed {each.seed}"
        if each.num_envs != default_num_envs(episodes):
            command += f" --num-envs {each.num_envs}"
        kinds = commands.setdefault(command, {})
        if each.perturbation is not None:
            kinds.setdefault(each.perturbation.kind, {})[each.perturbation.amount] = None
    evaluations = [
        command + "".join(f" --{kind.replace('_', '-')} {' '.join(s)}" for kind, s in kinds.items())
        for command, kinds in commands.items()
    ]
    make, how = "train recipe.toml", f"training ({recipe.steps:,} steps, seed {recipe.seed})"
    if cloned:
        make, how = "clone recipe.toml --demos DEMOS", f"cloning (seed {recipe.seed}) but the demos"
    lines = "\n".join(
        [
            f"ncp-agents {make} --save .",
            *evaluations,
            "ncp-agents evaluate . --video episode.mp4 --show-circuit",
            "ncp-agents report .",
        ]
    )
    return (
        "## Reproduce\n\n"
        f"Run in this folder. `recipe.toml` holds all settings of the {how}; `scores.json` holds "
        "each episode behind the tables.\n\n"
        f"```sh\n{lines}\n```"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
