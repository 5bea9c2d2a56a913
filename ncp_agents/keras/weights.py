"""A layer's weights under the names and in the shapes of the torch port, and the layer's settings.

Kernels of Keras are (inputs, outputs), torch's `weight`s (outputs, inputs).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ncp_agents import registry
from ncp_agents.errors import UserError
from ncp_agents.keras.cfc import CfC
from ncp_agents.keras.ltc import LTC
from ncp_agents.keras.ops import ops
from ncp_agents.wirings import wiring_from_config

KINDS = {"CfC": CfC, "LTC": LTC}


def to_torch(layer: CfC | LTC) -> dict[str, np.ndarray]:
    """The state dict that the torch port's layer would have."""
    _check_built(layer)
    named = {
        name: _transposed(name, ops.convert_to_numpy(variable.value)).copy()
        for name, variable in layer.torch_names().items()
    }
    return named | layer.torch_buffers()


def from_torch(layer: CfC | LTC, weights: Mapping[str, np.ndarray]) -> None:
    """Takes over the state dict of a torch layer of the same kind, settings and wiring.

    Raises:
        UserError: names or shapes are not the layer's, or the synapses are not its wiring's.
    """
    _check_built(layer)
    variables, buffers = layer.torch_names(), layer.torch_buffers()
    missing, unknown = {*variables, *buffers} - {*weights}, {*weights} - {*variables, *buffers}
    if missing or unknown:
        wrong = [*(f"no {name}" for name in missing), *(f"unknown {name}" for name in unknown)]
        raise UserError(
            f"the weights are not of this {type(layer).__name__}: {', '.join(sorted(wrong))}; make "
            "the layer with the settings that they were trained with"
        )
    values = {name: _transposed(name, np.asarray(weights[name])) for name in variables}
    for name, variable in variables.items():
        if values[name].shape != tuple(variable.shape):
            raise UserError(
                f"{name} has shape {values[name].shape}, expected {tuple(variable.shape)}"
            )
    for name, mask in buffers.items():
        if not np.array_equal(mask, weights[name]):
            raise UserError(f"{name} holds other synapses than the layer's wiring")
    for name, variable in variables.items():
        variable.assign(values[name])


def describe(layer: CfC | LTC, settings: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """{"kind": "CfC", "input_size": I, "units": N or a wiring's config, …} for `make`.

    Args:
        layer: built.
        settings: names of the arguments to tell of a "CfC", an "LTC" and, besides, a "dense CfC".
    """
    _check_built(layer)
    kind, config = type(layer).__name__, layer.get_config()
    plain_values = {"fully_recurrent": True, "sparsity_mask": None, "go_backwards": False}
    for name, plain in plain_values.items():
        if config.get(name, plain) != plain:
            raise UserError(f"no other port has a layer with {name}={config[name]}")
    names = settings[kind]
    if kind == "CfC" and isinstance(config["units"], int):
        names += settings["dense CfC"]
    names = ("units", "mixed_memory", "return_sequences", *names)
    shared = {name: config[name] for name in names}
    return {"kind": kind, "input_size": layer.input_size, **shared}


def make(description: Mapping[str, Any]) -> CfC | LTC:
    """The built layer that `describe`, of any port, described."""
    arguments = dict(description)
    kind, inputs = arguments.pop("kind"), arguments.pop("input_size")
    if arguments.pop("proj_size", None) is not None:
        raise UserError("the layer has a proj_size, which layers of Keras lack; add a Dense layer")
    if not arguments.pop("batch_first", True):
        raise UserError("the layer is time-major, as layers of Keras never are; transpose before")
    if isinstance(arguments["units"], Mapping):
        arguments["units"] = wiring_from_config(arguments["units"])
    layer = registry.get("layer", kind, KINDS)(**{"return_sequences": True, **arguments})
    layer.build((None, None, inputs))
    return layer


def _check_built(layer: CfC | LTC) -> None:
    if not layer.built:
        raise UserError("the layer is not built yet; call it, or layer.build((None, None, inputs))")


def _transposed(name: str, values: np.ndarray) -> np.ndarray:
    return values.T if name.endswith(".weight") else values
