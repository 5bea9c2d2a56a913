"""What every wiring has: adjacency, polarity, layers, and a config that round-trips."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ncp_agents import registry
from ncp_agents.validation import check_integer

if TYPE_CHECKING:
    import networkx
    from matplotlib.axes import Axes


def sparsity(value: Any) -> float:
    """Return `value` as a plain float in [0, 1), the fraction of possible synapses left out."""
    try:
        level = float(value)
    except (TypeError, ValueError):
        level = float("nan")
    if not 0.0 <= level < 1.0:
        raise ValueError(
            f"sparsity_level is {value!r}, expected 0.0 (dense) up to, but below, 1.0 (no synapses)"
        )
    return level


def seed_or_new(name: str, seed: Any, high: int | None = None) -> int:
    """Return `seed` as a plain int; for None a fresh one, so that a config can repeat it."""
    if seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    return check_integer(name, seed, 0, high)


class Wiring:
    """Synapses from inputs and neurons to neurons, with their signs.

    Axes: I inputs, N neurons. Row = source, column = target; entries are +1 (excitatory),
    -1 (inhibitory) or 0 (no synapse).

    A plain `Wiring` starts without synapses; add them one by one. I is known, and sensory
    synapses exist, once the wiring is built.

    Attributes:
        units: N.
        input_dim: I, or None until built.
        output_dim: M, the number of motor neurons, or None until set.
        adjacency_matrix: (N, N) int32.
        sensory_adjacency_matrix: (I, N) int32, or None until built.
    """

    def __init__(self, units: int):
        self.units = check_integer("units", units, 1)
        self.adjacency_matrix = np.zeros((self.units, self.units), dtype=np.int32)
        self.sensory_adjacency_matrix: np.ndarray | None = None
        self.input_dim: int | None = None
        self.output_dim: int | None = None

    @property
    def num_layers(self) -> int:
        """Number of layers of neurons."""
        return 1

    def get_neurons_of_layer(self, layer_id: int) -> list[int]:
        """Neuron ids of one layer; 0 is the layer that the inputs feed."""
        check_integer("layer_id", layer_id, 0, self.num_layers - 1)
        return list(range(self.units))

    @property
    def layers(self) -> list[list[int]]:
        """Neuron ids of every layer, from the inputs to the motor neurons."""
        return [self.get_neurons_of_layer(i) for i in range(self.num_layers)]

    def get_type_of_neuron(self, neuron_id: int) -> str:
        """Return "motor", "inter", or in some wirings "command"."""
        return "motor" if neuron_id < self._known_output_dim() else "inter"

    def is_built(self) -> bool:
        """Whether the number of inputs is known, and sensory synapses exist."""
        return self.input_dim is not None

    def build(self, input_dim: int) -> None:
        """Fix I and create the sensory synapses; a second build for the same I does nothing.

        Raises:
            ValueError: the wiring is already built for another I.
        """
        self.set_input_dim(input_dim)

    def set_input_dim(self, input_dim: int) -> None:
        """Do the same as `build`."""
        input_dim = check_integer("input_dim", input_dim, 1)
        if self.input_dim is None:
            self.input_dim = input_dim
            self.sensory_adjacency_matrix = np.zeros((input_dim, self.units), dtype=np.int32)
            self._connect()
        elif self.input_dim != input_dim:
            raise ValueError(
                f"this wiring is built for {self.input_dim} inputs and cannot be rebuilt for "
                f"{input_dim}; create a new wiring for inputs of another size"
            )

    def _connect(self) -> None:
        """Sample the synapses that depend on I; runs once."""

    def set_output_dim(self, output_dim: int) -> None:
        """Set the number of motor neurons, which are the first ones."""
        self.output_dim = check_integer("output_dim", output_dim, 1, self.units)

    def erev_initializer(self, shape: Any = None, dtype: Any = None) -> np.ndarray:
        """Return a copy of the (N, N) polarities; shape and dtype, as of Keras, are ignored."""
        return self.adjacency_matrix.copy()

    def sensory_erev_initializer(self, shape: Any = None, dtype: Any = None) -> np.ndarray:
        """Return a copy of the (I, N) polarities; shape and dtype, as of Keras, are ignored."""
        return self._known_sensory_matrix().copy()

    def add_synapse(self, src: int, dest: int, polarity: int) -> None:
        """Connect neuron src to neuron dest; polarity is +1 (excitatory) or -1 (inhibitory)."""
        src = check_integer("src", src, 0, self.units - 1)
        dest = check_integer("dest", dest, 0, self.units - 1)
        self.adjacency_matrix[src, dest] = _sign(polarity)

    def add_sensory_synapse(self, src: int, dest: int, polarity: int) -> None:
        """Connect input src to neuron dest; the wiring must be built."""
        matrix = self._known_sensory_matrix()
        src = check_integer("src", src, 0, len(matrix) - 1)
        dest = check_integer("dest", dest, 0, self.units - 1)
        matrix[src, dest] = _sign(polarity)

    @property
    def synapse_count(self) -> int:
        """Synapses between neurons."""
        return int(np.count_nonzero(self.adjacency_matrix))

    @property
    def sensory_synapse_count(self) -> int:
        """Synapses from inputs to neurons."""
        return int(np.count_nonzero(self._known_sensory_matrix()))

    def get_graph(self, include_sensory_neurons: bool = True) -> "networkx.DiGraph":
        """Return the circuit as a graph: nodes carry `neuron_type`, edges `polarity`.

        Nodes are called "neuron_<id>" and "sensory_<id>"; the wiring must be built.
        """
        import networkx  # takes longer to import than this whole subpackage

        sensory = self._known_sensory_matrix()
        graph = networkx.DiGraph()
        for neuron in range(self.units):
            graph.add_node(f"neuron_{neuron}", neuron_type=self.get_type_of_neuron(neuron))
        sources = [("neuron", self.adjacency_matrix)]
        if include_sensory_neurons:
            for i in range(len(sensory)):
                graph.add_node(f"sensory_{i}", neuron_type="sensory")
            sources.insert(0, ("sensory", sensory))
        for prefix, matrix in sources:
            for src, dest in np.argwhere(matrix):
                polarity = "excitatory" if matrix[src, dest] > 0 else "inhibitory"
                graph.add_edge(f"{prefix}_{src}", f"neuron_{dest}", polarity=polarity)
        return graph

    def draw(self, axes: "Axes | None" = None, *, labels: bool | None = None) -> "Axes":
        """Draw the built wiring, see `ncp_agents.wirings.draw.draw`."""
        from ncp_agents.wirings.draw import draw

        return draw(self, axes, labels=labels)

    def get_config(self) -> dict[str, Any]:
        """Return plain ints and lists from which `from_config` makes the same wiring."""
        config: dict[str, Any] = {"units": self.units}
        config |= {
            key: getattr(self, key)
            for key in ("input_dim", "output_dim")
            if getattr(self, key) is not None
        }
        return config | self._matrices()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the wiring that `get_config` described.

        Raises:
            ValueError: a key is unknown or missing, or a value is out of its limits.
        """
        parameters = inspect.signature(cls).parameters
        state_keys = ("input_dim", "adjacency_matrix", "sensory_adjacency_matrix")
        if "output_dim" not in parameters:
            state_keys += ("output_dim",)
        for key in config:
            registry.get(f"{cls.__name__} key", key, [*parameters, *state_keys])
        missing = [
            name
            for name, parameter in parameters.items()
            if parameter.default is parameter.empty and name not in config
        ]
        if missing:
            raise ValueError(f"the config of {cls.__name__} lacks {', '.join(missing)}")

        wiring = cls(**{key: value for key, value in config.items() if key in parameters})
        state = {key: config[key] for key in state_keys if config.get(key) is not None}
        if "output_dim" in state:
            wiring.set_output_dim(state["output_dim"])
        if "input_dim" in state:
            wiring.build(state["input_dim"])
        if "adjacency_matrix" in state:
            wiring.adjacency_matrix = _matrix(
                "adjacency_matrix", state["adjacency_matrix"], wiring.units, wiring.units
            )
        if "sensory_adjacency_matrix" in state:
            if wiring.input_dim is None:
                raise ValueError("sensory_adjacency_matrix is given without input_dim; give both")
            wiring.sensory_adjacency_matrix = _matrix(
                "sensory_adjacency_matrix",
                state["sensory_adjacency_matrix"],
                wiring.input_dim,
                wiring.units,
            )
        return wiring

    def _matrices(self) -> dict[str, list[list[int]]]:
        matrices = {"adjacency_matrix": self.adjacency_matrix.tolist()}
        if self.sensory_adjacency_matrix is not None:
            matrices["sensory_adjacency_matrix"] = self.sensory_adjacency_matrix.tolist()
        return matrices

    def _known_sensory_matrix(self) -> np.ndarray:
        if self.sensory_adjacency_matrix is None:
            raise ValueError(
                "this wiring has no inputs yet; call build(input_dim) or give it to a layer first"
            )
        return self.sensory_adjacency_matrix

    def _known_output_dim(self) -> int:
        if self.output_dim is None:
            raise ValueError("this wiring has no outputs yet; call set_output_dim(output_dim)")
        return self.output_dim

    def _arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"units": self.units, "output_dim": self.output_dim}

    def __repr__(self) -> str:
        described = self._arguments() | {"input_dim": self.input_dim}
        listed = ", ".join(f"{k}={v}" for k, v in described.items() if v is not None)
        return f"<{type(self).__name__} {listed}, {self.synapse_count} synapses>"


