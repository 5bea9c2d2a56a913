"""Every port computes the same: outputs and gradients of one table of cases."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import port_cases
import pytest
from port_cases import CASES

HERE = Path(__file__).parent

QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling takes longer than running
# For each port: the script that answers the cases, in a process of its own, what is set in its
# environment, and the feature that its layers lack.
PORTS = {
    "keras on tensorflow": ("port_keras.py", {"KERAS_BACKEND": "tensorflow"}, "resets"),
    "keras on jax": ("port_keras.py", {"KERAS_BACKEND": "jax", **QUICK}, "resets"),
    "keras on torch": ("port_keras.py", {"KERAS_BACKEND": "torch"}, "resets"),
    "mlx": ("port_mlx.py", {}, "masked"),
    "torch": ("port_torch.py", {}, "masked"),
    "torch without kernels": ("port_torch.py", {"NCP_AGENTS_KERNELS": "0"}, "masked"),
}


def has(port, case):
    return not getattr(case, PORTS[port][2])


@pytest.fixture(scope="module")
def questions():
    """(description, arrays) of every case."""
    return [port_cases.question(case, seed) for seed, case in enumerate(CASES)]


@pytest.fixture(scope="module")
def answers(request, questions, tmp_path_factory):
    """What a port answers to each case that it can have."""
    script, environment, _ = PORTS[request.param]
    folder = tmp_path_factory.mktemp("port")
    asked = [number for number, case in enumerate(CASES) if has(request.param, case)]
    arrays = {"descriptions": json.dumps([questions[number][0] for number in asked])}
    for place, number in enumerate(asked):
        arrays |= {f"{place}/{name}": value for name, value in questions[number][1].items()}
    np.savez(folder / "questions.npz", **arrays)
    run = subprocess.run(
        [sys.executable, HERE / script, folder / "questions.npz", folder / "answers.npz"],
        env={**os.environ, **environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    found: dict[int, dict] = {number: {} for number in asked}
    for key, value in np.load(folder / "answers.npz").items():
        place, name = key.split("/", 1)
        found[asked[int(place)]][name] = value
    return found


NEEDS = {"keras on tensorflow": "tensorflow", "keras on jax": "jax", "mlx": "mlx"}
INSTALLED = [port for port in PORTS if find_spec(NEEDS.get(port, "torch"))]


@pytest.mark.parametrize("answers", INSTALLED, indirect=True)
def test_port_agrees_with_the_equations(answers, questions):
    wrong = []
    for number, answer in answers.items():
        try:
            expected = port_cases.answer(CASES[number], questions[number][1])
            port_cases.check(answer, expected)
        except AssertionError as error:
            wrong.append(f"{CASES[number]}: {error}")
    assert not wrong, "\n\n".join(wrong)


def test_a_wrong_answer_is_noticed(questions):
    right = port_cases.answer(CASES[0], questions[0][1])
    name = "gradient/x"
    with pytest.raises(AssertionError, match=name):
        port_cases.check({**right, name: right[name] + 1e-4 * np.abs(right[name]).max()}, right)
