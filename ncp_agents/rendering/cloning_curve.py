"""How a cloning went, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ncp_agents.rendering.figures import COLORS, calm, save_figure


def draw_cloning_curve(rows: Sequence[Mapping[str, Any]], picture: Path, name: str) -> None:
    """Loss, accuracy and, where games were played, returns over the epochs, from the rows of
    cloning.csv, into a PNG.
    """
    played = [(row["epoch"], row["eval_return"]) for row in rows if row["eval_return"] is not None]
    panels = 3 if played else 2
    figure = Figure(figsize=(10 * panels / 3, 3.4), layout="constrained")
    row_of_axes = figure.subplots(1, panels)
    epochs = [row["epoch"] for row in rows]
    for axes, kind in zip(row_of_axes, ("loss", "accuracy"), strict=False):
        for split, label, color in (
            ("train", "training", COLORS[0]),
            ("val", "validation", COLORS[1]),
        ):
            axes.plot(epochs, [row[f"{split}_{kind}"] for row in rows], color=color, label=label)
        axes.set_title(f"{kind} a step")
        axes.legend()
    if played:
        row_of_axes[-1].plot(*zip(*played, strict=True), "o-", color=COLORS[2])
        row_of_axes[-1].set_title("return of whole games")
    for axes in row_of_axes:
        axes.set_xlabel("epoch")
        calm(axes)
    figure.suptitle(f"{name}, {rows[-1]['seconds'] / 60:.1f} minutes")
    save_figure(figure, picture)