class SeededWiring(Wiring):
    """A wiring that its constructor's arguments, a seed among them, determine.

    Its config holds those arguments and, once built, `input_dim`. The matrices join them only if
    the synapses were edited, and `output_dim` only if another was set, since then the arguments no
    longer determine the wiring.
    """

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, and what was changed since."""
        config = self._arguments()
        if self.input_dim is not None:
            config["input_dim"] = self.input_dim
        as_drawn = type(self).from_config(config)
        if as_drawn.output_dim != self.output_dim:
            config["output_dim"] = self.output_dim
        return config if as_drawn._matrices() == self._matrices() else config | self._matrices()


def _sign(polarity: int) -> int:
    if polarity not in (-1, 1):
        raise ValueError(f"polarity is {polarity!r}, expected +1 (excitatory) or -1 (inhibitory)")
    return int(polarity)


def _matrix(name: str, entries: Any, rows: int, columns: int) -> np.ndarray:
    """Entries read from a config as (rows, columns) int32 of -1, 0 and 1."""
    matrix = np.asarray(entries)
    if matrix.shape != (rows, columns):
        raise ValueError(f"{name} has shape {matrix.shape}, expected {(rows, columns)}")
    if not np.isin(matrix, (-1, 0, 1)).all():
        raise ValueError(f"{name} holds other entries than -1, 0 and 1")
    return matrix.astype(np.int32)
