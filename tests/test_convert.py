"""Layers from one port to another: by file, in code, and from saved policies."""

from pathlib import Path

import mlx.core as mx
import ncps.torch
import ncps.wirings
import numpy as np
import pytest
import safetensors.torch
import torch

import ncp_agents.keras
import ncp_agents.torch
from ncp_agents.errors import UserError
from ncp_agents.export import convert
from ncp_agents.torch.from_ncps import from_ncps
from ncp_agents.wirings import NCP, AutoNCP

from keras import ops  # isort: skip  # after the port, which chooses the backend

# Keras's variables on torch; NumPy still takes them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

POLICY = Path(__file__).parent.parent / "policies"
B, T, I = 2, 5, 3  # noqa: E741

LAYERS = {
    "dense": lambda: ncp_agents.torch.CfC(
        I, 7, backbone_units=5, backbone_layers=3, mode="no_gate"
    ),
    "dropout": lambda: ncp_agents.torch.CfC(I, 7, backbone_layers=3, backbone_dropout=0.2),
    "wired": lambda: ncp_agents.torch.CfC(I, AutoNCP(9, 2, seed=4), mask_time_gates=True),
    "memory": lambda: ncp_agents.torch.CfC(I, 6, mixed_memory=True, mode="pure"),
    "ltc": lambda: ncp_agents.torch.LTC(I, NCP(4, 3, 2, 2, 2, 1, 2, seed=1), ode_unfolds=3),
    "ltc memory": lambda: ncp_agents.torch.LTC(
        I, 5, mixed_memory=True, input_mapping=None, implicit_param_constraints=False
    ),
}


