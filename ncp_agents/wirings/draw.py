"""The picture of a wiring: layers in columns, from the inputs to the motor neurons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ncp_agents.wirings.base import Wiring

NEURONS = {  # by type, in the order of the legend; Okabe and Ito's palette, safe for colour-blind
    "sensory": "#999999",
    "inter": "#56B4E9",
    "command": "#009E73",
    "motor": "#E69F00",
}
SYNAPSES = {1: ("excitatory", "#0072B2"), -1: ("inhibitory", "#D55E00")}


def layout(wiring: Wiring) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the inputs (I, 2) and of the neurons (N, 2) of a built wiring.

    x is the column, 0 for the inputs, and y runs from 0 (bottom) to 1.
    """
    inputs = len(wiring.sensory_erev_initializer())
    neurons = np.zeros((wiring.units, 2))
    for column, layer in enumerate(wiring.layers, 1):
        neurons[layer] = _column(column, len(layer))
    return _column(0, inputs), neurons


def draw(wiring: Wiring, axes: Axes | None = None, *, labels: bool | None = None) -> Axes:
    """Draw a built wiring.

    Synapses between layers are straight, those within a layer are arcs, thicker towards their
    target. Nothing is drawn twice: a command neuron that excites itself has a loop. A wiring of
    more than `MAX_SYNAPSES` is drawn in blocks instead, a box for each layer.

    Args:
        wiring: built.
        axes: to draw on, as wide as they are; None makes a figure.
        labels: whether neurons carry their numbers; None decides by the space there is.

    Returns:
        The axes; `axes.figure.savefig(path)` writes the picture.
    """
    from matplotlib.figure import Figure

    sensory, neurons = layout(wiring)
    columns = [len(sensory), *map(len, wiring.layers)]
    matrices = (wiring.sensory_erev_initializer(), wiring.erev_initializer())
    count = sum(int(np.count_nonzero(matrix)) for matrix in matrices)
    if axes is None:
        height = float(np.clip(0.16 * max(columns), 4, 12)) if count <= MAX_SYNAPSES else 3.0
        figure = Figure(figsize=(2.2 * len(columns) + 1, height), dpi=120, layout="constrained")
        axes = figure.add_subplot()

    if count > MAX_SYNAPSES:
        _blocks(axes, wiring, columns, count)
        return axes
    opacity = float(np.clip(6 / max(count, 1) ** 0.5, 0.15, 0.8))
    for places, matrix in zip((sensory, neurons), matrices, strict=True):
        for sign, (_, color) in SYNAPSES.items():
            pairs = np.argwhere(matrix == sign)
            lines = [_synapse(places[i], neurons[j]) for i, j in pairs]
            _lines(axes, lines, colors=color, alpha=opacity, zorder=1)

    kinds = [wiring.get_type_of_neuron(j) for j in range(wiring.units)]
    size = float(np.clip(2500 / max(columns), 12, 160))
    axes.scatter(*sensory.T, s=size, color=NEURONS["sensory"], zorder=2)
    axes.scatter(*neurons.T, s=size, color=[NEURONS[kind] for kind in kinds], zorder=2)
    if labels or (labels is None and max(columns[1:]) <= 24):
        for j, place in enumerate(neurons):
            axes.annotate(str(j), place, ha="center", va="center", fontsize=7, zorder=3)
    _legend(axes, Counter(kinds) | {"sensory": len(sensory)}, matrices)
    axes.set_xlim(-0.3, len(columns) - 0.5)
    axes.set_ylim(-0.05, 1.05)
    axes.set_axis_off()
    return axes


POINTS = 12  # of each synapse's line
MAX_SYNAPSES = 8_000  # to be drawn one by one: beyond, a picture shows nothing but ink


