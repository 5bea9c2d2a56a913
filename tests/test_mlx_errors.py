"""The MLX port refuses what the torch port refuses, by the same checks."""

import subprocess
import sys

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

from ncp_agents.mlx import LTC, CfC, CfCCell, LTCCell, WiredCfCCell  # noqa: E402
from ncp_agents.wirings import AutoNCP  # noqa: E402

B, T, I, N = 3, 4, 5, 12  # noqa: E741
X = mx.zeros((B, T, I))


@pytest.mark.parametrize(
    ("run", "fact"),
    [
        (lambda: CfC(I, 0), "units is 0"),
        (lambda: CfC(I, "5"), "builtins.str"),
        (lambda: CfC(I, N, proj_size=0), "proj_size is 0"),
        (lambda: CfC(I, N, init="balanced"), "backbone"),
        (lambda: CfCCell(I, N, backbone_units=0, sparsity_mask=np.ones((2, 2))), "sparsity_mask"),
        (lambda: WiredCfCCell(None, AutoNCP(N, 3)), "not built"),
        (lambda: LTCCell(AutoNCP(N, 3)), "not built"),
        (lambda: LTC(I, N, ode_unfolds=2.5), "ode_unfolds is 2.5"),
        (lambda: CfC(I, N)(np.zeros((B, T, I), np.float32)), "ndarray"),
        (lambda: CfC(I, N)(X.astype(mx.float16)), r"input\.astype"),
        (lambda: CfC(I, N)(X, timespans=mx.zeros((B,))), "timespans has shape"),
        (lambda: CfC(I, N)(X, timespans=-1.0), "timespans has -1.0"),
        (lambda: CfC(I, N)(X, resets=mx.zeros((B,))), "resets has shape"),
        (lambda: CfC(I, N)(X, mx.zeros((B, N + 1))), "state has shape"),
    ],
)
def test_mistakes_are_named(run, fact):
    with pytest.raises(ValueError, match=fact):
        run()


@pytest.mark.parametrize("mixed_memory", [False, True])
def test_a_state_of_another_kind_is_refused(mixed_memory):
    h = mx.zeros((B, N))
    with pytest.raises(RuntimeError, match=f"mixed_memory={mixed_memory}"):
        CfC(I, N, mixed_memory=mixed_memory)(X, h if mixed_memory else (h, h))


@pytest.mark.parametrize(
    "cell", [CfCCell(I, N), WiredCfCCell(I, AutoNCP(N, 3)), LTCCell(AutoNCP(N, 3), I)]
)
def test_a_cells_timespans_are_one_per_row(cell):
    x, h, times = mx.zeros((N, I)), mx.random.normal((N, N)), mx.random.uniform(shape=(N,))
    assert mx.array_equal(cell(x, h, times)[1], cell(x, h, times[:, None])[1])
    for arguments in ((x, h, times[:3]), (x[:, 1:], h), (x, h[:, 1:])):
        with pytest.raises(ValueError, match="shape"):
            cell(*arguments)


def test_without_mlx_the_error_names_the_extra():
    code = "import sys; sys.modules['mlx'] = None; import ncp_agents.mlx"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ncp-agents[mlx]" in run.stderr.splitlines()[-1]
