"""The MLX port: the equations, the torch port, time, memory, files, compiling, learning."""

import mlx.core as mx
import mlx.optimizers
import numpy as np
import pytest
import safetensors.torch
import sine_task
import torch
from mlx import nn
from mlx.utils import tree_flatten

import ncp_agents.mlx
import ncp_agents.torch
from ncp_agents.export import convert
from ncp_agents.layers import reference as equations
from ncp_agents.layers.checks import MODES
from ncp_agents.wirings import NCP, AutoNCP, FullyConnected, Random, Wiring

B, T, I, N = 3, 4, 5, 12  # noqa: E741
WIRINGS = {
    "autoncp": lambda: AutoNCP(N, 3),
    "ncp": lambda: NCP(5, 4, 3, 3, 2, 3, 2, seed=1),
    "fully connected": lambda: FullyConnected(N, 4),
    "random": lambda: Random(N, 4, 0.5),
}

# name: kind of layer, units or a wiring, keyword arguments
CASES = {
    **{f"wired {mode}": ("CfC", WIRINGS["autoncp"], {"mode": mode}) for mode in MODES},
    **{f"{name} cfc": ("CfC", wiring, {}) for name, wiring in WIRINGS.items()},
    **{f"dense {mode}": ("CfC", N, {"mode": mode, "backbone_units": 9}) for mode in MODES},
    "no backbone": ("CfC", N, {"backbone_layers": 0}),
    "three layers": ("CfC", N, {"backbone_units": 7, "backbone_layers": 3}),
    **{
        f"backbone {name}": ("CfC", N, {"backbone_units": 7, "activation": name})
        for name in ("tanh", "relu", "silu", "gelu")
    },
    "dropout, evaluated": (
        "CfC",
        N,
        {"backbone_units": 7, "backbone_layers": 3, "backbone_dropout": 0.5},
    ),
    "projected": ("CfC", WIRINGS["autoncp"], {"proj_size": 2}),
    "sparse gates": ("CfC", WIRINGS["autoncp"], {"mask_time_gates": True}),
    "memory, wired": ("CfC", WIRINGS["autoncp"], {"mixed_memory": True}),
    "memory, dense": ("CfC", N, {"mixed_memory": True, "backbone_units": 7}),
    **{f"{name} ltc": ("LTC", wiring, {}) for name, wiring in WIRINGS.items()},
    "dense ltc": ("LTC", N, {"ode_unfolds": 3}),
    "memory, ltc": ("LTC", WIRINGS["autoncp"], {"mixed_memory": True}),
    "explicit ltc": ("LTC", WIRINGS["autoncp"], {"implicit_param_constraints": False}),
    "linear ltc": (
        "LTC",
        WIRINGS["autoncp"],
        {"input_mapping": "linear", "output_mapping": "linear"},
    ),
    "unmapped ltc": ("LTC", WIRINGS["autoncp"], {"input_mapping": None, "output_mapping": None}),
    "no synapses": ("LTC", lambda: Wiring(N), {}),
}
FEW = ("wired default", "three layers", "memory, wired", "autoncp ltc")
TIMES = {"steps of 1": (None, False), "steps of 0.6": (0.6, False), "varying": ("varying", True)}


@pytest.fixture(autouse=True)
def _plain():
    """What is compiled has its own tests: MLX's CPU build calls g++ for every new kernel."""
    mx.random.seed(0)
    torch.manual_seed(0)
    mx.disable_compile()
    yield
    mx.enable_compile()


def make(port, case):
    kind, units, kwargs = CASES[case]
    return getattr(port, kind)(I, units() if callable(units) else units, **kwargs)


def weights(layer):
    return {name: np.array(value) for name, value in tree_flatten(layer.parameters())}


def randomise(layer):
    """Every trainable parameter away from special values such as w_tau = 0."""
    rng = np.random.default_rng(0)
    for name, value in tree_flatten(layer.trainable_parameters()):
        noise = mx.array(0.1 * rng.normal(size=value.shape), value.dtype)
        layer.load_weights([(name, value + noise)], strict=False)
    return layer.eval()


def data(dtype=np.float32, batch=B):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(batch, T, I)).astype(dtype)
    h = (0.5 * rng.normal(size=(batch, N))).astype(dtype)
    timespans = rng.uniform(0.1, 2.0, (batch, T)).astype(dtype)
    resets = rng.random((batch, T)) < 0.3
    return x, h, timespans, resets


