"""How a cloning went, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ncp_agents.rendering.figures import COLORS, calm, save_figure


def draw_cloning_curve(rows: Sequence[Mapping[str, Any]], picture: Path, name: str) -> None:
    """Loss, accuracy and returns over the epochs, from the rows of cloning.csv, into a PNG."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    losses, accuracies, returns = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in rows]
    for axes, kind in ((losses, "loss"), (accuracies, "accuracy")):
        for split, label, color in (
            ("train", "training", COLORS[0]),
            ("val", "validation", COLORS[1]),
        ):
            axes.plot(epochs, [row[f"{split}_{kind}"] for row in rows], color=color, label=label)
        axes.set_title(f"{kind} a step")
        axes.legend()
    played = [(row["epoch"], row["eval_return"]) for row in rows if row["eval_return"] is not None]
    if played:
        returns.plot(*zip(*played, strict=True), "o-", color=COLORS[2])
    returns.set_title("return of whole games")
    for axes in (losses, accuracies, returns):
        axes.set_xlabel("epoch")
        calm(axes)
    figure.suptitle(f"{name}, {rows[-1]['seconds'] / 60:.1f} minutes")
    save_figure(figure, picture)
