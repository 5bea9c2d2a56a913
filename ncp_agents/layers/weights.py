"""Names and shapes of a layer's weights in each port; NumPy only.

The torch port's state dict, whose names are those of ncps, is what ports exchange; MLX has the same
names and shapes. In Keras a linear map is a `kernel` (inputs, outputs), in torch a `weight`
(outputs, inputs), and the layers of a backbone are counted, in torch they have places.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ncp_agents.errors import UserError
from ncp_agents.layers.spec import CfCSpec, LTCSpec, WiredCfCSpec

Spec = CfCSpec | WiredCfCSpec | LTCSpec

MEMORY = {
    "lstm.input_map.weight": "input_kernel",
    "lstm.input_map.bias": "input_bias",
    "lstm.recurrent_map.weight": "recurrent_kernel",
}
"""Of the memory cell: torch's name → Keras's."""


def cell_names(spec: Spec) -> dict[str, str]:
    """Map torch's names of a cell's parameters to Keras's, "layer_<k>/<name>" if wired."""
    if isinstance(spec, LTCSpec):
        return {name: name for name in spec.parameters()}
    if isinstance(spec, WiredCfCSpec):
        return {
            f"layer_{k}.{name}": f"layer_{k}/{other}"
            for k, cell in enumerate(spec.cells())
            for name, other in cell_names(cell).items()
        }
    linears = {f"backbone.{place}": f"backbone_{k}" for k, place in enumerate(spec.backbone)}
    linears |= {head: head for head in spec.heads}
    names = {f"{name}.weight": f"{other}_kernel" for name, other in linears.items()}
    names |= {f"{name}.bias": f"{other}_bias" for name, other in linears.items()}
    return names | ({"w_tau": "w_tau", "A": "A"} if spec.mode == "pure" else {})


def transposed(name: str, values: np.ndarray) -> np.ndarray:
    """A parameter by its torch name, turned from Keras's shape to torch's or back."""
    return values.T if name.endswith(".weight") else values


def checked(
    weights: Mapping[str, np.ndarray],
    shapes: Mapping[str, tuple[int, ...]],
    masks: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Return a torch state dict's parameters in Keras's shapes.

    Args:
        weights: the state dict.
        shapes: what the layer has, by torch's names in Keras's shapes.
        masks: the layer's own, which those of `weights` must equal.

    Raises:
        UserError: names, shapes or masks are not the layer's.
    """
    wrong = [f"no {name}" for name in sorted({*shapes, *masks} - {*weights})]
    wrong += [f"unknown {name}" for name in sorted({*weights} - {*shapes, *masks})]
    if wrong:
        raise UserError(
            f"the weights are not of this layer: {', '.join(wrong)}; make the layer with the "
            "settings that they were trained with"
        )
    values = {name: transposed(name, np.asarray(weights[name])) for name in shapes}
    for name, shape in shapes.items():
        if values[name].shape != shape:
            raise UserError(f"{name} has shape {values[name].shape}, expected {shape}")
    for name, mask in masks.items():
        if not np.array_equal(mask, weights[name]):
            raise UserError(f"{name} has other synapses than the layer's wiring")
    return values
