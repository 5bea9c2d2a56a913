"""Wirings of one layer: every synapse, or a random fraction of them."""

from typing import Any

import numpy as np

from ncp_agents.wirings.base import SeededWiring, seed_or_new, sparsity

POLARITIES = (-1, 1, 1)  # two synapses in three excite


class FullyConnected(SeededWiring):
    """Synapses from every neuron and every input to every neuron.

    Args:
        units: N.
        output_dim: M; the first M neurons are motor neurons. None: all N.
        erev_init_seed: seed of the polarities.
        self_connections: whether a neuron feeds itself.
    """

    def __init__(
        self,
        units: int,
        output_dim: int | None = None,
        erev_init_seed: int | None = 1111,
        self_connections: bool = True,
    ):
        super().__init__(units)
        self.set_output_dim(self.units if output_dim is None else output_dim)
        self.self_connections = bool(self_connections)
        self._erev_init_seed = seed_or_new("erev_init_seed", erev_init_seed)
        self._rng = np.random.default_rng(self._erev_init_seed)

        connected = np.ones((self.units, self.units), dtype=bool)
        if not self.self_connections:
            np.fill_diagonal(connected, False)
        self.adjacency_matrix[connected] = self._rng.choice(POLARITIES, size=connected.sum())

    def _connect(self) -> None:
        matrix = self._known_sensory_matrix()
        matrix[:] = self._rng.choice(POLARITIES, size=matrix.shape)

    def _arguments(self) -> dict[str, Any]:
        return {
            "units": self.units,
            "output_dim": self.output_dim,
            "erev_init_seed": self._erev_init_seed,
            "self_connections": self.self_connections,
        }


class Random(SeededWiring):
    """A random fraction of all possible synapses.

    Args:
        units: N.
        output_dim: M; the first M neurons are motor neurons. None: all N.
        sparsity_level: fraction of the synapses left out, 0.0 (dense) <= level < 1.0.
        random_seed: seed of the synapses and their polarities.
    """

    def __init__(
        self,
        units: int,
        output_dim: int | None = None,
        sparsity_level: float = 0.0,
        random_seed: int | None = 1111,
    ):
        super().__init__(units)
        self.set_output_dim(self.units if output_dim is None else output_dim)
        self.sparsity_level = sparsity(sparsity_level)
        self._random_seed = seed_or_new("random_seed", random_seed)
        self._rng = np.random.default_rng(self._random_seed)

        chosen = self._choose(self.adjacency_matrix)
        self.adjacency_matrix.flat[chosen] = self._rng.choice(POLARITIES, size=len(chosen))

    def _connect(self) -> None:
        matrix = self._known_sensory_matrix()
        chosen = self._choose(matrix)
        # Two draws a synapse, of which the second counts: ncps 1.0.1 does so, and a seed must
        # give the circuit here that it gave there.
        matrix.flat[chosen] = self._rng.choice(POLARITIES, size=(len(chosen), 2))[:, 1]

    def _choose(self, matrix: np.ndarray) -> np.ndarray:
        """Return flat positions, in the order sampled, of the synapses of `matrix`."""
        count = int(np.round(matrix.size * (1 - self.sparsity_level)))
        return self._rng.choice(matrix.size, size=count, replace=False)

    def _arguments(self) -> dict[str, Any]:
        return {
            "units": self.units,
            "output_dim": self.output_dim,
            "sparsity_level": self.sparsity_level,
            "random_seed": self._random_seed,
        }
