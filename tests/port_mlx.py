"""Answers the cases of `port_cases.py` with the MLX port: port_mlx.py QUESTIONS ANSWERS."""

import sys

import mlx.core as mx
import numpy as np
import port_answers
from mlx.utils import tree_flatten

from ncp_agents.export import convert


def answer(description, arrays, weights):
    layer = convert.make(description, weights, "mlx")
    given = {name: mx.array(value) for name, value in arrays.items()}
    inputs = {name: given[name] for name in ("x", "timespans", "h", "c") if name in given}
    seen = []

    def loss(inputs, parameters):
        layer.update(parameters)
        state = (inputs["h"], inputs["c"]) if "c" in inputs else inputs["h"]
        output, state = layer(inputs["x"], state, inputs.get("timespans"), given.get("resets"))
        h = state[0] if isinstance(state, tuple) else state
        seen[:] = output, h
        return (output * given["cotangent"]).sum() + (h * given["h_cotangent"]).sum()

    parameters = layer.trainable_parameters()
    loss(inputs, parameters)
    output, h = (np.array(value) for value in seen)
    of_inputs, of_weights = mx.grad(loss, argnums=(0, 1))(inputs, parameters)
    gradients = {f"gradient/{name}": value for name, value in of_inputs.items()}
    gradients |= {f"gradient/weights/{name}": value for name, value in tree_flatten(of_weights)}
    gradients = {name: np.array(value) for name, value in gradients.items()}
    return {"output": output, "state": h, **gradients}


if __name__ == "__main__":
    port_answers.answer_file(answer, *sys.argv[1:])
