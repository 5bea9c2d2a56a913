"""The game beside the circuit that plays it, while it plays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ncp_agents.evaluation.rollout import Step
from ncp_agents.explain.activations import ActivationRecorder, trace
from ncp_agents.rendering.circuit_video import CircuitRenderer, clock, moments


def live(
    steps: Iterable[Step], player: ActivationRecorder, brain: CircuitRenderer
) -> Iterator[tuple[Step, np.ndarray]]:
    """Each step with its picture, of the first environment, in whose steps `player` plays.

    Raises:
        ValueError: steps without screens.
    """
    game, length, score = 1, 0, 0.0
    for step in steps:
        score += float(step.rewards[0])
        [moment] = moments(trace(player, [step]))
        said = f"{clock(length)}   game {game}, step {length + 1:,}"
        yield step, brain.draw(moment._replace(score=score), said)
        length += 1
        if "episode" in step.infos[0]:
            game, length, score = game + 1, 0, 0.0
