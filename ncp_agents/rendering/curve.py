"""The learning curve of a run as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from ncp_agents.envs.games import RANDOM_AND_HUMAN_SCORES
from ncp_agents.files import replacing
from ncp_agents.recipe import Recipe
from ncp_agents.run_folder import read_progress


def draw_curve(progress: Path, picture: Path, recipe: Recipe) -> None:
    """Draw the returns of `progress`, a progress.csv, into the PNG `picture`: the mean return of
    the last training games, the evaluations and, where one is known, a human's score."""
    rows = read_progress(progress)
    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    training = [(r["steps"] / 1e6, r["return_mean"]) for r in rows if "return_mean" in r]
    evaluations = [(r["steps"] / 1e6, r["eval_return"]) for r in rows if "eval_return" in r]
    if training:
        axes.plot(
            *zip(*training, strict=True),
            color="tab:blue",
            label=f"training, mean of the last {recipe.schedule.window} games",
        )
    if evaluations:
        axes.plot(
            *zip(*evaluations, strict=True),
            "o",
            color="tab:orange",
            label=f"evaluation, mean of {recipe.schedule.eval_episodes} games",
        )
    scores = RANDOM_AND_HUMAN_SCORES.get(recipe.environment.game)
    if scores:
        axes.axhline(scores[1], color="grey", linestyle=":", label="human")
    axes.set_xlabel("steps (millions; one is 4 frames)")
    axes.set_ylabel("return of a game")
    minutes = rows[-1]["seconds"] / 60 if rows else 0.0
    axes.set_title(f"{recipe.name}, seed {recipe.seed}, {minutes:.1f} minutes")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    with replacing(picture) as temporary:
        figure.savefig(temporary, format="png")
