"""The Keras port as layers of Keras: against `keras.layers.RNN`, in models, in files, learning.

Runs on KERAS_BACKEND, and once more on TensorFlow and JAX, in processes of their own.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import sine_task

from ncp_agents.export import convert
from ncp_agents.keras import LTC, CfC, CfCCell, LTCCell, MixedMemoryRNN, WiredCfCCell
from ncp_agents.wirings import NCP, AutoNCP, Wiring

import keras  # isort: skip  # after the port, which chooses the backend
from keras import ops  # isort: skip

# Keras's variables on torch; NumPy still takes them.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

BACKEND = keras.backend.backend()
COMPILED = BACKEND != "torch"  # Keras's jit_compile on torch is torch.compile, which takes minutes
B, T, I = 3, 6, 4  # noqa: E741


def wiring():
    return AutoNCP(9, 2, seed=5)


LAYERS = {
    "dense": lambda **kw: CfC(7, backbone_units=5, **kw),
    "wired": lambda **kw: CfC(wiring(), **kw),
    "ltc": lambda **kw: LTC(wiring(), ode_unfolds=2, **kw),
    "memory": lambda **kw: CfC(wiring(), mixed_memory=True, mode="pure", **kw),
}
each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def numpy(values):
    return np.asarray(ops.convert_to_numpy(values))


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(numpy(a), numpy(b), rtol=0, atol=tolerance)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(B, T, I)).astype("float32")


MASK = np.array([[1] * T, [0, 1, 1, 0, 1, 0], [0, 0, 1, 1, 0, 1]], bool)


@each_layer
@pytest.mark.parametrize(
    "options",
    [
        {"go_backwards": True},
        {"unroll": True, "return_sequences": False},
        {"zero_output_for_mask": True, "go_backwards": True},
        {"unroll": True},
    ],
    ids=str,
)
def test_equals_keras_running_the_cell(make, options, x):
    options = {"return_sequences": True, "return_state": True, **options}
    layer = make(**options)
    layer(x)
    # On JAX, Keras's loop takes the state for the last output where a step is masked.
    unroll = BACKEND == "jax" and not options.get("zero_output_for_mask")
    reference = keras.layers.RNN(layer.cell, **{"unroll": unroll, **options})
    for mask in (None, MASK):
        for ours, theirs in zip(layer(x, mask=mask), reference(x, mask=mask), strict=True):
            close(ours, theirs)


@each_layer
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("return_state", [False, True])
def test_shapes_are_as_announced(make, return_sequences, return_state, x):
    layer = make(return_sequences=return_sequences, return_state=return_state)
    outputs = layer(x)
    announced = layer.compute_output_shape(x.shape)
    if return_state:
        assert [tuple(o.shape) for o in outputs] == list(announced)
    else:
        assert tuple(outputs.shape) == announced
    timed = make(return_sequences=return_sequences)
    assert timed.compute_output_shape([(None, None, I), (None, None, 1)])[0] is None


@each_layer
def test_state_is_kept_between_batches(make, x):
    whole = make(return_sequences=True)
    parts = make(return_sequences=True, stateful=True)
    expected = whole(x)
    parts.build((B, T // 2, I))
    parts.set_weights(whole.get_weights())
    first, second = parts(x[:, : T // 2]), parts(x[:, T // 2 :])
    close(ops.concatenate([first, second], axis=1), expected)
    parts.reset_state()
    close(parts(x[:, : T // 2]), first)


def test_state_in_and_out(x):
    layer = CfC(wiring(), mixed_memory=True, return_sequences=True, return_state=True)
    expected, *last = layer(x)
    _, *middle = layer(x[:, :2])
    rest, *end = layer(x[:, 2:], initial_state=middle)
    close(rest, expected[:, 2:])
    for a, b in zip(end, last, strict=True):
        close(a, b)


def gradient_of_a_gradient(function, x):
    if BACKEND == "torch":
        import torch

        x = torch.tensor(x, requires_grad=True)
        (gradient,) = torch.autograd.grad(function(x), x, create_graph=True)
        return torch.autograd.grad(ops.sum(gradient**2), x)[0]
    if BACKEND == "jax":
        import jax

        gradient = jax.grad(function)
        return jax.grad(lambda x: ops.sum(gradient(x) ** 2))(x)
    import tensorflow as tf

    x = tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = function(x)
        squared = ops.sum(inner.gradient(value, x) ** 2)
    return outer.gradient(squared, x)


@pytest.mark.parametrize("kind", ["dense", "wired", "ltc"])  # "memory" has no custom backward
def test_second_derivatives_are_refused(kind, x):
    layer = LAYERS[kind](return_sequences=True)
    layer(x)
    with pytest.raises(RuntimeError, match=r"keras\.layers\.RNN"):
        gradient_of_a_gradient(lambda x: ops.sum(layer(x) ** 2), x)
    steps = keras.layers.RNN(layer.cell, return_sequences=True)
    assert numpy(gradient_of_a_gradient(lambda x: ops.sum(steps(x) ** 2), x)).any()


@each_layer
def test_timespans_are_a_second_input(make, x):
    layer = make(return_sequences=True)
    ones, twos = np.ones((B, T), "float32"), np.full((B, T, 1), 2.0, "float32")
    close(layer((x, ones)), layer(x))
    assert np.abs(numpy(layer((x, twos))) - numpy(layer(x))).max() > 1e-3
    inputs = [keras.Input((T, I)), keras.Input((T,))]
    model = keras.Model(inputs, layer(inputs))
    close(model([x, twos[..., 0]]), layer((x, twos)))


def test_masking_skips_padding(x):
    layer = LAYERS["wired"]()
    padded = np.concatenate([x, np.zeros((B, 3, I), "float32")], axis=1)
    model = keras.Sequential([keras.layers.Masking(), layer])
    close(model(padded), layer(x))


def test_bidirectional_and_time_distributed(x):
    both = keras.layers.Bidirectional(LAYERS["wired"](return_sequences=True))
    output = numpy(both(x))
    forward, backward = both.forward_layer, both.backward_layer
    close(output[..., :2], forward(x))
    close(output[:, ::-1, 2:], backward(x))
    assert backward.go_backwards

    layer = LAYERS["ltc"]()
    many = np.stack([x, 2 * x], axis=1)
    outputs = keras.layers.TimeDistributed(layer)(many)
    close(outputs[:, 0], layer(x))
    close(outputs[:, 1], layer(2 * x))


@each_layer
def test_dtype_policies(make, x):
    mixed = make(dtype="mixed_bfloat16", return_sequences=True)
    plain = make(return_sequences=True)
    plain(x)
    output = mixed(x)
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert {v.dtype for v in mixed.trainable_variables} == {"float32"}
    mixed.set_weights(plain.get_weights())
    close(ops.cast(mixed(x), "float32"), plain(x), 0.06)  # bfloat16 has 8 bits
    if BACKEND != "jax":  # which has no float64 unless told so
        assert numpy(make(dtype="float64")(x)).dtype == np.float64


@each_layer
def test_config_round_trip(make, x):
    layer = make(return_sequences=True, name="circuit", unroll=True)
    expected = layer(x)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    again(x)
    again.set_weights(layer.get_weights())
    close(again(x), expected)


@pytest.mark.parametrize(
    "cell",
    [
        CfCCell(5, "no_gate", "relu", 6, 2, sparsity_mask=None),
        CfCCell(2, backbone_units=0, sparsity_mask=np.eye(I + 2, 2)),
        WiredCfCCell(NCP(4, 3, 2, 2, 2, 1, 2, seed=1), fully_recurrent=False),
        LTCCell(wiring(), None, "linear", 3, initialization_ranges={"w": (0.1, 0.2)}),
        MixedMemoryRNN(CfCCell(3), forget_gate_bias=2.0),
    ],
    ids=lambda cell: type(cell).__name__,
)
def test_cells_round_trip_and_run_in_keras_rnn(cell, x):
    config = keras.saving.serialize_keras_object(cell)
    again = keras.saving.deserialize_keras_object(config)
    assert keras.saving.serialize_keras_object(again) == config
    for one in (cell, again):
        assert keras.layers.RNN(one)(x).shape == (B, one.output_size)


def test_cells_take_a_state_as_it_is(x):
    for cell in (CfCCell(7), WiredCfCCell(wiring()), LTCCell(wiring())):
        h = np.full((B, cell.state_size), 0.1, "float32")
        output, (state,) = cell(x[:, 0], h)
        assert (output.shape, state.shape) == ((B, cell.output_size), (B, cell.state_size))
        close(output, cell(x[:, 0], [h])[0])
        with pytest.raises(ValueError, match="states are 2 tensors"):
            cell(x[:, 0], [h, h])
    with pytest.raises(ValueError, match="mixed memory"):
        MixedMemoryRNN(CfCCell(7))(x[:, 0], [np.zeros((B, 7), "float32")])


def test_recurrence_can_follow_the_wiring(x):
    circuit = NCP(4, 3, 2, 2, 2, 1, 2, seed=1)
    layer = CfC(circuit, fully_recurrent=False)
    layer(x)
    command = layer.cell.cells[1]
    neurons = circuit.get_neurons_of_layer(1)
    np.testing.assert_array_equal(
        command.spec.sparsity_mask[4:], circuit.adjacency_matrix[np.ix_(neurons, neurons)] != 0
    )


LOAD = """
import sys, numpy as np, ncp_agents.keras, keras
model = keras.saving.load_model(sys.argv[1])
given = np.load(sys.argv[2])
np.save(sys.argv[3], model.predict([given["x"], given["times"]], verbose=0))
"""


def test_a_file_opens_in_a_fresh_process(x, tmp_path):
    inputs = keras.Input((None, I))
    hidden = keras.layers.Bidirectional(LAYERS["dense"](return_sequences=True))(inputs)
    outputs = [
        LAYERS["wired"]()(hidden),
        LAYERS["ltc"]()(hidden),
        LAYERS["memory"](go_backwards=True)(hidden),
    ]
    times = keras.Input((None,))
    outputs.append(LAYERS["wired"]()([hidden, times]))
    model = keras.Model([inputs, times], keras.layers.Concatenate()(outputs))
    model.save(tmp_path / "model.keras")
    arrays = {"x": x, "times": np.full((B, T), 0.5, "float32")}
    np.savez(tmp_path / "x.npz", **arrays)
    paths = [tmp_path / name for name in ("model.keras", "x.npz", "y.npy")]
    subprocess.run([sys.executable, "-c", LOAD, *paths], check=True)
    close(np.load(tmp_path / "y.npy"), model(list(arrays.values())))


@pytest.mark.parametrize("kind", ["CfC", "LTC"])
def test_learns_a_sine_wave_exactly_as_torch_does(kind):
    x, y = sine_task.sine()
    theirs = sine_task.layer(kind)
    ours = convert.make(convert.describe(theirs), convert.weights_of(theirs), "keras")
    model = keras.Sequential([keras.Input(x.shape[1:]), ours])
    sgd = keras.optimizers.SGD(sine_task.RATE, sine_task.MOMENTUM)
    model.compile(sgd, "mse", jit_compile=COMPILED)
    fitted = model.fit(x, y, len(x), sine_task.STEPS, verbose=0, shuffle=False)
    assert model.jit_compile == COMPILED
    losses = fitted.history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    np.testing.assert_allclose(losses, sine_task.losses(kind), rtol=2e-3)


def test_dropout_only_in_training(x):
    layer = CfC(8, backbone_dropout=0.5, return_sequences=True)
    close(layer(x), layer(x))
    assert np.abs(numpy(layer(x, training=True)) - numpy(layer(x, training=True))).max() > 1e-3
    inputs = keras.Input((T, I))
    model = keras.Model(inputs, layer(inputs))
    model.compile("sgd", "mse", jit_compile=COMPILED)
    history = model.fit(x, np.zeros((B, T, 8), "float32"), epochs=3, verbose=0).history
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.layers.RNN(  # on JAX, a loop drops the same activations in each batch
            CfCCell(5, backbone_units=4, backbone_layers=2, backbone_dropout=0.5), unroll=True
        ),
        lambda: CfC(5, mixed_memory=True, backbone_dropout=0.5, unroll=True),
    ],
    ids=["cell in keras.layers.RNN", "mixed memory"],
)
def test_dropout_where_steps_are_taken_one_by_one(make, x):
    layer = make()
    model = keras.Sequential([keras.Input((T, I)), layer])
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=COMPILED)
    losses = model.fit(x, np.zeros((B, 5), "float32"), epochs=5, verbose=0).history["loss"]
    assert len(set(losses)) > 1  # nothing is learnt, but other activations are dropped
    close(model(x), model(x))


@pytest.mark.skipif(BACKEND == "torch", reason="torch.compile takes minutes")
@pytest.mark.parametrize("kind", [CfC, LTC])
def test_mixed_memory_is_compiled_unrolled(kind, x):
    layer = kind(wiring(), mixed_memory=True, unroll=True)
    model = keras.Sequential([keras.Input((T, I)), layer])
    model.compile("adam", "mse", jit_compile=True)
    losses = model.fit(x, np.zeros((B, 2), "float32"), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_conductances_stay_positive(x):
    layer = LTC(wiring(), ode_unfolds=2)
    model = keras.Sequential([keras.Input((T, I)), layer])
    model.compile(keras.optimizers.SGD(30.0), "mse", jit_compile=False)
    model.fit(x, np.ones((B, 2), "float32"), epochs=1, verbose=0)
    values = {name: numpy(value.value) for name, value in layer.cell.params.items()}
    assert min(values[name].min() for name in ("w", "sensory_w", "cm", "gleak")) == 0.0
    assert np.isfinite(numpy(layer(x))).all()


def test_no_synapses_at_all(x):
    assert numpy(LTC(Wiring(3))(x)).shape == (B, 3)


def test_the_activation_may_be_keras_s_function():
    assert CfC(4, activation=keras.activations.tanh).get_config()["activation"] == "tanh"


def test_options_without_effect_are_ignored():
    CfC(wiring(), backbone_units=4, activation="relu")
    CfC(4, fully_recurrent=False, mask_time_gates=True)


def built_for_another_size():
    own = wiring()
    own.build(I + 1)
    return CfC(own)


@pytest.mark.parametrize(
    ("run", "fact"),
    [
        (lambda x: CfC(4, mode="pur"), "did you mean 'pure'"),
        (lambda x: CfC(4, activation="swish"), "swish"),
        (lambda x: CfCCell(4, sparsity_mask=np.ones((8, 4))), "no backbone is allowed"),
        (lambda x: CfC(4, backbone_units=0, sparsity_mask=np.ones((7, 4)))(x), "sparsity_mask"),
        (lambda x: LTC(4, initialization_ranges={"w": (-1.0, 1.0)}), "range of w"),
        (lambda x: LTC(4, initialization_ranges={"v": (0.0, 1.0)}), "parameter 'v'"),
        (lambda x: CfC(4)((x, x[..., :2])), "timespans has shape"),
        (lambda x: built_for_another_size()(x), "built for 5 inputs"),
    ],
)
def test_mistakes_are_named(run, fact, x):
    with pytest.raises(ValueError, match=fact):
        run(x)


def test_input_of_another_width_is_refused(x):
    layer = CfC(wiring())
    layer(x)
    for width in (I - 1, I + 1):
        with pytest.raises(ValueError, match=f"6, {width}"):
            layer(np.ones((2, T, width), "float32"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend", [pytest.param("tensorflow", marks=pytest.mark.tensorflow), "jax"]
)
def test_on_the_other_backends(backend):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "KERAS_BACKEND": backend, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:]
