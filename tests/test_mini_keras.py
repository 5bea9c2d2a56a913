"""mini_keras: Keras 3's own names with our layers among them, and the backend that it takes."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

# The seed document's snippet; TensorFlow is not to be had here.
SEQUENTIAL = """
import sys
sys.modules["tensorflow"] = None

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
assert backend.backend() == "torch", backend.backend()
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


def test_the_documented_model_runs_and_fits_without_tensorflow(tmp_path):
    ran = run(SEQUENTIAL, tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_the_users_choice_stands(tmp_path):
    code = "from ncp_agents.mini_keras import backend; print(backend.backend())"
    assert run(code, tmp_path, KERAS_BACKEND="jax").stdout.split() == ["jax"]
    (tmp_path / ".keras").mkdir(exist_ok=True)
    (tmp_path / ".keras/keras.json").write_text('{"backend": "jax"}')
    assert run(code, tmp_path).stdout.split() == ["jax"]


@pytest.mark.parametrize("package", ["keras", "mini_keras"])
def test_without_keras_the_error_names_the_extra(package, tmp_path):
    code = f"import sys; sys.modules['keras'] = None; import ncp_agents.{package}"
    last = run(code, tmp_path).stderr.splitlines()[-1]
    assert last.startswith("ImportError: ncp_agents.keras needs keras: pip install 'ncp-agents[ker")
