"""The small task that every port learns: the next value of a sine wave from this one.

Axes: B sequences, T steps.
"""

import numpy as np
import torch

import ncp_agents.torch
from ncp_agents.wirings import AutoNCP

STEPS, RATE, MOMENTUM = 30, 0.05, 0.9


def sine():
    """x and y (B, T, 1)."""
    phase = np.linspace(0, 2, 4, dtype="float32")[:, None]
    wave = np.sin(0.5 * np.arange(9, dtype="float32") + phase)[..., None]
    return wave[:, :-1], wave[:, 1:]


def layer(kind):
    """The torch layer, CfC or LTC, as it is before it learns."""
    torch.manual_seed(1)
    return getattr(ncp_agents.torch, kind)(1, AutoNCP(10, 1, seed=2))


def losses(kind):
    """The mean squared error before each step of gradient descent, as torch learns it."""
    learner = layer(kind)
    x, y = map(torch.tensor, sine())
    optimizer = torch.optim.SGD(learner.parameters(), RATE, MOMENTUM)
    found = []
    for _ in range(STEPS):
        loss = (learner(x)[0] - y).square().mean()
        found.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return found
