"""The layers in `tf.keras`: as documented, in tf.function, SavedModel and TFLite; other backends
refused."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

DOCUMENTED = """
import sys
import numpy as np
import tensorflow as tf

from ncp_agents.tf import LTC
from ncp_agents.wirings import AutoNCP

wiring = AutoNCP(28, 4)  # 28 neurons, 4 outputs
model = tf.keras.models.Sequential(
    [
        tf.keras.layers.InputLayer(input_shape=(None, 2)),
        LTC(wiring, return_sequences=True),
    ]
)

folder = sys.argv[1]
x = np.random.default_rng(0).normal(size=(8, 6, 2)).astype("float32")
model.compile("adam", "mse", jit_compile=True)
history = model.fit(x, np.zeros((8, 6, 4)), epochs=4, verbose=0).history["loss"]
assert history[-1] < history[0], history

expected = model(x).numpy()
compiled = tf.function(model, jit_compile=True)
np.testing.assert_allclose(compiled(x), expected, atol=1e-5)

model.export(f"{folder}/saved", verbose=False)
restored = tf.saved_model.load(f"{folder}/saved")
np.testing.assert_allclose(restored.serve(x), expected, atol=1e-5)
np.testing.assert_allclose(restored.serve(x[:3, :4]), expected[:3, :4], atol=1e-5)

# One step, its state going in and coming out.
x_now = tf.keras.Input((2,), batch_size=1, name="x")
v = tf.keras.Input((28,), batch_size=1, name="v")
output, (v_next,) = model.layers[-1].cell(x_now, [v])
step = tf.keras.Model([x_now, v], {"output": output, "v_next": v_next})
step.export(f"{folder}/step", verbose=False)
lite = tf.lite.TFLiteConverter.from_saved_model(f"{folder}/step").convert()
run = tf.lite.Interpreter(model_content=lite).get_signature_runner()
state = np.zeros((1, 28), "float32")
for t in range(6):
    now = run(x=x[:1, t], v=state)
    state = now["v_next"]
    np.testing.assert_allclose(now["output"], expected[:1, t], atol=1e-5)
"""


def run(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.tensorflow
def test_documented_model_trains_and_is_exported(tmp_path):
    ran = run(DOCUMENTED, tmp_path, KERAS_BACKEND="tensorflow")
    assert ran.returncode == 0, ran.stderr[-3000:]


DATASET = """
import numpy as np
import tensorflow as tf

from ncp_agents.datasets import AtariCloningDataset
from ncp_agents.tf import CfC

windows = AtariCloningDataset(env_name="Pong", split="val", sequence_length=8)
dataset = windows.as_tf_dataset()
assert len(dataset) == len(windows)
for i, (obs, actions) in enumerate(dataset.take(3)):
    theirs, taken = windows[i]
    np.testing.assert_allclose(np.moveaxis(obs, -1, 1), theirs, atol=1e-7)
    np.testing.assert_array_equal(actions, taken)

mixed = windows.as_tf_dataset(shuffle=True, seed=1)
first, second = ([a.numpy().tobytes() for _, a in mixed] for _ in range(2))
assert first != second  # another order in each epoch, of the same windows
assert sorted(first) == sorted(second) == sorted(a.numpy().tobytes() for _, a in dataset)

encoder = [tf.keras.layers.Conv2D(4, 8, 8, activation="relu"), tf.keras.layers.Flatten()]
model = tf.keras.Sequential(
    [*map(tf.keras.layers.TimeDistributed, encoder), CfC(6, return_sequences=True)]
)
loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, jit_compile=False)
history = model.fit(mixed.take(32).batch(8), epochs=3, verbose=0).history["loss"]
assert history[-1] < history[0], history
"""


@pytest.mark.tensorflow
def test_demos_as_a_dataset_of_tensorflow():
    ran = run(DATASET, KERAS_BACKEND="tensorflow")
    assert ran.returncode == 0, ran.stderr[-3000:]


@pytest.mark.tensorflow
def test_another_backend_is_refused():
    ran = run("import ncp_agents.tf", KERAS_BACKEND="torch")
    assert "KERAS_BACKEND=tensorflow" in ran.stderr.splitlines()[-1]


@pytest.mark.tensorflow
def test_layers_of_torch_work_beside_tensorflow():
    ran = run(
        "import tensorflow, torch; from ncp_agents.torch import CfC; import ncp_agents.sb3; "
        "print(CfC(4, 6)(torch.zeros(2, 3, 4))[0].shape)"
    )
    assert ran.stdout.strip() == "torch.Size([2, 3, 6])", ran.stderr


def test_without_tensorflow_the_error_names_the_extra():
    ran = run("import sys; sys.modules['tensorflow'] = None; import ncp_agents.tf")
    assert "ncp-agents[tf]" in ran.stderr.splitlines()[-1]
