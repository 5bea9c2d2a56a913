"""The saved policies that come with the package, as a table."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.table import Table

from ncp_agents.envs.games import RECURRENT_PPO_SCORES
from ncp_agents.recipe import read_recipe
from ncp_agents.run_folder import read_progress
from ncp_agents.saved_policy import PROGRESS, RECIPE, WEIGHTS, build, zoo
from ncp_agents.scores import CONFIDENCE, SCORES, Scores, number, percent, read_scores, span

ABOUT = ("policy", "game", "cell", "neurons", "parameters", "steps", "hours")
REACHES = ("scored under", "games", "mean", f"{percent(CONFIDENCE)} interval", "human", "LSTM")
LEFT = ("policy", "game", "cell", "scored under")


def policies_table() -> Table:
    """The saved policies that `ncp-agents` knows by name, a row for each way they were scored in.

    Raises:
        UserError: a broken recipe or scores file.
    """
    result = Table(box=box.SIMPLE_HEAD)
    for column in (*ABOUT, *REACHES):
        left = column in LEFT
        result.add_column(column, justify="left" if left else "right", overflow="fold")
    for name, folder in sorted(zoo().items()):
        about = [name, *_about(folder)]
        for scores in _scores(folder):
            result.add_row(*about, *_reaches(scores))
            about = [""] * len(ABOUT)
        if about[0]:  # no row yet
            trained = (folder / WEIGHTS).exists()
            result.add_row(*about, "not scored yet" if trained else "not trained yet")
    result.caption = (
        "human: 0 % is random play, 100 % a professional tester's; LSTM: recurrent PPO that sees "
        "one frame, 10M steps, as published; – where it is not known"
    )
    return result


def _about(folder: Path) -> list[str]:
    recipe = read_recipe(folder / RECIPE)
    rows = read_progress(folder / PROGRESS)
    return [
        recipe.environment.game,
        recipe.circuit.cell,
        str(recipe.circuit.units),
        f"{sum(p.numel() for p in build(recipe).parameters()):,}",
        f"{recipe.steps / 1e6:.3g}M",
        f"{rows[-1]['seconds'] / 3600:.1f}" if rows else "–",
    ]


def _scores(folder: Path) -> list[Scores]:
    if not (folder / SCORES).exists():
        return []
    return [each for each in read_scores(folder / SCORES).values() if each.disturbance is None]


def _reaches(scores: Scores) -> list[str]:
    published = RECURRENT_PPO_SCORES.get(scores.game)
    return [
        scores.key,
        str(len(scores.returns)),
        number(scores.mean),
        span(scores),
        percent(scores.human_normalised),
        f"{published[0]:g} ± {published[1]:g}" if published and scores.key == "v4" else "",
    ]
