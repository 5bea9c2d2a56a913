"""Where the nodes of a circuit stand in a picture, which synapses become lines, and colour scales.

Axes: T steps, S synapses, K signals.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ncp_agents.explain.circuit_graph import CircuitGraph, Column

MAX_IN_COLUMN = 64  # neurons; more are drawn as a block
MAX_LINES = 4000  # synapses; more lines would merge into an area
MAX_SCALE_STEPS = 500  # of a trace, to find colour scales


@dataclass(frozen=True)
class CircuitLayout:
    """The layout of a circuit."""

    graph: CircuitGraph

    @cached_property
    def drawn(self) -> np.ndarray:
        """(S,) bool: the synapses that become lines.

        Those between columns, and those within a column where they are few; none where they would
        be more than MAX_LINES.
        """
        source, target = self._column[self.graph.ends].T
        lines = source != target
        for index, column in enumerate(self.graph.columns):
            within = (source == index) & (target == index)
            if within.sum() <= 2 * len(column.nodes):
                lines |= within
        return lines if lines.sum() <= MAX_LINES else np.zeros_like(lines)

    @property
    def in_blocks(self) -> bool:
        """Whether the circuit is too large or too dense for lines."""
        return not self.drawn.any()

    def is_block(self, column: Column) -> bool:
        """Return whether a column is drawn as cells of a heat map: inputs, and many neurons."""
        many = self.in_blocks or len(column.nodes) > MAX_IN_COLUMN
        return column.kind == "sensory" or (many and column.kind != "action")

    @cached_property
    def places(self) -> np.ndarray:
        """(nodes, 2) of 0…1: x from the left, y from the top.

        Inputs stand in one line, wide columns in blocks.
        """
        columns = self.graph.columns
        places = np.zeros((self.graph.nodes, 2))
        step = 1 / (len(columns) - 1)
        for index, column in enumerate(columns):
            count = len(column.nodes)
            wide = 1
            if self.is_block(column) and (index > 0 or count > MAX_IN_COLUMN):
                wide = max(2, round((count / 4) ** 0.5))  # four times as high as wide
            row, place = np.divmod(np.arange(count), wide)
            x = index * step
            if wide > 1:
                # A third of the way to the next column; the inputs' block starts at the edge.
                x = x + step / 3 * (place / (wide - 1) - (0.5 if index else 0))
            places[column.nodes, 0] = x
            places[column.nodes, 1] = (row + 0.5) / -(-count // wide)
        return places

    def scales(self, signals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the typical sizes of activities and currents over a trace, signals (T, K).

        Returns:
            Activities (nodes,) and currents (S,): the 99th percentile of the sizes in their column
            (a synapse counts to its target's); and the mean size of each current (S,).
        """
        graph = self.graph
        steps = min(MAX_SCALE_STEPS, max(20, 10**7 // len(graph.ends)))  # fewer of large circuits
        some = signals[:: -(-len(signals) // steps)]
        activities, currents = np.abs(some[:, : graph.nodes]), np.abs(graph.currents(some))
        node_scale, synapse_scale = np.ones(graph.nodes), np.ones(currents.shape[1])
        column = self._column[graph.ends[:, 1]]
        for index, own in enumerate(graph.columns):
            node_scale[own.nodes] = _typical(activities[:, own.nodes])
            for drawn in (False, True):  # apart, since those without a line are of another size
                into = (column == index) & (self.drawn == drawn)
                synapse_scale[into] = _typical(currents[:, into])
        node_scale[graph.columns[-1].nodes] = 1  # probabilities
        return node_scale.astype(np.float32), synapse_scale.astype(np.float32), currents.mean(0)

    @cached_property
    def _column(self) -> np.ndarray:
        """(nodes,): the index of each one's column."""
        column = np.zeros(self.graph.nodes, int)
        for index, own in enumerate(self.graph.columns):
            column[own.nodes] = index
        return column


def _typical(sizes: np.ndarray) -> float:
    return max(float(np.quantile(sizes, 0.99)), 1e-6) if sizes.size else 1.0