def times_of(times, varying, resets):
    """The arguments `timespans` and `resets` of one of TIMES."""
    timespans, with_resets = TIMES[times]
    return varying if timespans == "varying" else timespans, resets if with_resets else None


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("case", CASES)
def test_outputs_states_and_gradients_equal_the_torch_port(case, times):
    """In float64, whose sigmoid MLX takes to about 3e-8 only."""
    ours, theirs = twins(case)
    x, h, varying, resets = data(np.float64)
    timespans, resets = times_of(times, varying, resets)
    cotangent = np.random.default_rng(2).normal(size=(B, T, ours.output_size))
    if getattr(ours, "proj_size", None):
        cotangent = cotangent[..., : ours.proj_size]
    inputs = [x, h] + ([timespans] if times == "varying" else [])

    def run(layer, x, h, timespans, resets):
        return layer(x, (h, 0.5 * h) if layer.use_mixed else h, timespans, resets)

    def loss(parameters, x, h, dt=timespans):
        ours.update(parameters)
        out, last = run(ours, x, h, dt, as_mlx(resets))
        return (out * mx.array(cotangent, mx.float64)).sum(), out, last

    arguments = (ours.trainable_parameters(), *(mx.array(i, mx.float64) for i in inputs))
    gradient = mx.value_and_grad(loss, argnums=list(range(len(arguments))))
    (_, out, last), (of_parameters, *of_inputs) = gradient(*arguments)

    leaves = [torch.tensor(i, requires_grad=True) for i in inputs]
    dt = leaves[2] if times == "varying" else timespans
    resets = None if resets is None else torch.tensor(resets)
    expected, expected_last = run(theirs, leaves[0], leaves[1], dt, resets)
    (expected * torch.tensor(cotangent)).sum().backward()
    np.testing.assert_allclose(out, expected.detach(), rtol=1e-6, atol=1e-6)
    for mine, other in zip(as_tuple(last), as_tuple(expected_last), strict=True):
        np.testing.assert_allclose(mine, other.detach(), rtol=1e-6, atol=1e-6)
    for mine, leaf in zip(of_inputs, leaves, strict=True):
        np.testing.assert_allclose(mine, leaf.grad, rtol=1e-5, atol=1e-5)
    found = dict(tree_flatten(of_parameters))
    wanted = dict(theirs.named_parameters())
    assert found.keys() == wanted.keys()
    for name, parameter in wanted.items():
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        np.testing.assert_allclose(found[name], grad, rtol=1e-5, atol=1e-5, err_msg=name)


def twins(case):
    """The same layer, with the same weights, here and in torch, in float64."""
    ours, theirs = randomise(make(ncp_agents.mlx, case)), make(ncp_agents.torch, case)
    ours.set_dtype(mx.float64)
    theirs.double().eval()
    theirs.load_state_dict({k: torch.tensor(v) for k, v in weights(ours).items()})
    return ours, theirs


def as_mlx(values):
    return mx.array(values) if isinstance(values, np.ndarray) else values


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("timespan", [1.0, 0.3, "varying"])
def test_cells_take_one_step_of_the_equations(timespan):
    x, h, timespans, _ = data()
    x = x[:, 0]
    dt = timespans[:, :1] if timespan == "varying" else timespan
    inputs = (mx.array(x), mx.array(h), as_mlx(dt))

    cell = ncp_agents.mlx.CfCCell(I, N, "no_gate", backbone_units=7)
    out, state = cell(*inputs)
    expected = equations.cfc_step(x, h, weights(cell), "no_gate", dt)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    assert mx.array_equal(out, state)

    wired = ncp_agents.mlx.WiredCfCCell(I, AutoNCP(N, 3))
    expected = equations.wired_cfc_step(x, h, weights(wired), wired.wiring, timespan=dt)
    for ours, theirs in zip(wired(*inputs), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)

    ltc = ncp_agents.mlx.LTCCell(AutoNCP(N, 3), I)
    expected = equations.ltc_step(x, h, weights(ltc), timespan=dt)
    out, state = ltc(*inputs)
    np.testing.assert_allclose(state, expected, atol=1e-5)
    np.testing.assert_allclose(out, equations.ltc_output(expected, weights(ltc), 3), atol=1e-5)


