"""Neural circuit policies: sensory -> inter -> command (recurrent) -> motor neurons.

Source: Lechner, Hasani et al. 2020, Nature Machine Intelligence, "Neural circuit policies enabling
auditable autonomy". The order of the random draws is that of ncps 1.0.1, so that a seed gives the
same circuit in both.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ncp_agents.validation import check_integer
from ncp_agents.wirings.base import SeededWiring, seed_or_new, sparsity

POLARITIES = (-1, 1)  # as many synapses excite as inhibit
MAX_SEED = 2**32 - 1  # limit of numpy.random.RandomState


class NCP(SeededWiring):
    """A circuit of three layers of neurons behind the inputs.

    Neuron ids run from motor (0 first) over command to inter; layers run the other way.
    No synapse exists before `build`.

    Args:
        inter_neurons: size of layer 0.
        command_neurons: size of layer 1, the only recurrent one.
        motor_neurons: M, size of layer 2.
        sensory_fanout: inter neurons that each input feeds.
        inter_fanout: command neurons that each inter neuron feeds.
        recurrent_command_synapses: draws of a command -> command synapse; a pair drawn twice is
            one synapse, with the later polarity.
        motor_fanin: command neurons that feed each motor neuron.
        seed: seed of the synapses and their polarities, below 2**32.

    A neuron that no draw reached receives synapses of its own, so none is unconnected.
    """

    def __init__(
        self,
        inter_neurons: int,
        command_neurons: int,
        motor_neurons: int,
        sensory_fanout: int,
        inter_fanout: int,
        recurrent_command_synapses: int,
        motor_fanin: int,
        seed: int | None = 22222,
    ):
        inter = check_integer("inter_neurons", inter_neurons, 1)
        command = check_integer("command_neurons", command_neurons, 1)
        motor = check_integer("motor_neurons", motor_neurons, 1)
        super().__init__(inter + command + motor)
        self.set_output_dim(motor)
        self._motor_neurons = list(range(motor))
        self._command_neurons = list(range(motor, motor + command))
        self._inter_neurons = list(range(motor + command, self.units))

        self._sensory_fanout = _fan("sensory_fanout", sensory_fanout, "inter", inter)
        self._inter_fanout = _fan("inter_fanout", inter_fanout, "command", command)
        self._motor_fanin = _fan("motor_fanin", motor_fanin, "command", command)
        self._recurrent_command_synapses = check_integer(
            "recurrent_command_synapses", recurrent_command_synapses, 0
        )
        self._seed = seed_or_new("seed", seed, MAX_SEED)

    @property
    def num_layers(self) -> int:
        """Three: inter, command and motor neurons."""
        return 3

    def get_neurons_of_layer(self, layer_id: int) -> list[int]:
        """Return the neuron ids of inter (0), command (1) or motor (2) neurons."""
        layer_id = check_integer("layer_id", layer_id, 0, 2)
        return list((self._inter_neurons, self._command_neurons, self._motor_neurons)[layer_id])

    def get_type_of_neuron(self, neuron_id: int) -> str:
        """Return "motor", "command" or "inter"."""
        if neuron_id < len(self._motor_neurons):
            return "motor"
        return "inter" if neuron_id >= self._inter_neurons[0] else "command"

    def _connect(self) -> None:
        rng = np.random.RandomState(self._seed)
        sensory = list(range(len(self._known_sensory_matrix())))
        inter, command, motor = self.layers
        _fan_out(rng, self.add_sensory_synapse, sensory, inter, self._sensory_fanout)
        # At most C (command neurons) of the inter neurons feed an unreached command neuron, though
        # there may be more of them: the draw order of ncps 1.0.1.
        _fan_out(rng, self.add_synapse, inter, command, self._inter_fanout, cap=len(command))
        for _ in range(self._recurrent_command_synapses):
            source, target = rng.choice(command), rng.choice(command)
            self.add_synapse(source, target, rng.choice(POLARITIES))
        # From the motor neurons to their sources, this is a fan-out backwards.
        _fan_out(rng, self._add_backwards, motor, command, self._motor_fanin)

    def _add_backwards(self, dest: int, src: int, polarity: int) -> None:
        self.add_synapse(src, dest, polarity)

    def _arguments(self) -> dict[str, Any]:
        return {
            "inter_neurons": len(self._inter_neurons),
            "command_neurons": len(self._command_neurons),
            "motor_neurons": len(self._motor_neurons),
            "sensory_fanout": self._sensory_fanout,
            "inter_fanout": self._inter_fanout,
            "recurrent_command_synapses": self._recurrent_command_synapses,
            "motor_fanin": self._motor_fanin,
            "seed": self._seed,
        }


class AutoNCP(NCP):
    """An NCP whose layer sizes and fan-outs follow from the number of units and outputs.

    Of the neurons that are not motor neurons, 40 % are command and 60 % inter neurons; each fan-out
    is the fraction 1 - sparsity_level of the layer it leads to.

    Args:
        units: N.
        output_size: M, less than N - 2; 0.3 N is a good choice.
        sparsity_level: 0.0 (dense) <= level < 1.0.
        seed: seed of the synapses and their polarities, below 2**32.
    """

    def __init__(
        self,
        units: int,
        output_size: int,
        sparsity_level: float = 0.5,
        seed: int | None = 22222,
    ):
        units = check_integer("units", units, 1)
        output_size = check_integer("output_size", output_size, 1)
        if output_size >= units - 2:
            raise ValueError(
                f"output_size is {output_size} and units is {units}, expected output_size below "
                f"units - 2 = {units - 2}; take at least {output_size + 3} units"
            )
        self._sparsity_level = sparsity(sparsity_level)
        density = 1.0 - self._sparsity_level
        command = max(int(0.4 * (units - output_size)), 1)
        inter = units - output_size - command
        super().__init__(
            inter_neurons=inter,
            command_neurons=command,
            motor_neurons=output_size,
            sensory_fanout=max(int(inter * density), 1),
            inter_fanout=max(int(command * density), 1),
            recurrent_command_synapses=max(int(command * density * 2), 1),
            motor_fanin=max(int(command * density), 1),
            seed=seed,
        )

    def _arguments(self) -> dict[str, Any]:
        return {
            "units": self.units,
            "output_size": len(self._motor_neurons),
            "sparsity_level": self._sparsity_level,
            "seed": self._seed,
        }


def _fan(name: str, value: Any, layer: str, size: int) -> int:
    fan = check_integer(name, value, 0)
    if fan > size:
        raise ValueError(f"{name} is {fan}, but there are only {size} {layer} neurons")
    return fan


def _fan_out(
    rng: np.random.RandomState,
    connect: Callable[[int, int, int], None],
    sources: list[int],
    targets: list[int],
    fanout: int,
    cap: int | None = None,
) -> None:
    """Connect each source to `fanout` targets, then the targets without a source.

    Each of those gets the mean fan-in of its layer, at least 1, at most `cap` (all sources).
    """
    unreached = set(targets)
    for source in sources:
        chosen = rng.choice(targets, size=fanout, replace=False)
        unreached.difference_update(chosen.tolist())
        for target, polarity in zip(chosen, rng.choice(POLARITIES, size=fanout), strict=True):
            connect(source, target, polarity)

    mean_fan_in = len(sources) * fanout // len(targets)
    fan_in = min(max(mean_fan_in, 1), cap or len(sources))
    for target in sorted(unreached):
        chosen = rng.choice(sources, size=fan_in, replace=False)
        for source, polarity in zip(chosen, rng.choice(POLARITIES, size=fan_in), strict=True):
            connect(source, target, polarity)
