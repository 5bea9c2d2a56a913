"""The compiled kernels: equal to plain torch, on every instruction set this machine has."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from ncp_agents.torch import CfC, kernels
from ncp_agents.torch.kernels import cfc_cpu, library
from ncp_agents.wirings import NCP, AutoNCP, FullyConnected

HERE = library.VARIANTS.get(torch.backends.cpu.get_cpu_capability(), "generic")
VARIANTS = {"avx512": ["avx512", "avx2"]}.get(HERE, [HERE])


@pytest.fixture(params=VARIANTS, autouse=True)
def variant(request, monkeypatch):
    """Each library in turn; `make install` has compiled all of them."""
    compiled = ctypes.CDLL(str(library.path(request.param)))
    monkeypatch.setattr(cfc_cpu, "library", lambda: compiled)
    torch.manual_seed(0)


CIRCUITS = {
    "one neuron": lambda: CfC(3, 1, backbone_units=0),
    "dense": lambda: CfC(3, 17, backbone_units=0),
    "dense, whole vectors": lambda: CfC(3, 32, backbone_units=0),
    "no_gate": lambda: CfC(3, AutoNCP(20, 4), mode="no_gate"),
    "wired": lambda: CfC(3, AutoNCP(64, 16)),
    "wired, wide": lambda: CfC(3, AutoNCP(150, 40, sparsity_level=0.8)),
    "wired, uneven": lambda: CfC(3, NCP(7, 3, 1, 2, 2, 1, 2)),
    "one layer": lambda: CfC(3, FullyConnected(9, 4)),
    "backbone": lambda: CfC(3, 10),
    "backbone, odd": lambda: CfC(3, 5, backbone_units=33, backbone_layers=2, activation="tanh"),
    "backbone, relu": lambda: CfC(
        3, 40, mode="no_gate", backbone_units=16, backbone_layers=3, activation="relu"
    ),
}


def run(circuit: CfC, x, h, timespans, resets) -> dict[str, torch.Tensor]:
    """Output, state and every gradient."""
    leaves = [leaf for leaf in (x, h, timespans, *circuit.parameters()) if leaf is not None]
    states, last = circuit.states(x, h, timespans, resets)
    gradients = torch.autograd.grad((states.sin().sum() + last.cos().sum()), leaves)
    names = ["x", "h", *(["timespans"] if timespans is not None else [])]
    names += [name for name, _ in circuit.named_parameters()]
    return {"states": states, "last": last, **dict(zip(names, gradients, strict=True))}


@pytest.mark.parametrize("rows", [1, 3, 8, 21])
@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("with_timespans", [False, True])
@pytest.mark.parametrize("name", CIRCUITS)
def test_kernel_equals_plain_torch(name, with_timespans, with_resets, rows):
    circuit = CIRCUITS[name]()
    steps = 6
    x = torch.randn(rows, steps, 3, requires_grad=True)
    h = torch.rand(rows, circuit.state_size, requires_grad=True)
    timespans = (3 * torch.rand(rows, steps)).requires_grad_() if with_timespans else None
    resets = torch.rand(rows, steps) < 0.3 if with_resets else None
    with kernels.off():
        expected = run(circuit, x, h, timespans, resets)
    for key, value in run(circuit, x, h, timespans, resets).items():
        error = (value - expected[key]).abs().max() / expected[key].abs().max().clamp(min=1e-3)
        assert error < 1e-5, f"{key}: {error:.1e}"


def test_without_gradient_it_gives_the_same():
    circuit = CfC(3, AutoNCP(20, 4))
    x = torch.randn(5, 9, 3)
    with torch.no_grad():
        outputs, state = circuit(x)
    with_gradient, last = circuit(x)
    assert torch.equal(outputs, with_gradient)
    assert torch.equal(state, last)


def test_more_threads_change_nothing():
    circuit = CfC(3, AutoNCP(64, 16))
    x = torch.randn(40, 64, 3)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(circuit(x)[0])
    torch.set_num_threads(before)
    assert torch.equal(*results)


def test_extreme_inputs_saturate_as_in_plain_torch():
    circuit = CfC(1, 4, backbone_units=0)
    x = torch.tensor([1e30, -1e30, 200.0, -200.0, 0.0])[:, None, None]
    with kernels.off():
        expected = circuit(x)[0]
    torch.testing.assert_close(circuit(x)[0], expected)


def test_nan_stays_in_its_row():
    circuit = CfC(2, AutoNCP(12, 3))
    x = torch.randn(4, 5, 2)
    x[1, 2] = torch.nan
    outputs, _ = circuit(x)
    assert outputs[1, 2:].isnan().all()
    assert not outputs[[0, 2, 3]].isnan().any()
    assert not outputs[1, :2].isnan().any()


def calls_of(monkeypatch) -> list[str]:
    calls = []
    run_kernel = cfc_cpu.Inputs.run

    def noted(inputs, name, call):
        calls.append(name)
        run_kernel(inputs, name, call)

    monkeypatch.setattr(cfc_cpu.Inputs, "run", noted)
    return calls


def test_kernels_are_chosen_by_themselves_and_can_be_switched_off(monkeypatch):
    calls = calls_of(monkeypatch)
    circuit, x = CfC(3, AutoNCP(12, 3)), torch.randn(2, 4, 3)
    circuit(x)[0].sum().backward()
    assert calls == ["cfc_forward", "cfc_backward"]
    with kernels.off():
        circuit(x)[0].sum().backward()
    assert len(calls) == 2
    circuit.double()(x.double())  # no kernel for other dtypes
    CfC(3, 4, mode="pure")(x)
    CfC(3, 4, activation="gelu")(x)
    assert len(calls) == 2


def test_the_environment_switches_them_off():
    program = "from ncp_agents.torch import kernels; print(kernels.are_on())"
    for value, expected in (("0", "False"), ("1", "True")):
        answer = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "NCP_AGENTS_KERNELS": value},
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout.strip() == expected


FORKED = """
import os, torch
from ncp_agents.torch import CfC
from ncp_agents.torch.kernels import library
library.WORTH_A_THREAD = 1.0  # share even this little among threads
torch.set_num_threads(1)  # torch's own threads do not survive a fork
torch.get_num_threads = lambda: 2
circuit, x = CfC(3, 8, backbone_units=0), torch.randn(8, 4, 3)
with torch.no_grad():
    expected = circuit(x)[0]
    assert library._pool.cache_info().currsize == 1
    if (child := os.fork()) == 0:
        os._exit(0 if torch.equal(circuit(x)[0], expected) else 1)
    print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_child_has_threads_of_its_own():
    answer = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=120
    )
    assert answer.stdout.strip() == "0"