@pytest.mark.parametrize("case", FEW)
def test_cut_sequence_equals_whole(case):
    layer = randomise(make(ncp_agents.mlx, case))
    x, _, timespans, resets = map(mx.array, data())
    whole, last = layer(x, None, timespans, resets)
    first, state = layer(x[:, :2], None, timespans[:, :2], resets[:, :2])
    second, state = layer(x[:, 2:], state, timespans[:, 2:, None], resets[:, 2:])
    np.testing.assert_allclose(mx.concatenate([first, second], 1), whole, atol=1e-6)
    for ours, theirs in zip(as_tuple(state), as_tuple(last), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("case", FEW)
def test_shapes_of_time_and_batch_agree(case):
    layer = randomise(make(ncp_agents.mlx, case))
    x, _, timespans, resets = map(mx.array, data())
    whole, _ = layer(x, None, timespans, resets)
    row, _ = layer(x[1], None, timespans[1], resets[1])
    np.testing.assert_allclose(row, whole[1], atol=1e-6)
    layer.return_sequences = False
    np.testing.assert_allclose(layer(x, None, timespans, resets)[0], whole[:, -1], atol=1e-6)
    np.testing.assert_allclose(layer(x[1], None, timespans[1], resets[1])[0], row[-1], atol=1e-6)
    layer.batch_first = False
    swapped = (x.swapaxes(0, 1), None, timespans.T, resets.T)
    np.testing.assert_allclose(layer(*swapped)[0], whole[:, -1], atol=1e-6)
    layer.return_sequences = True
    np.testing.assert_allclose(layer(*swapped)[0].swapaxes(0, 1), whole, atol=1e-6)


@pytest.mark.parametrize("case", ["wired default", "dense pure", "autoncp ltc"])
def test_timespan_a_row_equals_rows_run_alone(case):
    """With B == N, where a wrong broadcast would go unnoticed."""
    layer = randomise(make(ncp_agents.mlx, case))
    x, _, timespans, _ = map(mx.array, data(batch=N))
    together, _ = layer(x, None, timespans)
    for row in (0, N - 1):
        alone, _ = layer(x[row : row + 1], None, timespans[row : row + 1])
        np.testing.assert_allclose(together[row], alone[0], atol=1e-6)


def test_ltc_stands_still_for_a_timespan_of_0():
    layer = make(ncp_agents.mlx, "autoncp ltc")
    x, h, *_ = map(mx.array, data())
    for timespans in (0.0, mx.zeros((B, T))):
        states, _ = layer.states(x, h, timespans)
        assert mx.array_equal(states, mx.broadcast_to(h[:, None], states.shape))
    gradient = mx.grad(lambda t: layer(x, h, t)[0].sum())(mx.zeros((B, T)))
    assert mx.isfinite(gradient).all()


@pytest.mark.parametrize("case", FEW)
def test_compiled_equals_plain(case):
    layer = randomise(make(ncp_agents.mlx, case))
    x, _, timespans, resets = map(mx.array, data())
    plain, _ = layer(x, None, timespans, resets)
    mx.enable_compile()
    pointwise, _ = layer(x, None, timespans, resets)
    whole, _ = mx.compile(lambda *data: layer(data[0], None, *data[1:]))(x, timespans, resets)
    np.testing.assert_allclose(pointwise, plain, atol=1e-6)
    np.testing.assert_allclose(whole, plain, atol=1e-6)


@pytest.mark.parametrize("kind", ["CfC", "LTC"])
def test_learns_a_sine_wave_exactly_as_torch_does(kind):
    theirs = sine_task.layer(kind)
    layer = convert.make(convert.describe(theirs), convert.weights_of(theirs), "mlx")
    before = weights(layer)
    x, y = map(mx.array, sine_task.sine())
    optimizer = mlx.optimizers.SGD(sine_task.RATE, sine_task.MOMENTUM)
    loss = nn.value_and_grad(layer, lambda x, y: ((layer(x)[0] - y) ** 2).mean())

    def step(x, y):
        value, gradient = loss(x, y)
        optimizer.update(layer, gradient)
        return value

    state = [layer.state, optimizer.state]
    if kind == "CfC":
        mx.enable_compile()
        step = mx.compile(step, inputs=state, outputs=state)
    losses = []
    for _ in range(sine_task.STEPS):
        losses.append(step(x, y).item())
        mx.eval(state)
    assert losses[-1] < 0.7 * losses[0]
    np.testing.assert_allclose(losses, sine_task.losses(kind), rtol=2e-3)
    after = weights(layer)
    for name, value in before.items():
        assert ("sparsity_mask" in name) == np.array_equal(value, after[name]), name


def test_compiled_ltc_gradients_equal_plain():
    layer = make(ncp_agents.mlx, "autoncp ltc")
    x = mx.array(data()[0][:, :2])
    gradient = nn.value_and_grad(layer, lambda x: (layer(x)[0] ** 2).sum())
    _, plain = gradient(x)
    mx.enable_compile()
    _, compiled = mx.compile(gradient, inputs=layer.state, outputs=layer.state)(x)
    for (name, ours), (_, theirs) in zip(tree_flatten(compiled), tree_flatten(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_files_pass_between_torch_and_mlx(case, tmp_path):
    theirs = make(ncp_agents.torch, case)
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "torch.safetensors")
    ours = make(ncp_agents.mlx, case)
    ours.load_weights(str(tmp_path / "torch.safetensors"))
    ours.save_weights(str(tmp_path / "mlx.safetensors"))
    back = safetensors.torch.load_file(tmp_path / "mlx.safetensors")
    assert back.keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, back[name]), name


@pytest.mark.parametrize("kind", ["CfC", "LTC"])
def test_loaded_masks_decide_which_synapses_exist(kind):
    x = mx.array(data()[0])
    trained, other = (getattr(ncp_agents.mlx, kind)(I, AutoNCP(N, 3, seed=s)) for s in (1, 2))
    model = nn.Sequential(other)
    model.load_weights([(f"layers.0.{k}", mx.array(v)) for k, v in weights(trained).items()])
    np.testing.assert_allclose(other(x)[0], trained(x)[0], atol=1e-6)


@pytest.mark.parametrize("case", FEW)
def test_masks_stay_frozen(case):
    layer = make(ncp_agents.mlx, case)
    layer.freeze()
    layer.unfreeze()
    trainable = dict(tree_flatten(layer.trainable_parameters()))
    masks = {name for name in weights(layer) if name.endswith("sparsity_mask")}
    assert trainable.keys() == weights(layer).keys() - masks

    nn.Sequential(layer).unfreeze()  # of which MLX does not tell the layer
    x, parameters = mx.array(data()[0]), layer.trainable_parameters()
    gradient = mx.grad(lambda p: (layer.update(p)(x)[0] ** 2).sum())(parameters)
    for name, value in tree_flatten(gradient):
        assert name not in masks or not value.any(), name


def test_backbone_dropout_drops_in_training_only():
    layer = ncp_agents.mlx.CfC(I, N, backbone_dropout=0.5)
    x = mx.array(data()[0])
    assert not mx.array_equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert mx.array_equal(layer(x)[0], layer(x)[0])


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("case", FEW)
def test_half_precision_stays(case, dtype):
    layer = randomise(make(ncp_agents.mlx, case))
    x, _, timespans, resets = data()
    exact, _ = layer(mx.array(x), None, mx.array(timespans), mx.array(resets))
    layer.set_dtype(dtype)
    out, state = layer(mx.array(x, dtype), None, mx.array(timespans), mx.array(resets))
    assert {out.dtype, *(part.dtype for part in as_tuple(state))} == {dtype}
    np.testing.assert_allclose(out.astype(mx.float32), exact, atol=0.1)


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_cells_of_half_precision_stay_with_timespans_of_float32(dtype):
    x, h, timespans, _ = data()
    cells = [ncp_agents.mlx.CfCCell(I, N), ncp_agents.mlx.WiredCfCCell(I, AutoNCP(N, 3))]
    for cell in (*cells, ncp_agents.mlx.LTCCell(AutoNCP(N, 3), I)):
        cell.set_dtype(dtype)
        out, state = cell(mx.array(x[:, 0], dtype), mx.array(h, dtype), mx.array(timespans[:, 0]))
        assert (out.dtype, state.dtype) == (dtype, dtype)


def test_balanced_layers_keep_the_signal():
    layer = ncp_agents.mlx.CfC(32, AutoNCP(64, 16, 0.75), init="balanced")
    states, _ = layer.states(mx.random.normal((16, 40, 32)))
    by_layer = mx.split(states[:, -1], [*np.cumsum(layer.rnn_cell.layer_sizes)[:-1].tolist()], -1)
    sizes = [mx.std(part).item() for part in by_layer]
    assert min(sizes) > 0.5 * max(sizes)


def test_apply_weight_constraints_clips():
    cell = ncp_agents.mlx.LTCCell(AutoNCP(N, 3), I)
    cell.cm = cell.cm - 0.5
    cell.apply_weight_constraints()
    assert cell.cm.min().item() == 0.0
