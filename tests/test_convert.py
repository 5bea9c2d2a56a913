"""Layers from one port to another: by file, in code, and from saved policies."""

import json
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import mlx.core as mx
import ncps.torch
import ncps.wirings
import numpy as np
import pytest
import safetensors.torch
import torch
from keras import ops

import ncp_agents.keras
import ncp_agents.torch
from ncp_agents.errors import UserError
from ncp_agents.export import convert
from ncp_agents.torch.from_ncps import from_ncps
from ncp_agents.wirings import NCP, AutoNCP

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
    with pytest.raises(UserError, match="time-major, as layers of Keras never are"):
        convert.load(tmp_path / "layer.safetensors", "keras")


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            lambda: ncp_agents.torch.CfC(I, 8).double(),
            "is float64; save a copy of the layer in float32",
        ),
        (
            lambda: ncp_agents.torch.CfC(I, 8).bfloat16(),
            "BFloat16; take a copy of the layer in float32",
        ),
        (
            lambda: ncp_agents.torch.CfC(I, 8).rnn_cell,
            "layer is a .*CfCCell, expected a CfC or LTC",
        ),
    ],
)
def test_what_no_file_holds_is_refused(layer, message, tmp_path):
    with pytest.raises(UserError, match=message):
        convert.save(layer(), tmp_path / "layer.safetensors")
    assert not list(tmp_path.iterdir())


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
    with pytest.raises(UserError, match=r"\.keras cannot be read as a model of Keras"):
        convert.convert(target, tmp_path / "back.safetensors")


def test_mistakes_are_named(tmp_path):
    layer, path = LAYERS["wired"](), tmp_path / "layer.safetensors"
    other = ncp_agents.keras.CfC(AutoNCP(9, 2, seed=5), mask_time_gates=True)
    with pytest.raises(UserError, match="the layer is not built yet"):
        convert.weights_of(other)
    other.build((None, None, I))
    before = other.get_weights()
    with pytest.raises(UserError, match=r"sparsity_mask holds other synapses than the layer's"):
        convert.set_weights(other, convert.weights_of(layer))
    weights = convert.weights_of(other)
    with pytest.raises(UserError, match=r"ff1.weight has shape \(2, 2\), expected"):
        convert.set_weights(other, weights | {"rnn_cell.layer_0.ff1.weight": np.zeros((2, 2))})
    for ours in (layer, other):
        some = dict(convert.weights_of(ours))
        del some["rnn_cell.layer_1.ff2.bias"]
        with pytest.raises(UserError, match=r"not of this .*layer_1.ff2.bias"):
            convert.set_weights(ours, some)
    assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))

    with pytest.raises(UserError, match=r"expected a CfC or LTC of ncp_agents"):
        convert.save(torch.nn.LSTM(2, 2), path)
    halves = {"layer": torch.zeros(1, dtype=torch.bfloat16)}
    safetensors.torch.save_file(halves, path, {"layer": "{}"})
    with pytest.raises(UserError, match=r"is not a safetensors file of float32|does not describe"):
        convert.load(path, "torch")
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"layer": "[" * 100_000})
    with pytest.raises(UserError, match="does not describe a CfC or LTC"):
        convert.load(path, "torch")
    path.unlink()
    partly = ncp_agents.keras.CfC(AutoNCP(9, 2), fully_recurrent=False)
    partly.build((None, None, I))
    with pytest.raises(UserError, match="no other port has a layer with fully_recurrent=False"):
        convert.save(partly, path)
    backwards = ncp_agents.keras.CfC(AutoNCP(9, 2), go_backwards=True)
    backwards.build((None, None, I))
    with pytest.raises(UserError, match="no other port has a layer with go_backwards=True"):
        convert.save(backwards, path)
    assert not path.exists()
    with pytest.raises(UserError, match="is not a file"):
        convert.load(path, "keras")
    path.write_text("no tensors")
    with pytest.raises(UserError, match="is not a safetensors file"):
        convert.load(path, "keras")
    for told in ("{", "[]", "{}", '{"kind": "CfC"}', '{"kind": "CfC", "units": 4, "size": 3}'):
        safetensors.torch.save_file(layer.state_dict(), path, {"layer": told})
        with pytest.raises(UserError, match="does not describe a CfC or LTC layer"):
            convert.load(path, "torch")
    safetensors.torch.save_file(layer.state_dict(), path, {"more": json.dumps(1)})
    with pytest.raises(UserError, match="does not tell what layer its weights are of"):
        convert.load(path, "torch")
    convert.save(layer, path)
    with pytest.raises(ValueError, match="port 'tf' is unknown"):
        convert.load(path, "tf")
    with pytest.raises(UserError, match=r"ends in '\.h5', expected \.safetensors or \.keras"):
        convert.convert(path, tmp_path / "model.h5")
    convert.save(ncp_agents.torch.CfC(I, AutoNCP(9, 2), proj_size=1), path)
    with pytest.raises(UserError, match="proj_size, which layers of Keras lack"):
        convert.load(path, "keras")
