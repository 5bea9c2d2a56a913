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
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import prune

from ncp_agents.torch import (
    LTC,
    CfC,
    CfCCell,
    LTCCell,
    WiredCfCCell,
    kernels,
)
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


def operators_of(graph: torch.fx.GraphModule) -> list[str]:
    return [str(n.target) for n in graph.graph.nodes if str(n.target).startswith("ncp_agents.")]


@pytest.mark.parametrize("varying", [False, True])
def test_compiled_layers_are_one_graph_with_one_operator(layer, x, varying):
    torch.compiler.reset()
    inputs = {}
    if varying:
        inputs = {"timespans": torch.rand(4, 5), "resets": torch.rand(4, 5) < 0.3}
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(operators_of(graph))
        return graph.forward

    expected, _ = layer(x, **inputs)
    compiled = torch.compile(layer, backend=backend, fullgraph=True)
    torch.testing.assert_close(compiled(x, **inputs)[0], expected)
    kind = "ltc" if isinstance(layer, LTC) else "cfc"
    assert graphs == [[] if layer.use_mixed else [f"ncp_agents.{kind}.default"]]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # torch's own
def test_compiled_layers_train(layer, x):
    torch.compiler.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    gradients = [
        torch.autograd.grad(run(x)[0].sum(), [*layer.parameters()], allow_unused=True)
        for run in (compiled, layer)
    ]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


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


def test_autocast_takes_what_a_linear_layer_gives(layer, x):
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), layer)
    expected = network(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        outputs, state = network(x)
        again, _ = layer(x.bfloat16(), state)
    assert outputs.dtype == again.dtype == torch.float32
    assert (outputs - expected).abs().max() < 0.1


def test_replicas_of_data_parallel_compute_the_same(layer, x):
    """Replicas have their weights as plain attributes, not as parameters."""

    def replicate(module):
        replica = module._replicate_for_data_parallel()
        replica._former_parameters = {}
        for name, child in module._modules.items():
            replica._modules[name] = None if child is None else replicate(child)
        for name, parameter in module._parameters.items():
            if parameter is not None:
                replica._former_parameters[name] = parameter * 1.0
                setattr(replica, name, replica._former_parameters[name])
        replica._parameters = {}
        return replica

    replica = replicate(layer)
    assert not list(replica.parameters())
    assert torch.equal(replica(x)[0], layer(x)[0])
    network = replicate(torch.nn.Sequential(torch.nn.Linear(3, 3), layer))
    with torch.autocast("cpu", torch.bfloat16):
        assert network(x)[0].dtype == torch.float32


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("gradients", [False, True])
def test_a_trace_computes_the_same_and_can_be_saved(layer, x, gradients, tmp_path):
    with torch.set_grad_enabled(gradients):
        torch.jit.trace(layer, (x,)).save(tmp_path / "layer.pt")
    loaded = torch.jit.load(tmp_path / "layer.pt")
    torch.testing.assert_close(loaded(2 * x)[0], layer(2 * x)[0])


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_computes_the_same(layer, x, strict):
    program = torch.export.export(layer, (x,), strict=strict).module()
    torch.testing.assert_close(program(2 * x)[0], layer(2 * x)[0])


def test_tensors_without_values_have_shapes(layer):
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        outputs, _ = layer(torch.randn(4, 5, 3))
    assert outputs.shape == (4, 5, layer.output_size)


def test_timespans_without_values(layer):
    layer = layer.to("meta")
    x = torch.empty(4, 5, 3, device="meta")
    assert layer(x, timespans=x[..., 0])[0].shape == (4, 5, layer.output_size)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_forward_mode_derivatives(layer, x):
    with forward_ad.dual_level():
        moved = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, x))[0].sum()).tangent
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(layer(leaf)[0].sum(), leaf)
    torch.testing.assert_close(moved, (gradient * x).sum())


@pytest.mark.parametrize("backbone_units", [0, 8])
def test_reparametrised_heads_are_read_again(backbone_units, x):
    layer = CfC(3, 10, backbone_units=backbone_units)
    prune.l1_unstructured(layer.rnn_cell.ff1, "weight", 0.5)
    normed = torch.nn.utils.parametrizations.weight_norm(layer.rnn_cell.ff2)
    before = layer(x)[0]
    with torch.no_grad():
        layer.rnn_cell.ff1.weight_orig *= 2
        normed.parametrizations.weight.original0 *= 2
    after, _ = layer(x)
    assert not torch.allclose(before, after)
    with kernels.off():
        torch.testing.assert_close(layer(x)[0], after)


@pytest.mark.parametrize("kind", ["dense", "wired", "ltc"])
def test_one_weight_of_another_precision_is_never_misread(kind, x):
    layer = LAYERS[kind]()
    name = "w" if kind == "ltc" else "ff2.weight" if kind == "dense" else "layer_1.ff1.weight"
    weight = layer.rnn_cell.get_parameter(name)
    weight.data = weight.data.double()
    with pytest.raises(RuntimeError, match="dtype"):
        layer(x)


