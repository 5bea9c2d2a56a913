"""Which synapses exist, and what they add up to: the sums of an LTC, and their gradients.

Synapses are listed by target, (R, K): R targets that receive any, K the largest number that one
receives; shorter lists are filled up with synapses of weight 0. A second list, by source, turns the
sum over a source's synapses, which the gradient needs, into a look-up as well.

The batch comes last, so that a look-up moves whole rows.

Axes: B batch, N neurons, R targets, K synapses a target.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ncp_agents.keras.ops import Tensor, ops


class Strengths(NamedTuple):
    """act = sigmoid(slope * v[source] - offset); conductance += weight * act, pull += pull * act.

    (R, K, 1) each; pull is weight * reversal potential.
    """

    slope: Tensor
    offset: Tensor
    weight: Tensor
    pull: Tensor


class Synapses:
    """The synapses of an adjacency matrix (sources, N)."""

    def __init__(self, adjacency: np.ndarray) -> None:
        self.sources, self.neurons = adjacency.shape
        exists = adjacency != 0
        self.targets = np.flatnonzero(exists.any(0)) if exists.any() else np.zeros(1, int)
        self.source, self.real = _lists([np.flatnonzero(exists[:, n]) for n in self.targets])
        """(R, K): indices of the sources, and whether each is a synapse or filled up."""
        flat = np.where(self.real, self.source, self.sources).ravel()
        self.by_source, self._of_source = _lists(
            [np.flatnonzero(flat == s) for s in range(self.sources)]
        )
        # Where each neuron's sum stands among the targets; the last is that of no synapses.
        self.place = np.full(self.neurons, len(self.targets))
        self.place[self.targets] = np.arange(len(self.targets))

    def pick(self, matrix: Tensor) -> Tensor:
        """(sources, N) → (R, K, 1)."""
        flat = ops.reshape(matrix, (-1,))
        return ops.take(flat, self.source * self.neurons + self.targets[:, None])[..., None]

    def at_sources(self, v: Tensor) -> Tensor:
        """v (sources, B) → v at each synapse, (R, K, B)."""
        return ops.take(v, self.source, axis=0)

    def receive(self, strengths: Strengths, v: Tensor) -> tuple[Tensor, Tensor]:
        """v (sources, B) → conductance and pull, (N, B) each."""
        return self.sums(strengths, self.activity(strengths, v)[1])

    def activity(self, strengths: Strengths, v: Tensor) -> tuple[Tensor, Tensor]:
        """v (sources, B) → v at each synapse and act, (R, K, B) each."""
        at = self.at_sources(v)
        return at, ops.sigmoid(at * strengths.slope - strengths.offset)

    def sums(self, strengths: Strengths, act: Tensor) -> tuple[Tensor, Tensor]:
        """act (R, K, B) → conductance and pull, (N, B) each."""
        weights = ops.concatenate([strengths.weight, strengths.pull], axis=-1)
        sums = ops.matmul(ops.swapaxes(weights, -1, -2), act)  # (R, 2, B)
        sums = ops.concatenate([sums, ops.zeros_like(sums[:1])], axis=0)
        sums = ops.take(sums, self.place, axis=0)
        return sums[:, 0], sums[:, 1]

    def gradient(
        self, strengths: Strengths, at: Tensor, act: Tensor, dconductance: Tensor, dpull: Tensor
    ) -> tuple[Tensor, Strengths]:
        """Gradients of v (sources, B) and of the strengths.

        Args:
            strengths: as in the forward.
            at: from `activity`.
            act: from `activity`.
            dconductance: gradient (N, B) of the conductance of `sums`.
            dpull: gradient (N, B) of the pull of `sums`.
        """
        weights = ops.concatenate([strengths.weight, strengths.pull], axis=-1)
        dsums = ops.take(ops.stack([dconductance, dpull], axis=1), self.targets, axis=0)
        dz = ops.matmul(weights, dsums) * (act * (1 - act))  # dsums (R, 2, B)
        of_weights = ops.matmul(act, ops.swapaxes(dsums, -1, -2))  # (R, K, 2)
        return (
            self._to_sources(dz * strengths.slope),
            Strengths(
                slope=ops.sum(dz * at, axis=-1, keepdims=True),
                offset=-ops.sum(dz, axis=-1, keepdims=True),
                weight=of_weights[..., :1],
                pull=of_weights[..., 1:],
            ),
        )

    def _to_sources(self, values: Tensor) -> Tensor:
        """(R, K, B) → sums (sources, B)."""
        flat = ops.reshape(values, (self.source.size, -1))
        picked = ops.take(flat, self.by_source, axis=0)
        return ops.sum(picked * ops.cast(self._of_source[..., None], values.dtype), axis=1)


def _lists(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of unequal lengths as one array of ints, filled up with 0, and where it is not."""
    longest = max([1, *map(len, rows)])
    real = np.array([np.arange(longest) < len(row) for row in rows]).reshape(-1, longest)
    filled = np.zeros(real.shape, dtype=np.int32)
    filled[real] = np.concatenate([*rows, np.zeros(0, int)])
    return filled, real