def output(layer, x):
    """Output (B, T, M) of a layer of any port."""
    port = type(layer).__module__.split(".")[1]
    if port == "keras":
        return ops.convert_to_numpy(layer(x))
    if port == "mlx":
        layer.eval()
        return np.array(layer(mx.array(x))[0])
    with torch.no_grad():
        return layer.eval()(torch.tensor(x))[0].numpy()


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(B, T, I)).astype("float32")


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_round_trip_through_every_port(make, x, tmp_path):
    layer = make()
    expected, path = output(layer, x), tmp_path / "layer.safetensors"
    for port in ("keras", "mlx", "keras", "torch", "mlx", "torch"):
        convert.save(layer, path)
        layer = convert.load(path, port)
        assert type(layer).__module__.startswith(f"ncp_agents.{port}.")
        np.testing.assert_allclose(output(layer, x), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("port", ["torch", "mlx"])
def test_the_order_of_axes_and_what_is_returned_come_along(port, tmp_path):
    layer = ncp_agents.torch.CfC(I, 8, batch_first=False, return_sequences=False)
    convert.save(layer, tmp_path / "layer.safetensors")
    loaded = convert.load(tmp_path / "layer.safetensors", port)
    assert (loaded.batch_first, loaded.return_sequences) == (False, False)
    with pytest.raises(UserError, match="time-major"):
        convert.load(tmp_path / "layer.safetensors", "keras")


@pytest.mark.parametrize(
    ("layer", "fact"),
    [
        (lambda: ncp_agents.torch.CfC(I, 8).double(), "float64"),
        (lambda: ncp_agents.torch.CfC(I, 8).bfloat16(), "BFloat16"),
        (lambda: ncp_agents.torch.CfC(I, 8).rnn_cell, "CfCCell"),
        (lambda: torch.nn.LSTM(2, 2), "LSTM"),
        (lambda: ncp_agents.keras.CfC(AutoNCP(9, 2)), "not built"),
        (lambda: built(fully_recurrent=False), "fully_recurrent=False"),
        (lambda: built(go_backwards=True), "go_backwards=True"),
    ],
)
def test_layers_that_no_file_can_hold_are_refused(layer, fact, tmp_path):
    with pytest.raises(UserError, match=fact):
        convert.save(layer(), tmp_path / "layer.safetensors")
    assert not list(tmp_path.iterdir())


def built(seed=4, **options):
    layer = ncp_agents.keras.CfC(AutoNCP(9, 2, seed=seed), mask_time_gates=True, **options)
    layer.build((None, None, I))
    return layer


def test_weights_of_keras_load_into_ncps_and_back(x, tmp_path):
    theirs = ncps.torch.CfC(I, ncps.wirings.AutoNCP(9, 2, seed=4))
    convert.save(from_ncps(theirs), tmp_path / "a.safetensors")
    layer = convert.load(tmp_path / "a.safetensors", "keras")
    with torch.no_grad():
        expected = theirs(torch.tensor(x))[0].numpy()
    np.testing.assert_allclose(output(layer, x), expected, rtol=0, atol=1e-5)

    layer.set_weights([value + 0.1 for value in layer.get_weights()])
    convert.save(layer, tmp_path / "b.safetensors")
    theirs.load_state_dict(safetensors.torch.load_file(tmp_path / "b.safetensors"))
    with torch.no_grad():
        moved = theirs(torch.tensor(x))[0].numpy()
    np.testing.assert_allclose(output(layer, x), moved, rtol=0, atol=1e-5)


def test_files_from_torch_to_keras_and_back(x, tmp_path):
    layer = LAYERS["ltc"]()
    a, b, c = (tmp_path / name for name in ("a.safetensors", "b.keras", "c.safetensors"))
    convert.save(layer, a)
    convert.convert(a, b)
    convert.convert(b, c)
    np.testing.assert_allclose(
        output(convert.load(c, "torch"), x), output(layer, x), rtol=0, atol=1e-6
    )


def test_the_circuit_of_a_saved_policy(tmp_path):
    from ncp_agents.agents import saved_policy

    folder = next(path.parent for path in sorted(POLICY.glob("*/weights.safetensors")))
    target = tmp_path / "circuit.keras"
    convert.convert(folder, target)
    layer = saved_policy.load(folder).network.circuit
    import keras

    x = np.random.default_rng(0).normal(size=(1, 4, layer.input_size)).astype("float32")
    model = keras.saving.load_model(target)
    np.testing.assert_allclose(model.predict(x, verbose=0), output(layer, x), rtol=0, atol=1e-5)
    content = bytearray(target.read_bytes())
    content[len(content) // 2] ^= 255
    target.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        convert.convert(target, tmp_path / "back.safetensors")


def test_weights_of_another_layer_are_refused():
    layer, other = LAYERS["wired"](), built(seed=5)
    before, weights = other.get_weights(), convert.weights_of(other)
    for name, value, fact in (
        (
            "rnn_cell.layer_0.sparsity_mask",
            1 - weights["rnn_cell.layer_0.sparsity_mask"],
            "synapses",
        ),
        ("rnn_cell.layer_0.ff1.weight", np.zeros((2, 2)), r"\(2, 2\)"),
    ):
        with pytest.raises(UserError, match=fact):
            convert.set_weights(other, weights | {name: value})
    for ours in (layer, other):
        some = dict(convert.weights_of(ours))
        del some["rnn_cell.layer_1.ff2.bias"]
        with pytest.raises(UserError, match=r"layer_1.ff2.bias"):
            convert.set_weights(ours, some)
    assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))


@pytest.mark.parametrize(
    "described", ["{", "[]", "{}", "[" * 100_000, '{"kind": "CfC"}', '{"kind": "CfC", "units": 4}']
)
def test_a_damaged_description_is_refused(described, tmp_path):
    path = tmp_path / "layer.safetensors"
    safetensors.torch.save_file(LAYERS["wired"]().state_dict(), path, {"layer": described})
    with pytest.raises(UserError, match="does not describe"):
        convert.load(path, "torch")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "layer.safetensors"
    with pytest.raises(UserError, match="is not a file"):
        convert.load(path, "keras")
    path.write_text("no tensors")
    with pytest.raises(UserError, match="safetensors"):
        convert.load(path, "keras")
    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="no metadata"):
        convert.load(path, "torch")
    convert.save(ncp_agents.torch.CfC(I, AutoNCP(9, 2), proj_size=1), path)
    with pytest.raises(UserError, match="proj_size"):
        convert.load(path, "keras")
    with pytest.raises(ValueError, match="port 'tf'"):
        convert.load(path, "tf")
    with pytest.raises(UserError, match=r"\.h5"):
        convert.convert(path, tmp_path / "model.h5")
