"""Which synapses exist, and what they add up to: the sums of an LTC, and their gradients.

Synapses are listed by target, (R, K): R targets that receive any, K the most that one receives;
shorter lists are filled up with synapses of weight 0. A second list, by source, turns the sum over
a source's synapses, which the gradient needs, into a look-up as well: no scattered addition.

Axes: B batch, N neurons, R targets, K synapses a target.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ncp_agents.keras.ops import Tensor, ops


class Strengths(NamedTuple):
    """act = sigmoid(slope * v[source] - offset); conductance += weight * act, pull += pull * act.

    (R, K) each; pull is weight * reversal potential.
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
        """(sources, N) → (R, K)."""
        flat = ops.reshape(matrix, (-1,))
        return ops.take(flat, self.source * self.neurons + self.targets[:, None])

    def at_sources(self, v: Tensor) -> Tensor:
        """v (B, sources) → v at each synapse, (B, R, K)."""
        picked = ops.take(v, self.source.ravel(), axis=1)
        return ops.reshape(picked, (-1, *self.source.shape))

    def receive(self, strengths: Strengths, v: Tensor) -> tuple[Tensor, Tensor]:
        """v (B, sources) → conductance and pull, (B, N) each."""
        return self.sums(strengths, self.activity(strengths, v)[1])

    def activity(self, strengths: Strengths, v: Tensor) -> tuple[Tensor, Tensor]:
        """v (B, sources) → v at each synapse and act, (B, R, K) each."""
        at = self.at_sources(v)
        return at, ops.sigmoid(at * strengths.slope - strengths.offset)

    def sums(self, strengths: Strengths, act: Tensor) -> tuple[Tensor, Tensor]:
        """act (B, R, K) → conductance and pull, (B, N) each."""
        return self._to_targets(act * strengths.weight), self._to_targets(act * strengths.pull)

    def gradient(
        self, strengths: Strengths, at: Tensor, act: Tensor, dconductance: Tensor, dpull: Tensor
    ) -> tuple[Tensor, Strengths]:
        """From `activity` and the gradients (B, N) of `sums` → those of v (B, sources) and of the
        strengths."""
        dconductance, dpull = (
            ops.take(values, self.targets, axis=1)[..., None] for values in (dconductance, dpull)
        )
        dz = (dconductance * strengths.weight + dpull * strengths.pull) * act * (1 - act)
        of_strengths = dz * at, -dz, dconductance * act, dpull * act
        return (
            self._to_sources(dz * strengths.slope),
            Strengths(*(ops.sum(values, axis=0) for values in of_strengths)),
        )

    def _to_targets(self, values: Tensor) -> Tensor:
        """(B, R, K) → sums (B, N)."""
        sums = ops.sum(values, axis=-1)
        none = ops.zeros_like(sums[:, :1])
        return ops.take(ops.concatenate([sums, none], axis=1), self.place, axis=1)

    def _to_sources(self, values: Tensor) -> Tensor:
        """(B, R, K) → sums (B, sources)."""
        flat = ops.reshape(values, (-1, self.source.size))
        picked = ops.reshape(
            ops.take(flat, self.by_source.ravel(), axis=1), (-1, *self.by_source.shape)
        )
        return ops.sum(picked * ops.cast(self._of_source, values.dtype), axis=-1)


def _lists(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of unequal lengths as one array of ints, filled up with 0, and where it is not."""
    longest = max([1, *map(len, rows)])
    real = np.array([np.arange(longest) < len(row) for row in rows]).reshape(-1, longest)
    filled = np.zeros(real.shape, dtype=np.int32)
    filled[real] = np.concatenate([*rows, np.zeros(0, int)])
    return filled, real
