"""How the process of a port reads the cases of `port_cases.py` and writes its answers. No framework
here: torch's Triton and TensorFlow cannot share a process."""

import json
from collections.abc import Callable

import numpy as np


def answer_file(answer: Callable[..., dict[str, np.ndarray]], questions: str, answers: str) -> None:
    """What the process of a port does: answer(description, arrays, weights) of each question."""
    given, found = np.load(questions), {}
    for number, description in enumerate(json.loads(str(given["descriptions"]))):
        prefix = f"{number}/"
        arrays = {n.removeprefix(prefix): v for n, v in given.items() if n.startswith(prefix)}
        weights = {n.removeprefix("weights/"): v for n, v in arrays.items() if n[:8] == "weights/"}
        arrays = {name: value for name, value in arrays.items() if name[:8] != "weights/"}
        for name, value in answer(description, arrays, weights).items():
            found[prefix + name] = value
    np.savez(answers, **found)
