"""Fit a CfC layer to a series that is sampled at irregular times.

    python examples/time_series.py                   # 500 steps of training, about 20 seconds

A room is heated and cooled; a thermostat reports its setting at random times, and the layer has to
tell the room's temperature, which follows the setting with a time constant. That takes the time
between two reports, which a CfC or LTC layer receives as `timespans`. The program trains the same
layer with and without it and prints both errors.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from ncp_agents.torch import CfC
from ncp_agents.wirings import AutoNCP

SERIES, REPORTS = 64, 24  # B and T
TIME_CONSTANT = 2.0  # in the unit of the timespans, whose mean is 2


def batch(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return settings (B, T, 1), the time since the previous report (B, T), temperatures (B, T)."""
    timespans = 4 * torch.rand(SERIES, REPORTS, generator=generator)
    settings = 2 * torch.rand(SERIES, REPORTS, generator=generator) - 1
    temperature, temperatures = torch.zeros(SERIES), []
    for setting, timespan in zip(settings.T, timespans.T, strict=True):
        temperature = setting + (temperature - setting) * torch.exp(-timespan / TIME_CONSTANT)
        temperatures.append(temperature)
    return settings[..., None], timespans, torch.stack(temperatures, 1)


def train(steps: int, with_timespans: bool) -> float:
    """Return the root mean squared error on new series after training."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    rnn = CfC(1, AutoNCP(24, 4))  # 24 neurons, of which 4 are outputs
    head = nn.Linear(4, 1)
    optimizer = torch.optim.Adam([*rnn.parameters(), *head.parameters()], 1e-2)
    errors = []
    for step in range(steps + 10):
        settings, timespans, temperatures = batch(generator)
        output, _ = rnn(settings, timespans=timespans if with_timespans else None)  # (B, T, 4)
        loss = (head(output)[..., 0] - temperatures).square().mean()
        if step >= steps:  # the last ten batches are the test
            errors.append(loss.item())
            continue
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (sum(errors) / len(errors)) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=500, help="of gradient descent")
    steps = parser.parse_args().steps
    for with_timespans in (False, True):
        name = "with" if with_timespans else "without"
        print(f"CfC {name} timespans: error {train(steps, with_timespans):.3f}")


if __name__ == "__main__":
    main()
