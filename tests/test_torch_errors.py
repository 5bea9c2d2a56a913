"""Mistakes in the use of the torch layers are named, with the remedy."""

import ncps.wirings
import numpy as np
import pytest
import torch

from ncp_agents.torch import LTC, CfC, CfCCell, LTCCell, WiredCfCCell
from ncp_agents.wirings import NCP, AutoNCP

I, N, B, T = 5, 12, 3, 7  # noqa: E741


def wired(**kwargs) -> CfC:
    return CfC(I, AutoNCP(N, 3), **kwargs)


def all_read(wiring):
    wiring.set_output_dim(wiring.units)
    return wiring


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CfCCell(I, N, "defualt"), "did you mean 'default'"),
        (lambda: CfC(I, N, activation="tahn"), "did you mean 'tanh'"),
        (lambda: CfCCell(I, 0), "units is 0, expected an integer of at least 1"),
        (lambda: CfCCell(I, N, sparsity_mask=np.ones((I, N)), backbone_units=0), r"\(17, 12\)"),
        (
            lambda: CfCCell(input_size=I, units=N, sparsity_mask=np.ones((I + N, N))),
            "If sparsity of a CfC cell is set, then no backbone is allowed",
        ),
        (lambda: CfC(I, AutoNCP(N, 3), backbone_units=4), "backbone_units=4 does not go with"),
        (lambda: CfC(I, N, mask_time_gates=True), "mask_time_gates=True needs a wiring"),
        (lambda: CfC(I, AutoNCP(N, 3), activation="relu"), "activation='relu' does not go with"),
        (lambda: wired()([[0.0] * I]), "input is a list, expected a torch.Tensor"),
        (lambda: wired()(torch.zeros(B, T, I).long()), r"input is torch.int64, .*float32"),
        (lambda: wired()(torch.zeros(B, T, I).double()), r"input.to\(torch.float32\)"),
        (lambda: wired()(torch.zeros(B, T, I, device="meta")), "input is on meta, .* cpu"),
        (
            lambda: wired()(torch.zeros(T, B, I)[:0]),
            "expected at least one sequence",
        ),
        (lambda: wired()(torch.zeros(B, T, I), timespans=-1.0), "timespans has -1.0"),
        (lambda: wired()(torch.zeros(B, T, I), timespans=float("nan")), "timespans has nan"),
        (lambda: wired()(torch.zeros(B, T, I), timespans=float("inf")), "timespans has inf"),
        (lambda: wired()(torch.zeros(B, T, I), timespans=[1.0]), "timespans is a list, expected a"),
        (
            lambda: wired()(torch.zeros(B, T, I), resets=[True]),
            "resets is a list, expected a",
        ),
        (lambda: CfC(I, "50"), "units is builtins.str, expected a whole number or a wiring of"),
        (lambda: CfC(I, AutoNCP), "units is ncp_agents.wirings.ncp.AutoNCP, expected a whole"),
        (lambda: CfC(I, ncps.wirings.AutoNCP(N, 3)), "units is ncps.wirings.*, expected a whole"),
        (lambda: WiredCfCCell(I, ncps.wirings.AutoNCP(N, 3)), "wiring is a ncps.wirings"),
        (lambda: CfC(I, N, proj_size=0), "proj_size is 0, expected an integer of at least 1"),
        (lambda: CfC(I, N, backbone_units=12.0), "backbone_units is 12.0, expected an integer"),
        (
            lambda: CfCCell(I, N)(torch.zeros(B, I + 1), torch.zeros(B, N)),
            r"input has shape \(3, 6\)",
        ),
        (lambda: wired()(torch.zeros(B, T, I + 1)), r"expected \(B, T, 5\)"),
        (lambda: wired()(torch.zeros(B, T, I), torch.zeros(B, 3)), r"expected \(3, 12\)"),
        (
            lambda: wired()(torch.zeros(B, T, I), timespans=torch.ones(B)),
            r"timespans has shape \(3,\), expected a float, \(3, 7\) or \(3, 7, 1\)",
        ),
        (lambda: wired()(torch.zeros(B, T, I), resets=torch.zeros(T, B)), "resets has shape"),
        (
            lambda: CfCCell(I, N, hidden_size=N + 1),
            "hidden_size, its older name, 13",
        ),
        (
            lambda: CfCCell(I, N, activation="relu", backbone_activation="tanh"),
            "activation is 'relu' and backbone_activation, its older name, 'tanh'",
        ),
        (lambda: WiredCfCCell(I, all_read(AutoNCP(N, 3))), "12 outputs, expected at most the 3"),
        (
            lambda: CfCCell(I, N)(torch.zeros(B, I), torch.zeros(B, N), np.ones(B)),
            "timespan is a numpy.ndarray, expected a float or an array",
        ),
        (lambda: LTCCell(AutoNCP(N, 3)), "not built"),
        (lambda: LTC(I, AutoNCP(N, 3), input_mapping="afine"), "did you mean 'affine'"),
        (
            lambda: LTC(I, AutoNCP(N, 3), ode_unfolds=0),
            "ode_unfolds is 0, expected an integer",
        ),
        (lambda: LTC(I, 0), "units is 0"),
        (lambda: LTC(I, N)(torch.zeros(1, 2, I), timespans=-1.0), "at least 0"),
        (
            lambda: LTC(I, N)(torch.zeros(1, 2, I), timespans=torch.tensor([[1.0, torch.nan]])),
            "nan",
        ),
        (lambda: LTC(I, N)(torch.zeros(1, 0, I)), "at least one step"),
    ],
)
def test_bad_input_is_refused_with_the_remedy(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "cell",
    [CfCCell(I, N), WiredCfCCell(I, AutoNCP(N, 3)), LTCCell(AutoNCP(N, 3), I)],
    ids=lambda cell: type(cell).__name__,
)
def test_a_cells_timespans_are_a_row_each(cell):
    """With B = N, where they would spread over the neurons unseen."""
    x, h, times = torch.randn(N, I), torch.randn(N, N), torch.rand(N)
    assert torch.equal(cell(x, h, times)[1], cell(x, h, times[:, None])[1])
    alone = torch.cat([cell(x[i : i + 1], h[i : i + 1], times[i].item())[1] for i in range(N)])
    torch.testing.assert_close(cell(x, h, times)[1], alone)
    with pytest.raises(ValueError, match=r"timespan has shape \(3,\), expected a float, \(12,\)"):
        cell(x, h, times[:3])
    with pytest.raises(ValueError, match=r"input has shape \(12, 6\) .* expected \(B, 5\)"):
        cell(torch.randn(N, I + 1), h)


@pytest.mark.parametrize("state", [(1,), (1, 2, 3)])
def test_mixed_memory_takes_no_other_number_of_states(state):
    with pytest.raises(RuntimeError, match=rf"a tuple \(h0, c0\), got {len(state)} of them"):
        wired(mixed_memory=True)(torch.zeros(B, T, I), tuple(torch.zeros(B, N) for _ in state))


def test_mixed_memory_needs_a_pair_as_state():
    with pytest.raises(RuntimeError, match=r"requires a tuple \(h0, c0\) to be passed as state"):
        wired(mixed_memory=True)(torch.zeros(B, T, I), torch.zeros(B, N))


def test_a_wiring_built_for_another_size_is_refused():
    wiring = NCP(5, 4, 3, 2, 3, 4, 2)
    LTC(I, wiring)
    with pytest.raises(ValueError, match="built for 5 inputs"):
        LTC(I + 1, wiring)
