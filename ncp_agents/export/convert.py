"""CfC and LTC layers from one port to another, through one file.

The file is safetensors. Its tensors are the state dict of the torch layer, whose names are those of
`ncps` too; its metadata say under "layer" what the layer is: kind, sizes, wiring, settings.

Weights of ncps's own Keras port are not converted: its CfC takes no tanh of its two heads and so is
another function than the CfC of the paper, of ncps's torch port and of these.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args
from zipfile import BadZipFile

import numpy as np

from ncp_agents import registry
from ncp_agents.errors import UserError
from ncp_agents.files import atomic_write
from ncp_agents.layers.weights import checked, transposed
from ncp_agents.wirings import wiring_from_config

Port = Literal["torch", "keras", "mlx"]
NEUTRAL = {"fully_recurrent": True, "sparsity_mask": None, "go_backwards": False}
"""Options of Keras's layers alone, with the values that equal other ports' layers."""


def convert(source: Path, target: Path) -> None:
    """Write the circuit of one file into another.

    Args:
        source: `.safetensors` (`save`), `.keras` (a model of Keras), or a saved policy's folder or
            name.
        target: `.safetensors` or `.keras`.

    Raises:
        UserError: a file of another kind, or one that does not hold just one circuit.
    """
    if target.suffix not in (".safetensors", ".keras"):
        raise UserError(f"{target} ends in {target.suffix!r}, expected .safetensors or .keras")
    if ".keras" in (source.suffix, target.suffix) and find_spec("keras") is None:
        raise UserError(
            ".keras files need keras, which is missing; install it: pip install "
            "'ncp-agents[keras]', and TensorFlow, JAX or torch beside it"
        )
    if source.is_dir() or not (source.exists() or source.suffix):
        from ncp_agents.agents import saved_policy, zoo

        layer: Any = saved_policy.load(zoo.find(str(source))).network.circuit
    elif source.suffix == ".keras":
        layer = _circuit_of_model(source)
    else:
        layer = load(source, "keras" if target.suffix == ".keras" else "torch")
    if target.suffix == ".safetensors":
        save(layer, target)
    else:
        _save_model(make(describe(layer), weights_of(layer), "keras"), target)


def save(layer: Any, path: Path | str) -> None:
    """Write a CfC or LTC of any port, in single precision.

    Raises:
        UserError: another layer, or one of another precision.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    metadata = {"layer": json.dumps(describe(layer))}
    weights = {name: np.ascontiguousarray(w) for name, w in weights_of(layer).items()}
    for name, values in weights.items():
        if values.dtype != np.float32:
            raise UserError(f"{name} is {values.dtype}; save a copy of the layer in float32")
    with atomic_write(Path(path)) as temporary:
        try:
            save_file(weights, temporary, metadata)
        except SafetensorError as error:  # a full disk
            raise OSError(f"{path} could not be written: {error}") from None


