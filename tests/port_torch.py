"""Answers the cases of `port_cases.py` with the torch port, in float32 and its kernels:
port_torch.py QUESTIONS ANSWERS."""

import sys

import port_answers
import torch

from ncp_agents.export import convert


def answer(description, arrays, weights):
    layer = convert.make(description, weights, "torch")
    given = {name: torch.tensor(value) for name, value in arrays.items()}
    inputs = {name: given[name] for name in ("x", "timespans", "h", "c") if name in given}
    for leaf in inputs.values():
        leaf.requires_grad_()
    state = (inputs["h"], inputs["c"]) if "c" in inputs else inputs["h"]
    output, state = layer(inputs["x"], state, inputs.get("timespans"), given.get("resets"))
    h = state[0] if isinstance(state, tuple) else state
    loss = (output * given["cotangent"]).sum() + (h * given["h_cotangent"]).sum()
    leaves = inputs | {f"weights/{name}": value for name, value in layer.named_parameters()}
    found = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    gradients = {f"gradient/{k}": g.numpy() for k, g in zip(leaves, found, strict=True)}
    return {"output": output.detach().numpy(), "state": h.detach().numpy(), **gradients}


if __name__ == "__main__":
    port_answers.answer_file(answer, *sys.argv[1:])