def test_half_precision_keeps_small_states():
    layer = CfC(3, AutoNCP(12, 3), init="balanced").bfloat16()
    x = 0.01 * torch.randn(4, 5, 3, dtype=torch.bfloat16)
    outputs, state = layer(x)
    assert outputs.dtype == state.dtype == torch.bfloat16
    expected = copy.deepcopy(layer).float()(x.float())[0]
    torch.testing.assert_close(outputs.float(), expected, rtol=2**-8, atol=1e-5)


def test_a_reset_clears_nan(layer, x):
    resets = torch.zeros(4, 5, dtype=torch.bool)
    resets[:, 0] = True
    hidden = torch.full((4, layer.state_size), torch.nan)
    state = (hidden, hidden) if layer.use_mixed else hidden
    expected = layer(x)[0]
    torch.testing.assert_close(layer(x, state, resets=resets)[0], expected)
    with kernels.off():
        torch.testing.assert_close(layer(x, state, resets=resets)[0], expected)


def test_resets_come_to_the_inputs_device(layer, x):
    with pytest.raises(NotImplementedError, match="meta tensor"):
        layer(x, resets=torch.ones(4, 5, dtype=torch.bool, device="meta"))


def test_a_wiring_that_changes_later_changes_no_layer():
    wiring = AutoNCP(12, 3)
    layer = LTC(3, wiring)
    count = layer.synapse_count
    wiring.adjacency_matrix[:] = 1
    assert layer.synapse_count == count


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_transforms_of_torch_func(layer, x):
    expected = layer(x)[0]
    torch.testing.assert_close(torch.func.vmap(lambda one: layer(one)[0])(x), expected)
    loss = lambda x: layer(x)[0].sum()  # noqa: E731
    (gradient,) = torch.autograd.grad(loss(leaf := x.clone().requires_grad_()), leaf)
    _, tangent = torch.func.jvp(loss, (x,), (x,))
    torch.testing.assert_close(tangent, (gradient * x).sum())
    with kernels.off():
        torch.testing.assert_close(torch.func.grad(loss)(x), gradient)
        torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(x), gradient)


def test_vmap_over_the_weights_of_an_ensemble(x):
    layers = [CfC(3, AutoNCP(12, 3)) for _ in range(3)]
    weights = torch.func.stack_module_state(layers)
    run = lambda *weights: torch.func.functional_call(layers[0], weights, (x,))[0]  # noqa: E731
    for outputs, layer in zip(torch.func.vmap(run)(*weights), layers, strict=True):
        torch.testing.assert_close(outputs, layer(x)[0])


@pytest.mark.parametrize("kind", ["dense", "wired", "ltc"])  # "mixed" has no kernel
def test_what_kernels_lack_is_refused_and_never_wrong(kind, x):
    layer = LAYERS[kind]()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(layer(x)[0].sum(), x)[0])
    with pytest.raises(RuntimeError, match=r"kernels\.off"):
        gradient.square().sum().backward()
    with pytest.raises(RuntimeError, match="setup_context"):
        torch.func.grad(lambda x: layer(x)[0].sum())(x)


def test_without_kernels_second_derivatives_are_exact(layer):
    layer, x = layer.double(), torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    with kernels.off():
        assert torch.autograd.gradgradcheck(lambda x: layer(x)[0], (x,))


def test_outputs_and_states_may_be_changed_in_place(layer, x):
    expected = torch.autograd.grad(layer(x)[0].relu().sum(), layer.parameters())
    outputs, state = layer(x)
    for part in state if isinstance(state, tuple) else (state,):
        part.zero_()
    got = torch.autograd.grad(outputs.relu_().sum(), layer.parameters())
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_state_does_not_share_the_outputs_memory(x):
    with torch.no_grad():
        outputs, state = CfC(3, 10)(x)
        before = outputs.clone()
        state.zero_()
    assert torch.equal(outputs, before)
    assert state.untyped_storage().nbytes() == state.nbytes  # nor keep a whole sequence of states


def test_weights_in_any_order_of_memory_compute_the_same(x):
    layer = CfC(3, 10)
    weight = layer.rnn_cell.backbone["0"].weight
    weight.data = weight.data.T.contiguous().T
    with torch.no_grad():
        outputs, _ = layer(x)
        torch.testing.assert_close(outputs, layer.double()(x.double())[0].float())


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_without_memory_takes_its_weights_later(kind, x):
    layer = LAYERS[kind]()
    with torch.device("meta"):
        empty = LAYERS[kind]()
    empty.load_state_dict(layer.state_dict(), assign=True)
    assert torch.equal(empty(x)[0], layer(x)[0])


def test_timespans_of_another_precision_and_without_axes(layer, x):
    times = torch.rand(4, 5)
    torch.testing.assert_close(layer(x, timespans=times.double())[0], layer(x, timespans=times)[0])
    one = torch.tensor(0.5, requires_grad=True)
    many = torch.full((4, 5), 0.5, requires_grad=True)
    for timespans in (one, many):
        layer(x, timespans=timespans)[0].sum().backward()
    torch.testing.assert_close(one.grad, many.grad.sum())


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
