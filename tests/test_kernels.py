"""The kernels of the cells: equal to plain torch, on every instruction set this machine has."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from instruction_sets import VARIANTS, use_library
from kernel_parity import assert_equals_plain

from ncp_agents.torch import LTC, CfC, kernels
from ncp_agents.torch.kernels import cfc_cpu, ltc_cpu
from ncp_agents.torch.kernels import library as compiled
from ncp_agents.torch.sequence_layer import SequenceLayer
from ncp_agents.wirings import NCP, AutoNCP, FullyConnected, Random, Wiring


@pytest.fixture(params=VARIANTS, autouse=True)
def variant(request, monkeypatch):
    use_library(request.param, monkeypatch)
    torch.manual_seed(0)


def silent(neurons: int) -> Wiring:
    """Neurons that hear the inputs and not each other."""
    wiring = Wiring(neurons)
    wiring.set_output_dim(neurons)
    wiring.build(3)
    for neuron in range(neurons):
        wiring.add_sensory_synapse(neuron % 3, neuron, 1)
    return wiring


CIRCUITS: dict[str, Callable[[], SequenceLayer]] = {
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
    "ltc": lambda: LTC(3, AutoNCP(20, 4)),
    "ltc, one unfold": lambda: LTC(3, Random(9, 2, 0.7), ode_unfolds=1),
    "ltc, explicit": lambda: LTC(3, 5, implicit_param_constraints=False),
    "ltc, no synapses between neurons": lambda: LTC(3, silent(4)),
}


@pytest.mark.parametrize("rows", [1, 3, 8, 21])
@pytest.mark.parametrize("with_resets", [False, True])
@pytest.mark.parametrize("with_timespans", [False, True])
@pytest.mark.parametrize("name", CIRCUITS)
def test_kernel_equals_plain_torch(name, with_timespans, with_resets, rows):
    assert_equals_plain(CIRCUITS[name](), rows, with_timespans, with_resets)


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
    parallel_rows = compiled.parallel_rows

    def noted(name, *rest, **options):
        calls.append(name)
        parallel_rows(name, *rest, **options)

    monkeypatch.setattr(cfc_cpu, "parallel_rows", noted)
    monkeypatch.setattr(ltc_cpu, "parallel_rows", noted)
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
    LTC(3, 4)(x)[0].sum().backward()
    assert calls[2:] == ["ltc_forward", "ltc_backward"]


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
from ncp_agents.torch.kernels import library as compiled
compiled.MIN_PARALLEL_OPS = 1.0  # share even this little among threads
torch.set_num_threads(2)
circuit, x = CfC(3, 8, backbone_units=0), torch.randn(8, 4, 3)
with torch.no_grad():
    expected = circuit(x)[0]
    if (child := os.fork()) == 0:
        torch.set_num_threads(1)  # torch's own threads do not survive a fork either
        os._exit(0 if torch.equal(circuit(x)[0], expected) else 1)
    print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_child_goes_on_with_one_thread():
    answer = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=120
    )
    assert answer.stdout.strip() == "0"
