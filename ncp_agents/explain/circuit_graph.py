"""The circuit of a policy as a graph: neurons by kind, synapses, and the currents in them.

Axes: T steps, I features, N neurons, A actions, S synapses, K signals.

All that changes from step to step is one row of K signals:

    features (I) | state (N) | probabilities (A) | previous state (N) | gates (N)

The first I + N + A of them are the activities of the graph's nodes. The previous state is what the
neurons read in this step: zeros after a reset, or what the memory cell made of it. `gates` are
those of a CfC, zeros elsewhere.
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

KINDS = ("dense", "inter", "command", "motor")  # of neurons, in the order of columns


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
    Its effect on the gate is left out. Without a gate change is 0.
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
    """An LTC's: current = sigmoid(slope * source - offset) * (pull - weight * target).

    Taken at the potentials at the end of the step; pull is weight times the reversal potential.
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

    The synapses are those that the network computes with, which for a CfC are not all that its
    wiring names: recurrence is dense within a layer and absent elsewhere. The last group leads from
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
        previous = self.nodes  # where these signals start
        source = np.concatenate([group.source for group in self.synapses])
        source = np.where(source >= previous, source - previous + self.inputs, source)
        return np.stack([source, np.concatenate([group.target for group in self.synapses])], 1)

    def currents(self, signals: np.ndarray) -> np.ndarray:
        """Signals (…, K) → (…, S); a positive current raises the target, a negative lowers it."""
        return np.concatenate([group.currents(signals) for group in self.synapses], -1)


def circuit_graph(policy: SavedPolicy) -> CircuitGraph:
    """Return the circuit of a policy as a graph."""
    network, circuit = policy.network, policy.network.circuit
    inputs, neurons = circuit.input_size, circuit.state_size
    actions = action_meanings(policy.recipe.environment.game)
    state, action = inputs, inputs + neurons  # where these signals start
    nodes = action + len(actions)

    wiring, cell = circuit.wiring, circuit.rnn_cell
    order = np.arange(neurons)  # of the wiring's neurons in the state
    if isinstance(cell, WiredCfCCell):
        order = np.concatenate(cell.wiring.layers)
    kinds = ["dense" if wiring is None else wiring.get_type_of_neuron(int(j)) for j in order]
    names = [f"sensory {i}" for i in range(inputs)]
    names += [f"{kind} {j}" for kind, j in zip(kinds, order, strict=True)]
    names += actions
    columns = [Column("sensory", np.arange(inputs))]
    for kind in KINDS:
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
    motor = state + np.arange(neurons)[circuit.output_slice]
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


def gates(
    policy: SavedPolicy, features: np.ndarray, state: np.ndarray, previous_state: np.ndarray
) -> np.ndarray:
    """Return the time gates of a CfC (T, N), or zeros of another cell.

    Args:
        policy: its circuit.
        features: (T, I).
        state: (T, N) after the steps.
        previous_state: (T, N) that the neurons read.
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
            z = np.concatenate([x, previous_state[:, own]], 1)
            (_, _, a, b) = (z @ weight.T + bias for weight, bias in heads)
            found[:, own] = sigmoid(a + b)  # timespans are 1
        x, start = state[:, own], own.stop
    return found


def _gated(layers: list[CfCCell], inputs: int, previous: int, gates: int) -> list[GatedSynapses]:
    """Return the synapses of each layer; `previous` and `gates` are where these signals start."""
    found = []
    source, start = 0, 0  # the layer's first input signal and first neuron
    for layer in layers:
        mask = layer.sparsity_mask
        heads = [_array(weight) for weight, _ in layer.heads()]
        exists = np.ones_like(heads[0]) if mask is None else _array(mask)
        target, column = np.nonzero(exists)
        signal = np.where(
            column < layer.input_size, source + column, previous + start + column - layer.input_size
        )
        first = heads[0][target, column]
        second = heads[1][target, column] if layer.mode != "pure" else first
        # No gate scales the first head down: the factor 1 - g is missing.
        change = second if layer.mode == "no_gate" else second - first
        found.append(
            GatedSynapses(signal, inputs + start + target, gates + start + target, first, change)
        )
        source, start = inputs + start, start + layer.hidden_size
    return found


def _layers(cell: torch.nn.Module) -> list[CfCCell]:
    """Return the layers of a CfC without a backbone."""
    if isinstance(cell, WiredCfCCell):
        return cell.cells
    return [cell] if isinstance(cell, CfCCell) and not cell.backbone_layers else []


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()
