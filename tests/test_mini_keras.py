"""mini_keras: Keras 3's own names with our layers among them, and the backend that it takes."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

pytestmark = pytest.mark.slow

SEQUENTIAL = """
from ncp_agents.mini_keras import layers, models

model = models.Sequential(
    [
        layers.InputLayer(input_shape=(None, 20)),
        layers.Dense(50, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]
)

import keras, numpy as np
from ncp_agents.mini_keras import activations, backend
assert backend.backend() == "torch"
assert layers.Dense is keras.layers.Dense and models.Model is keras.models.Model
assert activations.relu is keras.activations.relu

model.add(layers.CfC(8))
model.add(layers.Dense(1))
model.compile("adam", "mse")
x = np.random.default_rng(0).normal(size=(16, 5, 20))
history = model.fit(x, x[:, -1, :1], epochs=8, verbose=0).history["loss"]
assert history[-1] < history[0], history
"""


def run(code, home, **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={"HOME": str(home), "PATH": "", **environment},
        capture_output=True,
        text=True,
    )


def test_the_documented_model_runs_and_fits(tmp_path):
    ran = run(SEQUENTIAL, tmp_path, KERAS_BACKEND="torch")
    assert ran.returncode == 0, ran.stderr


BACKEND = "from ncp_agents.mini_keras import backend; print(backend.backend())"


@pytest.mark.skipif(find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_without_tensorflow_keras_runs_on_torch(tmp_path):
    assert run(BACKEND, tmp_path).stdout.split() == ["torch"]


@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
def test_the_users_choice_stands(tmp_path):
    assert run(BACKEND, tmp_path, KERAS_BACKEND="jax").stdout.split() == ["jax"]
