"""Where the time of a training iteration goes, for the benchmarks beside this file."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import VecEnv

from ncp_agents.sb3 import SequencePPO
from ncp_agents.sb3.policies import CnnNcpPolicy


def envs(model: RecurrentPPO) -> VecEnv:
    env = model.get_env()
    assert env is not None
    return env


class Stopwatch:
    """Seconds spent in each part of a training iteration of SequencePPO.

    In the backward pass of the chain encoder → circuit → heads, the gradient's arrival at the
    neurons, at the features and at the first layer's weights mark where one part ends and the
    next begins; on a CPU all of it runs in order.
    """

    def __init__(self, model: SequencePPO) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.model = model
        self.mark = 0.0
        policy = cast(CnnNcpPolicy, model.policy)
        # Attributes of the objects, not of their classes: other models are not measured.
        for owner, name, part in (
            (envs(model), "step", "environment"),
            (policy, "extract_features", "encoder"),
            (policy.circuit, "states", "circuit"),
            (model, "collect_rollouts", "rollout"),
            (model, "train", "train"),
        ):
            setattr(owner, name, self._timed(getattr(owner, name), part))
        first = next(policy.features_extractor.parameters())
        first.register_post_accumulate_grad_hook(lambda _: self._lap("train: encoder"))

    def _timed(self, call: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self._clock(part):
                result = call(*args, **kwargs)
            if part == "encoder" and result.requires_grad:
                result.register_hook(lambda _: self._lap("train: circuit"))
            if part == "circuit" and result[0].requires_grad:
                result[0].register_hook(lambda _: self._lap(None))
            return result

        return timed

    @contextmanager
    def _clock(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if part in ("encoder", "circuit"):
            part = f"{'train' if torch.is_grad_enabled() else 'rollout'}: {part}"
        elif part == "environment":
            part = "rollout: environment"
        self.spent[part] += time.perf_counter() - start

    def _lap(self, part: str | None) -> None:
        now = time.perf_counter()
        if part:
            self.spent[part] += now - self.mark
        self.mark = now

    def parts(self) -> dict[str, float]:
        """Parts with what is left over, in order."""
        spent = dict(self.spent)
        for phase, names in (
            ("rollout", ("environment", "encoder", "circuit")),
            ("train", ("encoder", "circuit")),
        ):
            known = sum(spent[f"{phase}: {name}"] for name in names)
            spent[f"{phase}: rest"] = spent.pop(phase) - known
        return dict(sorted(spent.items()))
