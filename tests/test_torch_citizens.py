"""The layers behave as torch's own do: copies, files, compilation, precisions, processes."""

import copy
import faulthandler
import pickle
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from ncp_agents.torch import LTC, CfC, CfCCell, LTCCell, WiredCfCCell
from ncp_agents.wirings import AutoNCP

LAYERS = {
    "dense": lambda: CfC(3, 10),
    "wired": lambda: CfC(3, AutoNCP(12, 3)),
    "ltc": lambda: LTC(3, AutoNCP(12, 3)),
    "mixed": lambda: LTC(3, AutoNCP(12, 3), mixed_memory=True),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    torch.manual_seed(0)
    return LAYERS[request.param]()


@pytest.fixture
def x():
    return torch.randn(4, 5, 3)


def test_copies_and_pickles_compute_the_same(layer, x):
    expected = layer(x)[0]
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x)[0], expected)


def test_a_copy_has_weights_of_its_own(layer, x):
    expected = layer(x)[0]
    other = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.1
    assert torch.equal(layer(x)[0], expected)
    assert not torch.equal(other(x)[0], expected)


def test_functional_call_and_assign_see_every_parameter(layer, x):
    moved = {name: p + 0.05 for name, p in layer.named_parameters()}
    expected = torch.func.functional_call(layer, moved, (x,))[0]
    layer.load_state_dict(layer.state_dict() | moved, assign=True)
    assert torch.equal(layer(x)[0], expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # dynamo looks at it
def test_compiled_layers_give_the_same(layer, x):
    torch.compiler.reset()
    eager = torch.nn.Sequential(torch.nn.Linear(3, 3), layer)
    compiled = torch.compile(eager, backend="aot_eager")  # inductor would need a C++ compiler
    torch.testing.assert_close(compiled(x)[0], eager(x)[0])


def test_autocast_and_bfloat16_stay_close(layer, x):
    expected = layer(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        outputs, _ = layer(x)
    assert (outputs.float() - expected).abs().max() < 0.1
    outputs.float().sum().backward()
    low = copy.deepcopy(layer).bfloat16()
    outputs, state = low(x.bfloat16())
    assert outputs.dtype == torch.bfloat16
    assert (outputs.float() - expected).abs().max() < 0.1
    states = state if isinstance(state, tuple) else (state,)
    assert all(part.dtype == torch.bfloat16 for part in states)


def test_outputs_that_come_without_strides_of_their_own_train(layer, x):
    """Slices, expansions and transposes of inputs and gradients are all the same to a kernel."""
    wide = torch.randn(5, 4, 6)[..., ::2].transpose(0, 1).requires_grad_()
    outputs, _ = layer(wide)
    (gradient,) = torch.autograd.grad(outputs.sum(), wide)
    dense = wide.detach().clone().contiguous().requires_grad_()
    outputs, _ = layer(dense)
    (expected,) = torch.autograd.grad((outputs * torch.ones_like(outputs)).sum(), dense)
    torch.testing.assert_close(gradient, expected)


def _train_together(rank: int, folder: str) -> None:
    faulthandler.dump_traceback_later(60, exit=True)  # processes that wait for each other fail
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(0)
    layer = DistributedDataParallel(CfC(3, AutoNCP(12, 3)))
    x = torch.randn(4, 5, 3)
    layer(x[rank::2])[0].square().mean().backward()
    if rank == 0:
        torch.save([p.grad for p in layer.parameters()], f"{folder}/gradients.pt")
    del layer  # torch's own threads may wait for ever for one that outlives its group
    dist.barrier()
    dist.destroy_process_group()


def test_distributed_data_parallel_averages_gradients():
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_train_together, (folder,), nprocs=2)
        shared = torch.load(Path(folder) / "gradients.pt", weights_only=True)
    torch.manual_seed(0)
    layer = CfC(3, AutoNCP(12, 3))
    x = torch.randn(4, 5, 3)
    layer(x)[0].square().mean().backward()
    for gradient, parameter in zip(shared, layer.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's own
@pytest.mark.parametrize(
    "make",
    [
        lambda: CfCCell(3, 8),
        lambda: WiredCfCCell(3, AutoNCP(12, 3)),
        lambda: LTCCell(AutoNCP(12, 3), 3),
    ],
)
def test_one_step_exports_to_onnx(make, tmp_path):
    cell = make().eval()
    neurons = cell.hidden_size if isinstance(cell, CfCCell) else cell.state_size
    x, h = torch.randn(2, 3), torch.randn(2, neurons)
    path = tmp_path / "cell.onnx"
    torch.onnx.export(
        cell, (x, h), path, input_names=["x", "h"], output_names=["y", "h_new"], dynamo=True
    )
    session = onnxruntime.InferenceSession(str(path))
    outputs, state = session.run(None, {"x": x.numpy(), "h": h.numpy()})
    expected, expected_state = cell(x, h)
    np.testing.assert_allclose(outputs, expected.detach(), atol=1e-5)
    np.testing.assert_allclose(state, expected_state.detach(), atol=1e-5)
