"""The MLX port refuses what the torch port refuses, in the same words."""

import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
import torch

import ncp_agents.mlx
import ncp_agents.torch
from ncp_agents.wirings import AutoNCP

B, T, I, N = 3, 4, 5, 12  # noqa: E741


@pytest.mark.parametrize(
    ("kind", "args", "kwargs"),
    [
        ("CfC", (I, 0), {}),
        ("CfC", (I, N), {"mode": "pur"}),
        ("CfC", (I, N), {"activation": "tahn"}),
        ("CfC", (I, N), {"backbone_dropout": 1.0}),
        ("CfC", (I, N), {"backbone_layers": -1}),
        ("CfC", (I, N), {"init": "balanced"}),
        ("CfC", (I, AutoNCP(N, 3)), {"backbone_units": 7}),
        ("CfCCell", (I, N), {"backbone_units": 0, "sparsity_mask": np.ones((2, 2))}),
        ("CfCCell", (I, N), {"sparsity_mask": np.ones((I + N, N))}),
        ("WiredCfCCell", (None, AutoNCP(N, 3)), {}),
        ("LTC", (I, N), {"input_mapping": "afine"}),
        ("LTC", (I, N), {"ode_unfolds": 0}),
        ("LTC", (I, N), {"ode_unfolds": 2.5}),
        ("LTC", (I, N), {"epsilon": -1.0}),
        ("LTC", (I, "5"), {}),
        ("CfC", (I, N), {"proj_size": 0}),
        ("LTCCell", (N, I), {}),
        ("LTCCell", (AutoNCP(N, 3),), {}),
    ],
)
def test_bad_settings_are_refused_as_in_torch(kind, args, kwargs):
    messages = []
    for port in (ncp_agents.mlx, ncp_agents.torch):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            getattr(port, kind)(*args, **kwargs)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


ZEROS = {
    "flat timespans": ((B, T, I), {"timespans": (B,)}),
    "timespans a neuron": ((B, T, I), {"timespans": (B, T, N)}),
    "endless timespan": ((B, T, I), {"timespans": float("inf")}),
    "negative timespan": ((B, T, I), {"timespans": -1.0}),
    "no number": ((B, T, I), {"timespans": float("nan")}),
    "flat resets": ((B, T, I), {"resets": (B,)}),
    "input too wide": ((B, T, I + 1), {}),
    "input too flat": ((I,), {}),
    "no steps": ((B, 0, I), {}),
    "state of another size": ((B, T, I), {"hx": (B, N + 1)}),
    "batched state, unbatched input": ((T, I), {"hx": (1, N)}),
}


@pytest.mark.parametrize("name", ZEROS)
def test_bad_input_is_refused_as_in_torch(name):
    shape, kwargs = ZEROS[name]
    messages = []
    for port, zeros in ((ncp_agents.mlx, mx.zeros), (ncp_agents.torch, torch.zeros)):
        given = {k: zeros(v) if isinstance(v, tuple) else v for k, v in kwargs.items()}
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            port.CfC(I, N)(zeros(shape), **given)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    ("kind", "args"),
    [("CfCCell", (I, N)), ("WiredCfCCell", (I, AutoNCP(N, 3))), ("LTCCell", (AutoNCP(N, 3), I))],
)
def test_a_cell_refuses_what_torch_refuses(kind, args):
    for shapes in (((B, I + 1), (B, N), ()), ((B, I), (B, N + 1), ()), ((N, I), (N, N), (B,))):
        messages = []
        for port, zeros in ((ncp_agents.mlx, mx.zeros), (ncp_agents.torch, torch.zeros)):
            with pytest.raises(ValueError) as caught:  # noqa: PT011
                getattr(port, kind)(*args)(*map(zeros, shapes))
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


def test_a_cells_timespans_are_a_row_each():
    cell, times = ncp_agents.mlx.CfCCell(I, N), mx.random.uniform(shape=(N,))
    x, h = mx.random.normal((N, I)), mx.random.normal((N, N))
    assert mx.array_equal(cell(x, h, times)[1], cell(x, h, times[:, None])[1])


def test_input_of_another_kind_is_refused():
    layer = ncp_agents.mlx.CfC(I, N)
    with pytest.raises(ValueError, match=r"is a ndarray, expected an mlx\.core\.array"):
        layer(np.zeros((B, T, I), np.float32))
    with pytest.raises(ValueError, match=r"float16, but .*float32; convert one: input\.astype"):
        layer(mx.zeros((B, T, I), mx.float16))
    with pytest.raises(RuntimeError, match="without mixed memory requires one array as state"):
        layer(mx.zeros((B, T, I)), (mx.zeros((B, N)), mx.zeros((B, N))))
    mixed = ncp_agents.mlx.CfC(I, N, mixed_memory=True)
    with pytest.raises(RuntimeError, match=r"mixed_memory=True requires a tuple \(h0, c0\)"):
        mixed(mx.zeros((B, T, I)), mx.zeros((B, N)))


def test_without_mlx_the_error_names_the_extra():
    code = "import sys; sys.modules['mlx'] = None; import ncp_agents.mlx"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode
    last = run.stderr.strip().splitlines()[-1]
    assert last == "ImportError: ncp_agents.mlx needs MLX: pip install 'ncp-agents[mlx]'"
