"""Layers of the `ncps` package (1.0.1), taken over with their settings, wiring and weights.

The keys of the state dicts are the same, so where only a state dict is at hand, make the layer with
the same arguments and `load_state_dict` it.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from ncp_agents.torch.cfc import CfC
from ncp_agents.torch.ltc import LTC
from ncp_agents.wirings import NCP, AutoNCP, FullyConnected, Random, Wiring

ACTIVATIONS = {"LeCun": "lecun_tanh"} | {
    name: name.lower() for name in ("Tanh", "ReLU", "SiLU", "GELU")
}


def from_ncps(layer: nn.Module) -> CfC | LTC:
    """Our layer that computes what an `ncps.torch.CfC` or `ncps.torch.LTC` computes.

    One thing differs: on a wiring with fewer motor neurons than its last layer has neurons, ncps's
    CfC gives out the whole layer, ours the motor neurons.

    Raises:
        ValueError: another kind of module.
    """
    kind = f"{type(layer).__module__}.{type(layer).__name__}"
    theirs: Any = layer
    if kind == "ncps.torch.cfc.CfC":
        ours = _cfc(theirs)
    elif kind == "ncps.torch.ltc.LTC":
        ours = _ltc(theirs)
    else:
        raise ValueError(f"layer is a {kind}, expected ncps.torch.CfC or ncps.torch.LTC")
    ours.to(next(layer.parameters())).load_state_dict(layer.state_dict())  # its device and dtype
    learns = {name: parameter.requires_grad for name, parameter in layer.named_parameters()}
    for name, parameter in ours.named_parameters():
        parameter.requires_grad_(learns[name])
    return ours.train(layer.training)


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


def _ltc(theirs: Any) -> LTC:
    cell = theirs.rnn_cell
    return LTC(
        theirs.input_size,
        _wiring(theirs._wiring),
        return_sequences=theirs.return_sequences,
        batch_first=theirs.batch_first,
        mixed_memory=theirs.use_mixed,
        input_mapping=cell._input_mapping,
        output_mapping=cell._output_mapping,
        ode_unfolds=cell._ode_unfolds,
        epsilon=cell._epsilon,
        implicit_param_constraints=cell._implicit_param_constraints,
    )


def _wiring(theirs: Any) -> Wiring:
    """The same neurons in the same layers, with the synapses that theirs has now."""
    units, motor = theirs.units, theirs.output_dim
    kind = type(theirs).__name__
    if kind == "AutoNCP":
        ours = AutoNCP(units, theirs._output_size, theirs._sparsity_level, theirs._seed)
    elif kind == "NCP":
        # Theirs forgets its seed; the synapses are copied below.
        ours = NCP(
            theirs._num_inter_neurons,
            theirs._num_command_neurons,
            theirs._num_motor_neurons,
            theirs._sensory_fanout,
            theirs._inter_fanout,
            theirs._recurrent_command_synapses,
            theirs._motor_fanin,
        )
    elif kind == "Random":
        ours = Random(units, motor, theirs.sparsity_level, theirs._random_seed)
    elif kind == "FullyConnected":
        ours = FullyConnected(units, motor, theirs._erev_init_seed, theirs.self_connections)
    else:
        ours = Wiring(units)
        ours.set_output_dim(motor or units)
    ours.build(cast(int, theirs.input_dim))
    ours.adjacency_matrix[:] = theirs.adjacency_matrix
    assert ours.sensory_adjacency_matrix is not None  # built
    ours.sensory_adjacency_matrix[:] = theirs.sensory_adjacency_matrix
    return ours
