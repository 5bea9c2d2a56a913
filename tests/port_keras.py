"""Answers the cases of `port_cases.py` with the Keras port, on the backend KERAS_BACKEND names.

Run as a process of its own, since a process has one backend: port_keras.py QUESTIONS ANSWERS.
"""

import sys

import keras
import port_answers

from ncp_agents.export import convert
from ncp_agents.layers.weights import transposed


def answer(description, arrays, weights):
    layer = convert.make(description, weights, "keras")
    layer.return_state = True
    names = layer.named_weights()
    inputs = {name: arrays[name] for name in ("x", "timespans", "h", "c") if name in arrays}

    cotangent, h_cotangent = (
        keras.ops.convert_to_tensor(arrays[name]) for name in ("cotangent", "h_cotangent")
    )

    def outputs(inputs):
        x = inputs["x"] if "timespans" not in inputs else (inputs["x"], inputs["timespans"])
        start = [inputs[name] for name in ("h", "c") if name in inputs]
        output, state, *_ = layer(x, initial_state=start, mask=arrays.get("mask"))
        pairs = (output, cotangent), (state, h_cotangent)
        return sum(keras.ops.sum(a * b) for a, b in pairs), (output, state)

    of_inputs, of_weights, (output, state) = GRADIENTS[keras.backend.backend()](
        outputs, inputs, [*names.values()]
    )
    gradients = {f"gradient/{name}": g for name, g in of_inputs.items()}
    for name, gradient in zip(names, of_weights, strict=True):
        gradient = keras.ops.convert_to_numpy(gradient)
        gradients[f"gradient/weights/{name}"] = transposed(name, gradient)
    return {
        name: keras.ops.convert_to_numpy(value)
        for name, value in {"output": output, "state": state, **gradients}.items()
    }


def _with_tensorflow(outputs, inputs, variables):
    import tensorflow as tf

    @tf.function
    def gradients(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss, seen = outputs(inputs)
        sources = (inputs, [variable.value for variable in variables])
        zero = tf.UnconnectedGradients.ZERO
        return *tape.gradient(loss, sources, unconnected_gradients=zero), seen

    return gradients({name: tf.constant(value) for name, value in inputs.items()})


def _with_torch(outputs, inputs, variables):
    import torch

    inputs = {name: torch.tensor(value, requires_grad=True) for name, value in inputs.items()}
    loss, seen = outputs(inputs)
    sources = [*inputs.values(), *(variable.value for variable in variables)]
    found = torch.autograd.grad(loss, sources, materialize_grads=True)
    of_inputs = dict(zip(inputs, found, strict=False))
    return of_inputs, found[len(inputs) :], [value.detach() for value in seen]


def _with_jax(outputs, inputs, variables):
    import jax

    def stateless(inputs, values):
        pairs = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return outputs(inputs)

    values = [variable.value for variable in variables]
    compiled = jax.jit(jax.grad(stateless, argnums=(0, 1), has_aux=True))
    gradients, seen = compiled(inputs, values)
    return *gradients, seen


GRADIENTS = {"tensorflow": _with_tensorflow, "torch": _with_torch, "jax": _with_jax}

if __name__ == "__main__":
    port_answers.answer_file(answer, *sys.argv[1:])
