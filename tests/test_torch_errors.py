"""Mistakes in the use of the torch layers are named, with the remedy."""

import ncps.wirings
import numpy as np
import pytest
import torch

from ncp_agents.torch import LTC, CfC, CfCCell, LTCCell, WiredCfCCell
from ncp_agents.wirings import NCP, AutoNCP

I, N, B, T = 5, 12, 3, 7  # noqa: E741
X, H = torch.zeros(B, T, I), torch.zeros(B, N)


def wiring() -> AutoNCP:
    return AutoNCP(N, 3)


def all_neurons_as_outputs():
    own = wiring()
    own.set_output_dim(N)
    return own


# What is made, and the one fact that the message must carry.
CONSTRUCTORS = {
    "mode": (lambda: CfCCell(I, N, "defualt"), "did you mean 'default'"),
    "activation": (lambda: CfC(I, N, activation="tahn"), "did you mean 'tanh'"),
    "no neurons": (lambda: CfCCell(I, 0), "units is 0"),
    "no LTC neurons": (lambda: LTC(I, 0), "units is 0"),
    "text for units": (lambda: CfC(I, "50"), "builtins.str"),
    "class for units": (lambda: CfC(I, AutoNCP), "AutoNCP"),
    "ncps's wiring": (lambda: CfC(I, ncps.wirings.AutoNCP(N, 3)), "ncps.wirings"),
    "ncps's wiring in a cell": (
        lambda: WiredCfCCell(I, ncps.wirings.AutoNCP(N, 3)),
        "ncps.wirings",
    ),
    "no projection": (lambda: CfC(I, N, proj_size=0), "proj_size is 0"),
    "float": (lambda: CfC(I, N, backbone_units=12.0), "backbone_units is 12.0"),
    "dropout": (lambda: CfC(I, N, backbone_dropout=1.0), "backbone_dropout is 1.0"),
    "mask": (lambda: CfCCell(I, N, sparsity_mask=np.ones((I, N)), backbone_units=0), "17, 12"),
    "mask and backbone": (
        lambda: CfCCell(I, N, sparsity_mask=np.ones((I + N, N))),
        "If sparsity of a CfC cell is set, then no backbone is allowed",
    ),
    "balanced backbone": (lambda: CfC(I, N, init="balanced"), "backbone"),
    "two names": (lambda: CfCCell(I, N, hidden_size=N + 1), "hidden_size"),
    "two activations": (
        lambda: CfCCell(I, N, activation="relu", backbone_activation="tanh"),
        "backbone_activation",
    ),
    "outputs": (lambda: WiredCfCCell(I, all_neurons_as_outputs()), "12 outputs"),
    "not built": (lambda: LTCCell(wiring()), "in_features"),
    "mapping": (lambda: LTC(I, wiring(), input_mapping="afine"), "did you mean 'affine'"),
    "unfolds": (lambda: LTC(I, wiring(), ode_unfolds=0), "ode_unfolds is 0"),
    "epsilon": (lambda: LTC(I, wiring(), epsilon=-1.0), "epsilon is -1.0"),
}

# Arguments of a layer's call.
CALLS = {
    "list": (([[0.0] * I],), "list"),
    "integers": ((X.long(),), "int64"),
    "double": ((X.double(),), "torch.float32"),
    "device": ((torch.zeros(B, T, I, device="meta"),), "meta"),
    "width": ((torch.zeros(B, T, I + 1),), r"\(3, 7, 6\)"),
    "rank": ((torch.zeros(I),), "input"),
    "no sequence": ((X[:0],), "at least one sequence"),
    "no step": ((X[:, :0],), "at least one step"),
    "state": ((X, torch.zeros(B, 3)), r"expected \(3, 12\)"),
    "batched state, unbatched input": ((X[0], H), r"expected \(12,\)"),
    "negative": ((X, H, -1.0), "timespans has -1.0"),
    "NaN": ((X, H, float("nan")), "timespans has nan"),
    "NaN in a tensor": ((X, H, torch.full((B, T), torch.nan)), "timespans has nan"),
    "infinite": ((X, H, float("inf")), "timespans has inf"),
    "list of timespans": ((X, H, [1.0]), "timespans is a list"),
    "flat timespans": ((X, H, torch.ones(B)), r"timespans has shape \(3,\)"),
    "a timespan a neuron": ((X, H, torch.ones(B, T, N)), "timespans has shape"),
    "list of resets": ((X, H, None, [True]), "resets is a list"),
    "resets": ((X, H, None, torch.zeros(T, B)), "resets has shape"),
}


@pytest.mark.parametrize(("make", "fact"), CONSTRUCTORS.values(), ids=CONSTRUCTORS)
def test_bad_settings_are_refused(make, fact):
    with pytest.raises(ValueError, match=fact):
        make()


@pytest.mark.parametrize("layer", [CfC(I, wiring()), LTC(I, N)], ids=["CfC", "LTC"])
@pytest.mark.parametrize(("arguments", "fact"), CALLS.values(), ids=CALLS)
def test_bad_input_is_refused(layer, arguments, fact):
    with pytest.raises(ValueError, match=fact):
        layer(*arguments)


@pytest.mark.parametrize("mixed_memory", [False, True])
def test_a_state_of_another_kind_is_refused(mixed_memory):
    layer = CfC(I, wiring(), mixed_memory=mixed_memory)
    for state in (H if mixed_memory else (H, H), (H,) * 3):
        with pytest.raises(RuntimeError, match=f"mixed_memory={mixed_memory}"):
            layer(X, state)


@pytest.mark.parametrize(
    "cell",
    [CfCCell(I, N), WiredCfCCell(I, wiring()), LTCCell(wiring(), I)],
    ids=lambda cell: type(cell).__name__,
)
def test_a_cells_timespans_are_one_per_row(cell):
    """With B = N, where they could spread over the neurons unnoticed."""
    x, h, times = torch.randn(N, I), torch.randn(N, N), torch.rand(N)
    assert torch.equal(cell(x, h, times)[1], cell(x, h, times[:, None])[1])
    alone = torch.cat([cell(x[i : i + 1], h[i : i + 1], times[i].item())[1] for i in range(N)])
    torch.testing.assert_close(cell(x, h, times)[1], alone)
    for arguments in ((x, h, times[:3]), (torch.randn(N, I + 1), h), (x, h, times.numpy())):
        with pytest.raises(ValueError, match=r"shape|ndarray"):
            cell(*arguments)


def test_options_without_effect_are_ignored():
    CfC(I, wiring(), backbone_units=4, activation="relu")
    CfC(I, N, mask_time_gates=True)


def test_a_wiring_built_for_another_size_is_refused():
    own = NCP(5, 4, 3, 2, 3, 4, 2)
    LTC(I, own)
    with pytest.raises(ValueError, match="built for 5 inputs"):
        LTC(I + 1, own)
