"""What there is to see of a policy: neurons in columns, synapses, and the currents in them.

Axes: T steps, I features, N neurons, A actions, S synapses, K signals.

All that changes from step to step is one row of K signals:

    features (I) | state (N) | probabilities (A) | before (N) | gates (N)

The first I + N + A of them are the activities of the nodes of the picture. `before` is the state
that the neurons read in this step: the previous one, zeros where memory starts, or what the memory
cell made of it. `gates` are those of a CfC, zeros elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ncp_agents.agents.saved_policy import SavedPolicy
from ncp_agents.envs.games import action_meanings
from ncp_agents.layers.reference import sigmoid
from ncp_agents.torch.cfc_cell import CfCCell
from ncp_agents.torch.ltc_cell import LTCCell
from ncp_agents.torch.wired_cfc_cell import WiredCfCCell

KINDS = ("sensory", "inter", "command", "motor")  # columns, from the left
MAX_IN_COLUMN = 64  # neurons; more stand in a block
MAX_LINES = 4000  # synapses; more would be a grey area


@dataclass(frozen=True)
class Column:
    """Nodes of a kind, from the top."""

    kind: str
    nodes: np.ndarray  # (n,) int


@dataclass(frozen=True)
class GatedSynapses:
    """Weighted sums: current = source * (weight + gate * change).

    A CfC neuron weighs two heads by its gate, h' = (1 - g) * tanh(ff1) + g * tanh(ff2), so change
    is ff2's weight minus ff1's, and the current is what a source adds to (1 - g) * ff1 + g * ff2.
    What it does to the gate is not counted. Without a gate change is 0.
    """

    source: np.ndarray  # (S,) signal
    target: np.ndarray  # (S,) node
    gate: np.ndarray  # (S,) signal
    weight: np.ndarray  # (S,) float32
    change: np.ndarray  # (S,) float32
    kind = "gated"

    def currents(self, signals: np.ndarray) -> np.ndarray:
        """(…, K) → (…, S)."""
        return signals[..., self.source] * (self.weight + signals[..., self.gate] * self.change)


@dataclass(frozen=True)
class ConductanceSynapses:
    """An LTC's: current = sigmoid(slope * source - offset) * (pull - weight * target), at the
    potentials that the step ended with; pull is weight times the reversal potential.
    """

    source: np.ndarray  # (S,) signal
    target: np.ndarray  # (S,) node
    weight: np.ndarray  # (S,) float32
    slope: np.ndarray  # (S,) float32
    offset: np.ndarray  # (S,) float32
    pull: np.ndarray  # (S,) float32
    kind = "conductance"

    def currents(self, signals: np.ndarray) -> np.ndarray:
        """(…, K) → (…, S)."""
        act = sigmoid(self.slope * signals[..., self.source] - self.offset)
        return act * (self.pull - self.weight * signals[..., self.target])


@dataclass(frozen=True)
class CircuitGraph:
    """The circuit of a policy.

    synapses: those that the network computes with, which for a CfC are not all that its wiring
        names: recurrence is dense within a layer and absent elsewhere. The last group leads from
        the motor neurons to the actions. A backbone and an LSTM have no other.
    """

    about: str  # in a line
    columns: tuple[Column, ...]
    names: tuple[str, ...]  # of the nodes
    synapses: tuple[GatedSynapses | ConductanceSynapses, ...]
    inputs: int  # I
    neurons: int  # N

    @property
    def nodes(self) -> int:
        """I + N + A."""
        return len(self.names)

    @property
    def ends(self) -> np.ndarray:
        """(S, 2): source and target of each synapse as nodes."""
        before = self.nodes
        source = np.concatenate([group.source for group in self.synapses])
        source = np.where(source >= before, source - before + self.inputs, source)
        return np.stack([source, np.concatenate([group.target for group in self.synapses])], 1)

    def currents(self, signals: np.ndarray) -> np.ndarray:
        """signals (…, K) → (…, S); positive raises the target, negative lowers it."""
        return np.concatenate([group.currents(signals) for group in self.synapses], -1)

    @property
    def drawn(self) -> np.ndarray:
        """(S,) bool: synapses that the picture of the whole circuit has lines for: those between
        columns, and those within one where they are few. None if they are too many altogether.
        """
        source, target = self._column[self.ends].T
        lines = source != target
        for index, column in enumerate(self.columns):
            within = (source == index) & (target == index)
            if within.sum() <= 2 * len(column.nodes):
                lines |= within
        return lines if lines.sum() <= MAX_LINES else np.zeros_like(lines)

    @property
    def in_blocks(self) -> bool:
        """Whether the circuit is too large or too dense for lines."""
        return not self.drawn.any()

    def is_block(self, column: Column) -> bool:
        """Whether a column is drawn as cells of a heat map: inputs, and more neurons than lines
        could tell apart.
        """
        kind = column.kind
        many = self.in_blocks or len(column.nodes) > MAX_IN_COLUMN
        return kind == "sensory" or (many and kind != "action")

    def places(self) -> np.ndarray:
        """(nodes, 2) of 0…1: x from the left, y from the top. Inputs stand in one line and wide
        columns in blocks.
        """
        places = np.zeros((self.nodes, 2))
        step = 1 / (len(self.columns) - 1)
        for index, column in enumerate(self.columns):
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
        """How strong things are over a trace, signals (T, K), at up to 500 of its steps (fewer of
        a very large circuit).

        Returns:
            Activities (nodes,) and currents (S,) that 99 % of their column's do not exceed in size
            (a synapse counts to its target's column); mean size of each current (S,).
        """
        steps = min(500, max(20, 10**7 // len(self.ends)))
        some = signals[:: -(-len(signals) // steps)]
        activities, currents = np.abs(some[:, : self.nodes]), np.abs(self.currents(some))
        most, strongest = np.ones(self.nodes), np.ones(currents.shape[1])
        column = self._column[self.ends[:, 1]]
        for index, own in enumerate(self.columns):
            most[own.nodes] = _usual(activities[:, own.nodes])
            # Apart, since those that no line is drawn for are of another kind.
            for drawn in (False, True):
                into = (column == index) & (self.drawn == drawn)
                strongest[into] = _usual(currents[:, into])
        most[self.columns[-1].nodes] = 1  # probabilities
        return most.astype(np.float32), strongest.astype(np.float32), currents.mean(0)

    @property
    def _column(self) -> np.ndarray:
        """(nodes,): the index of each one's column."""
        column = np.zeros(self.nodes, int)
        for index, own in enumerate(self.columns):
            column[own.nodes] = index
        return column


def _usual(sizes: np.ndarray) -> float:
    return max(float(np.quantile(sizes, 0.99)), 1e-6) if sizes.size else 1.0


def circuit_graph(policy: SavedPolicy) -> CircuitGraph:
    """What there is to see of a policy."""
    network, circuit = policy.network, policy.network.circuit
    inputs, neurons = circuit.input_size, circuit.state_size
    actions = action_meanings(policy.recipe.environment.game)
    state, action = inputs, inputs + neurons  # where these signals start
    nodes = action + len(actions)

    wiring, cell = circuit.wiring, circuit.rnn_cell
    # The places of the wiring's neurons in the state.
    order = np.arange(neurons)
    if isinstance(cell, WiredCfCCell):
        order = np.concatenate(cell.wiring.layers)
    kinds = ["dense" if wiring is None else wiring.get_type_of_neuron(int(j)) for j in order]
    names = [f"sensory {i}" for i in range(inputs)]
    names += [f"{kind} {j}" for kind, j in zip(kinds, order, strict=True)]
    names += actions
    columns = [Column("sensory", np.arange(inputs))]
    for kind in ("dense", *KINDS):
        own = np.flatnonzero([k == kind for k in kinds])
        if len(own):
            columns.append(Column(kind, state + own[np.argsort(order[own])]))
    columns.append(Column("action", np.arange(action, nodes)))

    synapses: list[GatedSynapses | ConductanceSynapses] = []
    with torch.no_grad():
        if isinstance(cell, LTCCell):
            membrane = cell.membrane()
            for part, first in ((membrane.sensory, 0), (membrane.internal, state)):
                synapses.append(
                    ConductanceSynapses(
                        source=first + _array(part.source),
                        target=state + _array(part.target),
                        weight=_array(part.weight),
                        slope=_array(part.slope),
                        offset=_array(part.offset),
                        pull=_array(part.pull),
                    )
                )
        else:
            synapses += _gated(_layers(cell), inputs, nodes, nodes + neurons)
        weight = cast(torch.nn.Linear, network.action_net).weight
        if isinstance(cell, LTCCell) and cell.output_mapping:
            weight = weight * cell.output_w
    motor = state + np.arange(neurons)[_motor(circuit)]
    target, source = np.divmod(np.arange(weight.numel()), weight.shape[1])
    synapses.append(
        GatedSynapses(
            source=motor[source],
            target=action + target,
            gate=motor[source],
            weight=_array(weight.flatten()),
            change=np.zeros(weight.numel(), np.float32),
        )
    )
    count = sum(len(group.source) for group in synapses[:-1])
    kind = policy.recipe.circuit.cell.upper().replace("CFC", "CfC")
    about = f"{neurons} {kind} neurons" + (f", {count:,} synapses" if count else "")
    return CircuitGraph(about, tuple(columns), tuple(names), tuple(synapses), inputs, neurons)


def gates(policy: SavedPolicy, features: np.ndarray, state: np.ndarray, before: np.ndarray):
    """features (T, I), state (T, N), before (T, N) → the time gates of a CfC (T, N), zeros of
    another cell.
    """
    found = np.zeros_like(state)
    cell = policy.network.circuit.rnn_cell
    if isinstance(cell, LTCCell):
        return found
    x, start = features, 0
    for layer in _layers(cell):
        own = slice(start, start + layer.hidden_size)
        with torch.no_grad():
            heads = [(_array(weight), _array(bias)) for weight, bias in layer.heads()]
        if layer.mode != "pure":
            z = np.concatenate([x, before[:, own]], 1)
            (_, _, a, b) = (z @ weight.T + bias for weight, bias in heads)
            found[:, own] = sigmoid(a + b)  # one step has gone by
        x, start = state[:, own], own.stop
    return found


def _gated(layers: list[CfCCell], inputs: int, before: int, gates: int) -> list[GatedSynapses]:
    """Layer after layer; before and gates say where these signals start."""
    found = []
    source, start = 0, 0  # the first signal that the layer reads, its first neuron
    for layer in layers:
        mask = layer.sparsity_mask
        heads = [_array(weight) for weight, _ in layer.heads()]
        exists = np.ones_like(heads[0]) if mask is None else _array(mask)
        target, column = np.nonzero(exists)
        reads = np.where(
            column < layer.input_size, source + column, before + start + column - layer.input_size
        )
        first = heads[0][target, column]
        second = heads[1][target, column] if layer.mode != "pure" else first
        # Without the factor 1 - g the first head counts whole.
        change = second if layer.mode == "no_gate" else second - first
        found.append(
            GatedSynapses(reads, inputs + start + target, gates + start + target, first, change)
        )
        source, start = inputs + start, start + layer.hidden_size
    return found


def _layers(cell: torch.nn.Module) -> list[CfCCell]:
    """The layers of a CfC whose neurons read their sources themselves."""
    if isinstance(cell, WiredCfCCell):
        return cell.cells
    return [cell] if isinstance(cell, CfCCell) and not cell.backbone_layers else []


def _motor(circuit: torch.nn.Module) -> slice:
    """Where the motor neurons stand in the state."""
    return getattr(circuit, "output_slice", slice(0, circuit.output_size))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