def _lines(axes: Axes, lines: list[np.ndarray], **style: Any) -> None:
    """Synapses, (POINTS, 2) each, that widen towards their target."""
    from matplotlib.collections import LineCollection

    if not lines:
        return
    chunks = np.concatenate([np.stack([line[:-1], line[1:]], 1) for line in lines])
    widths = np.tile(np.linspace(0.3, 1.3, POINTS - 1), len(lines))
    axes.add_collection(LineCollection(list(chunks), linewidths=list(widths), **style))


def _legend(axes: Axes, neurons: Mapping[str, int], matrices: Iterable[np.ndarray]) -> None:
    """How many neurons there are of each type, and how many synapses of each sign."""
    from matplotlib.lines import Line2D

    signs = Counter(np.concatenate([matrix[matrix != 0] for matrix in matrices]).tolist())
    handles = [
        Line2D([], [], marker="o", ls="", color=color, label=f"{neurons[kind]} {kind}")
        for kind, color in NEURONS.items()
        if kind in neurons
    ]
    handles += [
        Line2D([], [], color=color, label=f"{signs[sign]} {name}")
        for sign, (name, color) in SYNAPSES.items()
    ]
    axes.legend(
        handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, frameon=False
    )


def _blocks(axes: Axes, wiring: Wiring, columns: list[int], count: int) -> None:
    """A box for each layer, arrows with the number of synapses between them."""
    kinds = [Counter({"sensory": columns[0]})]
    kinds += [Counter(map(wiring.get_type_of_neuron, layer)) for layer in wiring.layers]
    layers = [np.asarray(layer) for layer in wiring.layers]
    synapses = {(0, 1 + j): wiring.sensory_erev_initializer()[:, to] for j, to in enumerate(layers)}
    synapses |= {
        (1 + i, 1 + j): wiring.erev_initializer()[np.ix_(source, to)]
        for i, source in enumerate(layers)
        for j, to in enumerate(layers)
    }
    for column, kind in enumerate(kinds):
        inside = np.count_nonzero(synapses.get((column, column), 0))
        text = "\n".join(f"{number} {name}" for name, number in kind.most_common())
        text += f"\n{inside:,} within" if inside else ""
        color = NEURONS[kind.most_common(1)[0][0]]
        box = {"boxstyle": "round,pad=0.6", "facecolor": color, "edgecolor": "none"}
        axes.text(column, 0.5, text, ha="center", va="center", bbox=box, zorder=2)
    for (source, target), matrix in synapses.items():
        number, far = np.count_nonzero(matrix), target - source
        if source == target or not number:
            continue
        bend = 0.0 if far == 1 else 0.25 * np.sign(far)
        arrow = {"arrowstyle": "->", "color": "0.4", "connectionstyle": f"arc3,rad={-bend}"}
        axes.annotate("", (target - 0.3, 0.5), (source + 0.3, 0.5), arrowprops=arrow, zorder=1)
        height = 0.56 if far == 1 else 0.5 + 0.2 * abs(bend) * abs(far) / 0.25
        axes.text((source + target) / 2, height, f"{number:,}", ha="center", size=9, color="0.4")
    axes.set_title(f"{count:,} synapses, too many to draw each: layers as blocks", size=10)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(0, 1)
    axes.set_axis_off()


def _column(x: int, count: int) -> np.ndarray:
    """`count` places spread over a column, the first at the top."""
    edge = 0.5 / count
    return np.stack([np.full(count, float(x)), np.linspace(1 - edge, edge, count)], 1)


def _synapse(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The line from source to target, (POINTS, 2)."""
    s = np.linspace(0, 1, POINTS)[:, None]
    line = source + s * (target - source)
    if source[0] == target[0]:  # within a layer: an arc to the right, a loop to itself
        reach = 0.08 + 0.25 * abs(source[1] - target[1])
        line[:, 0] += reach * np.sin(np.pi * s[:, 0])
        if source[1] == target[1]:
            line[:, 1] += 0.015 * np.sin(2 * np.pi * s[:, 0])
    return line
