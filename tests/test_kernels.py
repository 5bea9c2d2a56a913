"""The kernels of the cells: equal to plain torch, on every instruction set this machine has."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from instruction_sets import VARIANTS, use_library
from kernel_parity import assert_equals_plain

from ncp_agents.torch import LTC, CfC, kernels
from ncp_agents.torch.fused_weights import fuse
from ncp_agents.torch.kernels import cfc, cfc_cpu, convolutions, ltc_cpu
from ncp_agents.torch.kernels import library as compiled
from ncp_agents.torch.sequence_layer import SequenceLayer
from ncp_agents.wirings import NCP, AutoNCP, FullyConnected, Random, Wiring


@pytest.fixture(params=VARIANTS, autouse=True)
def variant(request, monkeypatch):
    use_library(request.param, monkeypatch)
    torch.manual_seed(0)


def silent(neurons: int) -> Wiring:
    """Neurons with synapses from the inputs only."""
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


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The kernels that run, by name."""
    names = []
    parallel_rows = compiled.parallel_rows
    for module in (cfc_cpu, ltc_cpu):
        monkeypatch.setattr(
            module,
            "parallel_rows",
            lambda name, *rest: names.append(name) or parallel_rows(name, *rest),
        )
    return names


def test_kernels_are_chosen_by_themselves_and_can_be_switched_off(calls):
    circuit, x = CfC(3, AutoNCP(12, 3)), torch.randn(2, 4, 3)
    circuit(x)[0].sum().backward()
    assert calls == ["cfc_forward", "cfc_backward"]
    with kernels.off():
        circuit(x)[0].sum().backward()
    circuit.double()(x.double())  # no kernel for other dtypes
    CfC(3, 4, mode="pure")(x)
    CfC(3, 4, activation="gelu")(x)
    assert len(calls) == 2
    LTC(3, 4)(x)[0].sum().backward()
    assert calls[2:] == ["ltc_forward", "ltc_backward"]


@pytest.mark.parametrize("make", [lambda: CfC(3, AutoNCP(12, 3)), lambda: LTC(3, 4)])
def test_frozen_single_steps_equal_a_whole_sequence(make, calls):
    circuit, x = make(), torch.randn(2, 4, 3)
    timespans, state, outputs = torch.rand(2, 4), None, []
    with torch.no_grad():
        expected, _ = circuit(x, timespans=timespans)
        with circuit.frozen():
            for t in range(4):
                now = slice(t, t + 1)
                output, state = circuit(x[:, now], state, timespans=timespans[:, now])
                outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, 1), expected)
    assert len(calls) == 5


def test_a_timespan_of_zero_has_a_gradient():
    circuit, x = LTC(3, AutoNCP(12, 3)), torch.randn(2, 3, 3)
    results = []
    for context in (kernels.off(), nullcontext()):
        timespans = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 2.0]], requires_grad=True)
        with context:
            results.append(torch.autograd.grad(circuit(x, timespans=timespans)[0].sum(), timespans))
    torch.testing.assert_close(*results)


def arguments():
    """Of an operator of each kind, small."""
    cfc_weights = fuse(CfC(3, AutoNCP(12, 3)).rnn_cell, 1.0)
    backbone = fuse(CfC(3, 4, backbone_units=5, backbone_layers=2).rnn_cell, None)
    x, resets = torch.randn(5, 2, 3), torch.rand(5, 2) < 0.3
    timespans = torch.rand(5, 2).requires_grad_()
    membrane = LTC(3, AutoNCP(12, 3)).rnn_cell.membrane()
    conv = [torch.randn(4, 1, 3, 3).requires_grad_(), torch.randn(4).requires_grad_()]
    own = [each.detach().requires_grad_() for each in ltc_cpu.parameters(membrane)]
    leaves = [
        [tensor.detach().requires_grad_() for tensor in weights.tensors]
        for weights in (cfc_weights, backbone)
    ]
    yield cfc.cfc, (x, torch.randn(2, 12), None, resets, leaves[0], *cfc_weights.sizes, True)
    by_batch = torch.randn(2, 5, 3).transpose(0, 1).requires_grad_()
    yield cfc.cfc, (by_batch, torch.randn(2, 4), timespans, None, leaves[1], *backbone.sizes, True)
    constants = (ltc_cpu.indices(membrane), 0.0, membrane.unfolds, membrane.epsilon, True)
    yield ltc_cpu.ltc, (x, torch.randn(2, 12), timespans, resets, *own, *constants)
    yield convolutions.convolutions, (torch.rand(2, 1, 9, 9), conv, [2])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own
@pytest.mark.parametrize("index", range(4))
def test_operators_keep_torch_contract(index):
    """Schema, tensors without values, autograd, tracing."""
    operator, args = list(arguments())[index]
    torch.library.opcheck(operator, args)


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
def test_a_forked_child_continues_with_one_thread():
    answer = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, timeout=120
    )
    assert answer.stdout.strip() == "0"


def test_threads_may_load_the_library_at_the_same_time():
    code = """
from concurrent.futures import ThreadPoolExecutor
from ncp_agents.torch.kernels import library
import sys
sys.setswitchinterval(1e-6)
with ThreadPoolExecutor(8) as pool:
    assert all(pool.map(lambda _: library.available(), range(8)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
