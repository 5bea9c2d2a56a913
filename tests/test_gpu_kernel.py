"""The Triton kernels equal plain torch: in Triton's interpreter, or on a GPU."""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", reason="Triton exists for Linux only")

from kernel_parity import assert_equals_plain

from ncp_agents.torch import LTC, CfC, kernels
from ncp_agents.torch.fused_weights import fuse
from ncp_agents.torch.kernels import cfc_triton as cfc_gpu
from ncp_agents.torch.kernels import ltc_triton as ltc_gpu
from ncp_agents.wirings import NCP, AutoNCP, FullyConnected

CIRCUITS = {
    "one neuron": lambda: CfC(3, 1, backbone_units=0),
    "dense": lambda: CfC(3, 17, backbone_units=0),
    "no_gate": lambda: CfC(3, AutoNCP(20, 4), mode="no_gate"),
    "wired": lambda: CfC(3, AutoNCP(40, 9)),
    "wired, uneven": lambda: CfC(3, NCP(7, 3, 1, 2, 2, 1, 2)),
    "one layer": lambda: CfC(3, FullyConnected(9, 4)),
    "ltc": lambda: LTC(3, AutoNCP(20, 4)),
    "ltc, dense": lambda: LTC(3, 5, ode_unfolds=2),
}


INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton reads it when it is imported


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process")
def test_in_the_interpreter():
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:]


@pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1 when Triton is imported")
@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("with_timespans", [False, True])
@pytest.mark.parametrize("name", CIRCUITS)
def test_interpreted_it_equals_plain_torch(monkeypatch, name, with_timespans, with_resets):
    torch.manual_seed(0)
    modules = {"cfc": cfc_gpu, "ltc": ltc_gpu}
    monkeypatch.setattr(kernels, "backend", lambda cell, device: modules[cell])
    for rows in (3,) if name.startswith("ltc") else (3, 16, 21):
        assert_equals_plain(CIRCUITS[name](), rows, with_timespans, with_resets)


@pytest.mark.skipif(INTERPRETED or not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", CIRCUITS)
def test_on_a_gpu(name):
    for with_timespans in (False, True):
        for with_resets in (False, True):
            assert_equals_plain(CIRCUITS[name](), 70, with_timespans, with_resets, "cuda")


def test_larger_circuits_take_the_plain_path():
    assert cfc_gpu.fits(fuse(CfC(3, AutoNCP(64, 16)).rnn_cell, 1.0))
    assert not cfc_gpu.fits(fuse(CfC(3, AutoNCP(65, 16)).rnn_cell, 1.0))
    assert not cfc_gpu.fits(fuse(CfC(3, 20).rnn_cell, 1.0))  # has a backbone
    for neurons in (64, 65):
        cell = LTC(3, AutoNCP(neurons, 16)).rnn_cell
        assert ltc_gpu.fits(cell.membrane(), torch.zeros(1, neurons)) == (neurons == 64)
