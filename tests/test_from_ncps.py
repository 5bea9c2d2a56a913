"""Layers taken over from ncps compute what they computed."""

import ncps.torch
import ncps.wirings
import numpy as np
import pytest
import torch

from ncp_agents.torch.from_ncps import from_ncps

I, N = 5, 14  # noqa: E741


def theirs():
    yield ncps.torch.CfC(I, N)
    yield ncps.torch.CfC(I, np.int64(N))
    yield ncps.torch.CfC(I, N, mode="pure", backbone_layers=3, backbone_units=7, activation="gelu")
    yield ncps.torch.CfC(I, N, backbone_layers=0, backbone_units=0, batch_first=False)
    yield ncps.torch.CfC(I, N, proj_size=3, mixed_memory=True, return_sequences=False)
    yield ncps.torch.CfC(I, N, backbone_layers=2, backbone_dropout=0.1, activation="relu")
    yield ncps.torch.CfC(I, ncps.wirings.AutoNCP(N, 4, seed=7), mode="no_gate")
    yield ncps.torch.CfC(I, ncps.wirings.NCP(6, 5, 3, 2, 3, 4, 2, seed=3), mixed_memory=True)
    yield ncps.torch.LTC(I, N, ode_unfolds=3)
    yield ncps.torch.LTC(I, ncps.wirings.AutoNCP(N, 4), input_mapping="linear")
    yield ncps.torch.LTC(I, ncps.wirings.Random(N, 4, 0.5), output_mapping=None)
    yield ncps.torch.LTC(I, ncps.wirings.FullyConnected(N, 4), mixed_memory=True)


@pytest.mark.parametrize("index", range(len([*theirs()])))
def test_same_numbers(index):
    torch.manual_seed(index)
    layer = list(theirs())[index].eval()
    ours = from_ncps(layer, ode_unfolds=3 if index == 8 else 6)
    x = torch.randn(3, 6, I)
    expected, state = layer(x)
    outputs, last = ours(x)
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(last, state, atol=1e-5, rtol=1e-5)
    assert ours.training == layer.training


def test_the_dtype_comes_along():
    layer = ncps.torch.LTC(I, N).double()
    ours = from_ncps(layer)
    assert all(torch.equal(p, layer.state_dict()[name]) for name, p in ours.named_parameters())
    assert ours.rnn_cell.w.dtype == torch.float64


def test_frozen_weights_stay_frozen():
    layer = ncps.torch.CfC(I, N)
    layer.rnn_cell.ff1.requires_grad_(False)
    ours = dict(from_ncps(layer).named_parameters())
    frozen = {name for name, parameter in ours.items() if not parameter.requires_grad}
    assert frozen == {"rnn_cell.ff1.weight", "rnn_cell.ff1.bias"}


def test_synapses_added_by_hand_come_along():
    wiring = ncps.wirings.NCP(6, 5, 3, 2, 3, 4, 2)
    wiring.build(I)
    wiring.add_synapse(3, 4, -1)
    ours = from_ncps(ncps.torch.LTC(I, wiring))
    assert (ours.wiring.adjacency_matrix == wiring.adjacency_matrix).all()


def test_other_modules_and_other_unfolds_are_refused():
    with pytest.raises(ValueError, match="LSTM"):
        from_ncps(torch.nn.LSTM(2, 3))
    with pytest.raises(ValueError, match="ode_unfolds=6"):
        from_ncps(ncps.torch.LTC(I, N, ode_unfolds=3))
