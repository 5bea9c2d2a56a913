"""Layers of the `ncps` package (1.0.1), converted with their settings, wiring and weights.

The keys of the state dicts are the same, so where only a state dict is at hand, make the layer with
the same arguments and `load_state_dict` it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ncp_agents.torch.cfc import CfC
from ncp_agents.torch.ltc import LTC
from ncp_agents.wirings import KINDS, NCP, Wiring

ACTIVATIONS = {"LeCun": "lecun_tanh"} | {
    name: name.lower() for name in ("Tanh", "ReLU", "SiLU", "GELU")
}


def from_ncps(layer: nn.Module, *, ode_unfolds: int = 6, epsilon: float = 1e-8) -> CfC | LTC:
    """Return the layer that computes what an `ncps.torch.CfC` or `ncps.torch.LTC` computes.

    One thing differs: on a wiring with fewer motor neurons than its last layer has neurons, the
    output of ncps's CfC is the whole layer, here the motor neurons.

    Args:
        layer: its settings, wiring, weights, device and dtype are kept.
        ode_unfolds: of an LTC, which does not publish it.
        epsilon: likewise.

    Raises:
        ValueError: another kind of module, or an LTC with other `ode_unfolds` or `epsilon`.
    """
    kind = f"{type(layer).__module__}.{type(layer).__name__}"
    theirs: Any = layer
    if kind == "ncps.torch.cfc.CfC":
        ours = _cfc(theirs)
    elif kind == "ncps.torch.ltc.LTC":
        ours = _ltc(theirs, ode_unfolds, epsilon)
    else:
        raise ValueError(f"layer is a {kind}, expected ncps.torch.CfC or ncps.torch.LTC")
    ours.to(next(layer.parameters())).load_state_dict(layer.state_dict())  # its device and dtype
    learns = {name: parameter.requires_grad for name, parameter in layer.named_parameters()}
    for name, parameter in ours.named_parameters():
        parameter.requires_grad_(learns[name])
    ours.train(layer.training)
    if isinstance(ours, LTC):
        _check_step(ours, theirs)
    return ours


def _cfc(theirs: Any) -> CfC:
    wired = type(theirs.rnn_cell).__name__ == "WiredCfCCell"
    arguments: dict[str, Any] = {}
    cell = theirs.rnn_cell.layer_0 if wired else theirs.rnn_cell
    if not wired:
        backbone = list(theirs.rnn_cell.backbone or [])
        linear = [part for part in backbone if isinstance(part, nn.Linear)]
        dropout = [part.p for part in backbone if isinstance(part, nn.Dropout)]
        arguments = {
            "backbone_layers": len(linear),
            "backbone_units": linear[0].out_features if linear else 0,
            "backbone_dropout": dropout[0] if dropout else 0.0,
        }
        if linear:
            arguments["activation"] = ACTIVATIONS[type(backbone[1]).__name__]
    return CfC(
        theirs.input_size,
        _wiring(theirs.wiring_or_units) if wired else theirs.wiring_or_units,
        proj_size=theirs.proj_size,
        return_sequences=theirs.return_sequences,
        batch_first=theirs.batch_first,
        mixed_memory=theirs.use_mixed,
        mode=cell.mode,
        **arguments,
    )


def _ltc(theirs: Any, ode_unfolds: int, epsilon: float) -> LTC:
    mappings: dict[str, Any] = {}
    for name in ("input", "output"):
        kinds = {f"{name}_w": "linear", f"{name}_b": "affine"}
        known = [kind for key, kind in kinds.items() if hasattr(theirs.rnn_cell, key)]
        mappings[f"{name}_mapping"] = known[-1] if known else None
    units = theirs.wiring_or_units
    return LTC(
        theirs.input_size,
        _wiring(units) if hasattr(units, "build") else units,
        return_sequences=theirs.return_sequences,
        batch_first=theirs.batch_first,
        mixed_memory=theirs.use_mixed,
        ode_unfolds=ode_unfolds,
        epsilon=epsilon,
        implicit_param_constraints=isinstance(theirs.rnn_cell.make_positive_fn, nn.Softplus),
        **mappings,
    )


def _check_step(ours: LTC, theirs: Any) -> None:
    """Raise ValueError where a step of the cells differs, as with another number of unfolds."""
    like = ours.rnn_cell.any_parameter
    x, v = like.new_ones(1, ours.input_size), like.new_ones(1, ours.state_size)
    with torch.no_grad():
        states = [cell(x, v, 1.0)[1] for cell in (ours.rnn_cell, theirs.rnn_cell)]
    if not torch.allclose(*states, rtol=1e-3, atol=1e-4):
        raise ValueError(
            "the LTC computes another step than with "
            f"ode_unfolds={ours.rnn_cell.ode_unfolds} and epsilon={ours.rnn_cell.epsilon}; pass "
            "those that it was made with"
        )


def _wiring(theirs: Any) -> Wiring:
    """The same neurons in the same layers, with the synapses that theirs has now."""
    kind = type(theirs).__name__
    if kind == "NCP":  # its config lacks the seed; the synapses are copied below
        sizes = [len(theirs.get_neurons_of_layer(layer)) for layer in range(3)]
        ours: Wiring = NCP(*sizes, *[1] * 4)
    elif kind in KINDS:
        ours = KINDS[kind].from_config(theirs.get_config())
    else:
        ours = Wiring(theirs.units)
        ours.set_output_dim(theirs.output_dim or theirs.units)
    ours.build(theirs.input_dim)
    ours.adjacency_matrix[:] = theirs.adjacency_matrix
    assert ours.sensory_adjacency_matrix is not None  # built
    ours.sensory_adjacency_matrix[:] = theirs.sensory_adjacency_matrix
    return ours
