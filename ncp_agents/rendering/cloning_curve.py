"""The progress of behaviour cloning as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ncp_agents.rendering.figures import COLORS, save_figure, style_axes


def draw_cloning_curve(rows: Sequence[Mapping[str, float]], picture: Path, name: str) -> None:
    """Draw loss, accuracy and the returns of evaluations over the epochs into a PNG.

    Args:
        rows: of cloning.csv, with "eval_return" only where the policy was evaluated.
        picture: the PNG.
        name: of the policy.
    """
    evaluations = [(row["epoch"], row["eval_return"]) for row in rows if "eval_return" in row]
    panels = 3 if evaluations else 2
    figure = Figure(figsize=(10 * panels / 3, 3.4), layout="constrained")
    row_of_axes = figure.subplots(1, panels)
    epochs = [row["epoch"] for row in rows]
    for axes, kind in zip(row_of_axes, ("loss", "accuracy"), strict=False):
        for split, label, color in (
            ("train", "training", COLORS[0]),
            ("val", "validation", COLORS[1]),
        ):
            axes.plot(epochs, [row[f"{split}_{kind}"] for row in rows], color=color, label=label)
        axes.set_title(f"{kind} per step")
        axes.legend()
    if evaluations:
        row_of_axes[-1].plot(*zip(*evaluations, strict=True), "o-", color=COLORS[2])
        row_of_axes[-1].set_title("return of an episode")
    for axes in row_of_axes:
        axes.set_xlabel("epoch")
        style_axes(axes)
    figure.suptitle(f"{name}, {rows[-1]['seconds'] / 60:.1f} minutes")
    save_figure(figure, picture)
