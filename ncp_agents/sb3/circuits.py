"""A circuit from plain data, as recipes, YAML files and `policy_kwargs` have it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from ncp_agents import registry
from ncp_agents.sb3.lstm import LSTMCircuit
from ncp_agents.torch import LTC, CfC
from ncp_agents.torch.sequence_layer import SequenceLayer
from ncp_agents.wirings import Wiring, wiring_from_config

CELLS: dict[str, type[SequenceLayer] | type[LSTMCircuit]] = {
    "cfc": CfC,
    "ltc": LTC,
    "lstm": LSTMCircuit,
}

WiringLike = Wiring | dict[str, Any] | int
"""A wiring, its config such as {"kind": "AutoNCP", "units": 64, "output_size": 16}, or the number
of neurons of a dense circuit."""


def make_circuit(
    input_size: int, wiring: WiringLike, cell: str = "cfc", **kwargs: Any
) -> SequenceLayer | LSTMCircuit:
    """Return a circuit that reads `input_size` features.

    A dense CfC circuit has no backbone unless `kwargs`, the layer's own arguments, ask for one.
    A given `Wiring` is left as it is: the circuit builds a copy.

    Raises:
        ValueError: unknown names; a read-out, which would never be used or trained.
    """
    layer = registry.get("cell", cell, CELLS)
    for name in kwargs.keys() & {"proj_size", "return_sequences", "batch_first"}:
        raise ValueError(
            f"circuit_kwargs has {name}={kwargs[name]!r}, expected none: the policy reads the "
            "neurons themselves, step by step; net_arch adds layers after them"
        )
    if isinstance(wiring, int):
        if layer is CfC:
            kwargs = {"backbone_layers": 0, **kwargs}
        return layer(input_size, wiring, **kwargs)
    own = deepcopy(wiring) if isinstance(wiring, Wiring) else wiring_from_config(wiring)
    return layer(input_size, own, **kwargs)