def load(path: Path | str, port: Port) -> Any:
    """Return the layer of a file that `save` wrote, in any port; runs no code from the file.

    Raises:
        UserError: no such file, another or a damaged one.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise UserError(
            f"{path} is not a file; `ncp_agents.export.convert.save(layer, path)` writes one"
        )
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, AttributeError) as error:  # NumPy lacks some data types
        raise UserError(f"{path} is not a safetensors file of float32: {error}") from None
    if "layer" not in metadata:
        raise UserError(
            f"{path} has no metadata of its layer; make the layer with the settings that its "
            "weights were trained with, and use `set_weights`"
        )
    try:
        return make(json.loads(metadata["layer"]), weights, port)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, RecursionError, RuntimeError, MemoryError) as error:
        raise UserError(
            f"{path} does not describe a CfC or LTC layer ({type(error).__name__}: {error})"
        ) from None


def describe(layer: Any) -> dict[str, Any]:
    """Return what a layer of any port is, as plain data.

    {"kind": "CfC", "input_size": I, "units": N or a wiring's config, …}, the rest being arguments
    of the torch layer.

    Raises:
        UserError: another layer.
    """
    port = _port_of(layer)
    described = {
        "kind": type(layer).__name__,
        "input_size": layer.input_size,
        **layer.rnn_cell.spec.settings(),
        "mixed_memory": layer.use_mixed,
        "return_sequences": layer.return_sequences,
    }
    if port == "keras":
        config = layer.get_config()
        for name, value in NEUTRAL.items():
            if config.get(name, value) != value:
                raise UserError(f"no other port has a layer with {name}={config[name]}")
        return described
    described["batch_first"] = layer.batch_first
    if described["kind"] == "CfC":
        described["proj_size"] = layer.proj_size
    return described


def weights_of(layer: Any) -> dict[str, np.ndarray]:
    """Return the state dict that a layer of any port has, or would have, in torch.

    Raises:
        UserError: another layer, or weights of a type that NumPy lacks.
    """
    port = _port_of(layer)
    try:
        if port == "keras":
            from keras import ops

            values = {
                name: transposed(name, np.array(ops.convert_to_numpy(variable)))
                for name, variable in layer.named_weights().items()
            }
            return values | _masks(layer)
        if port == "mlx":
            from mlx.utils import tree_flatten

            return {name: np.array(value) for name, value in tree_flatten(layer.parameters())}
        # Copies: JAX would share torch's memory.
        return {name: value.numpy(force=True).copy() for name, value in layer.state_dict().items()}
    except (TypeError, RuntimeError) as error:  # NumPy has no bfloat16
        raise UserError(f"{error}; convert a copy of the layer in float32") from None


def set_weights(layer: Any, weights: Mapping[str, np.ndarray]) -> None:
    """Set the weights of a layer of any port to those that `weights_of` took from one like it.

    Args:
        layer: of the same kind, settings and wiring as the one that the weights were taken from.
        weights: a state dict of torch.

    Raises:
        UserError: names or shapes are not the layer's.
    """
    port = _port_of(layer)
    if port == "keras":
        variables = layer.named_weights()
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
        values = checked(weights, shapes, _masks(layer))
        for name, variable in variables.items():
            variable.assign(values[name])
        return
    try:
        if port == "mlx":
            import mlx.core as mx

            layer.load_weights([(name, mx.array(value)) for name, value in weights.items()])
        else:
            import torch

            layer.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the weights are not of this layer: {' '.join(str(error).split())}"
        ) from None


def make(description: Mapping[str, Any], weights: Mapping[str, np.ndarray], port: Port) -> Any:
    """Return the layer that `describe` described, with the weights of `weights_of`, in any port.

    Raises:
        UserError: weights of another layer.
        KeyError, TypeError, ValueError: a description that is none.
    """
    package = import_module(f"ncp_agents.{registry.get('port', port, get_args(Port))}")
    arguments = dict(description)
    if isinstance(arguments["units"], Mapping):
        arguments["units"] = wiring_from_config(arguments["units"])
    kinds = {"CfC": package.CfC, "LTC": package.LTC}
    kind = registry.get("layer", arguments.pop("kind"), kinds)
    if port == "keras":
        if arguments.pop("proj_size", None) is not None:
            raise UserError("layers of Keras have no proj_size; add a Dense layer")
        if not arguments.pop("batch_first", True):
            raise UserError("layers of Keras are never time-major; transpose to (B, T, I) before")
        inputs = arguments.pop("input_size")
        layer = kind(**{"return_sequences": True, **arguments})
        layer.build((None, None, inputs))
    else:
        layer = kind(**arguments)
    set_weights(layer, weights)
    return layer


def _port_of(layer: Any) -> str:
    package, *name = type(layer).__module__.split(".")
    known = package == "ncp_agents" and name[0] in get_args(Port)
    if not known or type(layer).__name__ not in ("CfC", "LTC"):
        kind = f"{type(layer).__module__}.{type(layer).__name__}"
        raise UserError(f"layer is a {kind}, expected a CfC or LTC of ncp_agents")
    if name[0] == "keras" and not layer.built:
        raise UserError("the layer is not built yet; call it, or layer.build((None, None, inputs))")
    return name[0]


def _masks(layer: Any) -> dict[str, np.ndarray]:
    """What a layer's state dict holds besides its parameters."""
    return {f"rnn_cell.{name}": mask for name, mask in layer.rnn_cell.spec.masks().items()}


def _circuit_of_model(path: Path) -> Any:
    """The one CfC or LTC in a model of Keras."""
    from ncp_agents.keras import CfC, LTC  # registers them, so that Keras finds them  # isort: skip
    import keras

    if not path.is_file():
        raise UserError(f"{path} is not a file")
    try:
        model = keras.saving.load_model(path, compile=False)  # safe mode: runs no code
    except (KeyError, ValueError, TypeError, OSError, BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read as a model of Keras: {error}") from None
    layers = getattr(model, "layers", [model])
    circuits = [layer for layer in layers if isinstance(layer, (CfC, LTC))]
    if len(circuits) != 1:
        raise UserError(f"{path} holds {len(circuits)} CfC or LTC layers, expected one")
    return circuits[0]


def _save_model(layer: Any, path: Path) -> None:
    import keras

    inputs = keras.Input((None, layer.input_size))
    with atomic_write(path) as temporary:
        keras.Model(inputs, layer(inputs)).save(os.fspath(temporary))
